/**
 * The user's side of the four AF_XDP rings. Each ring has one producer and one consumer, and the
 * kernel is one of them.
 *
 *     fill         user → kernel   free chunks to receive into   8-byte address
 *     rx           kernel → user   received frames               address, length, options: 16 bytes
 *     tx           user → kernel   frames to send                the same
 *     completion   kernel → user   chunks of sent frames         8-byte address
 *
 * Producer and consumer are free-running 32-bit counts. A descriptor's index is `count & mask`. To
 * produce, the user writes descriptors plainly and *submits* them with one atomic store of the
 * producer. To consume, the user *peeks* with one atomic load of the producer, reads descriptors
 * plainly, and *releases* them with one atomic store of the consumer. So there is one atomic per
 * batch and index. The store releases the plain stores before it, and the load acquires the
 * kernel's. No compiler moves plain accesses across a call of Atomics.
 *
 * Addresses have 64 bits on the ring, but packet memory is less than 2 GiB, so the high word is
 * always
 * 0. In rings from the kernel, it is 0 because only such addresses were put in. In rings to the
 *    kernel, it is zeroed at the start and never written.
 *
 * Source: Linux Documentation/networking/af_xdp.rst and include/uapi/linux/if_xdp.h.
 */

import type { MappedRing } from '../native/index.js';

const NEED_WAKEUP = 1;
/** Words per descriptor, as shifts. */
const ADDRESS_SHIFT = 1;
const FRAME_SHIFT = 2;
/** Word offsets in a frame descriptor. */
const LENGTH = 2;
const OPTIONS = 3;
/** The frame continues in the next descriptor (XDP_PKT_CONTD). */
const CONTINUED = 1;

/** Fill: chunks for the kernel. The caller must bound the number outstanding (see xsk-port.ts). */
export class FillRing {
  readonly entries: number;
  private readonly words: Int32Array;
  private readonly producerAt: number;
  private readonly flagsAt: number;
  private readonly base: number;
  private readonly mask: number;
  private producer: number;

  constructor(ring: MappedRing) {
    this.words = new Int32Array(ring.buffer);
    this.entries = ring.entries;
    this.producerAt = ring.producer >>> 2;
    this.flagsAt = ring.flags >>> 2;
    this.base = ring.descriptors >>> 2;
    this.mask = ring.entries - 1;
    this.producer = Atomics.load(this.words, this.producerAt);
  }

  /** Puts the addresses `from[at … at + count)` into the ring and submits them. */
  put(from: Int32Array, at: number, count: number): void {
    const { words, base, mask, producer } = this;
    for (let i = 0; i < count; i++) words[base + (((producer + i) & mask) << ADDRESS_SHIFT)] = from[at + i];
    this.producer = (producer + count) | 0;
    Atomics.store(words, this.producerAt, this.producer);
  }

  /** Whether the driver sleeps until it is woken for new chunks. Zero-copy only. */
  get needsWakeup(): boolean {
    return (Atomics.load(this.words, this.flagsAt) & NEED_WAKEUP) !== 0;
  }
}

/**
 * Tx: frames for the kernel. The caller must keep at most `entries` frames that are not completed.
 */
export class TxRing {
  readonly entries: number;
  private readonly words: Int32Array;
  private readonly producerAt: number;
  private readonly flagsAt: number;
  private readonly base: number;
  private readonly mask: number;
  private producer: number;
  private submitted: number;

  constructor(ring: MappedRing) {
    this.words = new Int32Array(ring.buffer);
    this.entries = ring.entries;
    this.producerAt = ring.producer >>> 2;
    this.flagsAt = ring.flags >>> 2;
    this.base = ring.descriptors >>> 2;
    this.mask = ring.entries - 1;
    this.producer = Atomics.load(this.words, this.producerAt);
    this.submitted = this.producer;
  }

  put(address: number, length: number): void {
    this.putPart(address, length, false);
  }

