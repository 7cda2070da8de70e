/**
 * Assembles a frame that arrives in several chunks in a jumbo buffer. There is one assembly per
 * socket, because the kernel delivers the parts of a frame one after the other.
 */

import { NONE } from '../../shm/none.js';
import { JUMBO_FRAME_BYTES_MAX, type Umem } from './umem.js';

export class Assembly {
  /** Whether a part was added since the last `end`. */
  isOpen = false;
  /**
   * Byte offset of the frame. `NONE`: it is too long, or no buffer was free, and the rest of it is
   * skipped.
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

  /** Ends a frame that was taken or skipped. The next part begins another frame. */
  end(): void {
    this.isOpen = false;
    this.start = NONE;
  }
}
