/**
 * A frame that comes in several chunks, put together in a jumbo buffer. One per socket: the kernel
 * gives the parts of a frame one after the other.
 */

import { NONE } from '../../shm/none.js';
import { JUMBO_FRAME_BYTES_MAX, type Umem } from './umem.js';

export class Assembly {
  /** Whether a part was added since the last `end`. */
  isOpen = false;
  /**
   * Where the frame starts; `NONE`: it is too long, or no buffer was free, and the rest of it is
   * passed over.
   */
  start: number = NONE;
  length = 0;
  private readonly umem: Umem;

  constructor(umem: Umem) {
    this.umem = umem;
  }

  /** Copies the next part. */
  add(from: number, bytes: number): void {
    const { umem } = this;
    if (!this.isOpen) {
      this.isOpen = true;
      this.length = 0;
      this.start = umem.availableJumbos === 0 ? NONE : umem.takeJumbo();
    }
    if (this.start === NONE) return;
    if (this.length + bytes > JUMBO_FRAME_BYTES_MAX) {
      umem.give(this.start);
      this.start = NONE;
      return;
    }
    umem.memory.u8.copyWithin(this.start + this.length, from, from + bytes);
    this.length += bytes;
  }

  /** The frame was taken over, or passed over: the next part is another frame's first. */
  end(): void {
    this.isOpen = false;
    this.start = NONE;
  }
}