  /** Puts a part of a frame. `continued`: the next part belongs to the same frame. */
  putPart(address: number, length: number, continued: boolean): void {
    const at = this.base + ((this.producer & this.mask) << FRAME_SHIFT);
    this.words[at] = address;
    this.words[at + LENGTH] = length;
    this.words[at + OPTIONS] = continued ? CONTINUED : 0;
    this.producer = (this.producer + 1) | 0;
  }

  /** Submits the frames that were put. Returns whether there were any. */
  submit(): boolean {
    if (this.submitted === this.producer) return false;
    this.submitted = this.producer;
    Atomics.store(this.words, this.producerAt, this.producer);
    return true;
  }

  /** Whether the kernel sends only when kicked: always in copy mode. */
  get needsWakeup(): boolean {
    return (Atomics.load(this.words, this.flagsAt) & NEED_WAKEUP) !== 0;
  }
}

/** Rx: frames from the kernel. */
export class RxRing {
  readonly entries: number;
  private readonly words: Int32Array;
  private readonly producerAt: number;
  private readonly consumerAt: number;
  private readonly base: number;
  private readonly mask: number;
  private consumer: number;

  constructor(ring: MappedRing) {
    this.words = new Int32Array(ring.buffer);
    this.entries = ring.entries;
    this.producerAt = ring.producer >>> 2;
    this.consumerAt = ring.consumer >>> 2;
    this.base = ring.descriptors >>> 2;
    this.mask = ring.entries - 1;
    this.consumer = Atomics.load(this.words, this.consumerAt);
  }

  /** Number of waiting frames, at most `max`. */
  peek(max: number): number {
    const waiting = (Atomics.load(this.words, this.producerAt) - this.consumer) | 0;
    return Math.min(waiting, max);
  }

  /** Reads offset and length of the first `count` waiting frames into columns, from `at` on. */
  read(start: Int32Array, length: Int32Array, at: number, count: number): void {
    const { words, base, mask, consumer } = this;
    for (let i = 0; i < count; i++) {
      const descriptor = base + (((consumer + i) & mask) << FRAME_SHIFT);
      start[at + i] = words[descriptor];
      length[at + i] = words[descriptor + LENGTH];
    }
  }

  /**
   * Offset and length in descriptor `n`, counted from the first waiting one, and whether its frame
   * continues in the next one.
   */
  address(n: number): number {
    return this.words[this.base + (((this.consumer + n) & this.mask) << FRAME_SHIFT)];
  }

  length(n: number): number {
    return this.words[this.base + (((this.consumer + n) & this.mask) << FRAME_SHIFT) + LENGTH];
  }

  isContinued(n: number): boolean {
    const options = this.words[this.base + (((this.consumer + n) & this.mask) << FRAME_SHIFT) + OPTIONS];
    return (options & CONTINUED) !== 0;
  }

  /** Gives the first `count` descriptors back to the kernel. */
  release(count: number): void {
    this.consumer = (this.consumer + count) | 0;
    Atomics.store(this.words, this.consumerAt, this.consumer);
  }
}

/** Completion: chunks that the kernel has sent. */
export class CompletionRing {
  private readonly words: Int32Array;
  private readonly producerAt: number;
  private readonly consumerAt: number;
  private readonly base: number;
  private readonly mask: number;
  private consumer: number;

  constructor(ring: MappedRing) {
    this.words = new Int32Array(ring.buffer);
    this.producerAt = ring.producer >>> 2;
    this.consumerAt = ring.consumer >>> 2;
    this.base = ring.descriptors >>> 2;
    this.mask = ring.entries - 1;
    this.consumer = Atomics.load(this.words, this.consumerAt);
  }

  /**
   * Takes all waiting addresses, masked, into `into` from `at` on, and releases their descriptors.
   * Returns their number.
   */
  drain(into: Int32Array, at: number, addressMask: number): number {
    const { words, base, mask, consumer } = this;
    const count = (Atomics.load(words, this.producerAt) - consumer) | 0;
    if (count === 0) return 0;
    for (let i = 0; i < count; i++)
      into[at + i] = words[base + (((consumer + i) & mask) << ADDRESS_SHIFT)] & addressMask;
    this.consumer = (consumer + count) | 0;
    Atomics.store(words, this.consumerAt, this.consumer);
    return count;
  }
}
