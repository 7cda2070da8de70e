/**
 * UMEM: the packet memory that the kernel and a worker share, and the ownership of its chunks.
 *
 *     free stack ─▶ fill ring ─▶ kernel ─▶ rx ring ─▶ batch ─▶ tx ring ─▶ kernel ─▶ completion ring
 *         ▲                                             │ dropped                           │
 *         └─────────────────────────────────────────────┴───────────────────────────────────┘
 *
 * Every chunk is in exactly one of these places. For the copy of a frame that is not in a batch, a
 * chunk goes from the stack to a tx ring. The free stack is last in, first out, so chunks that are
 * still in the cache are used first.
 *
 * When a socket is closed, the chunks in its rings and in the kernel are taken back together
 * (`reclaim`). For this, each chunk has the number of the socket it was last given to. Between two
 * batches, a chunk is free or belongs to that socket.
 *
 * Jumbo buffers have their own free stack. A frame that arrives in several chunks is assembled in a
 * buffer from it. The buffer returns to it when the frame is dropped, or copied into chunks to be
 * sent.
 *
 * A received frame starts at chunk + headroom + 256 (XDP_PACKET_HEADROOM): with a headroom of 2, at
 * 2 modulo 4.
 */

import { addressOf, adviseMemory, isNativeError } from '../native/index.js';
import { JUMBO_BYTES, jumboStart, PacketMemory } from '../packet/memory.js';
import type { CompletionRing, FillRing } from './xsk-ring.js';

export const UMEM_HEADROOM_BYTES = 2;
/** Reserved by the kernel at the start of every chunk. */
const XDP_PACKET_HEADROOM_BYTES = 256;
/**
 * The memory starts on a huge page, and so on a page. Otherwise the kernel could not back its start
 * with a huge page.
 */
const ALIGNMENT_BYTES = 2 * 1024 * 1024;

/** The longest frame, in bytes, that fits a chunk. */
export function frameBytesMax(chunkBytes: number): number {
  return chunkBytes - XDP_PACKET_HEADROOM_BYTES - UMEM_HEADROOM_BYTES;
}

/** The longest frame that fits a jumbo buffer. */
export const JUMBO_FRAME_BYTES_MAX = frameBytesMax(JUMBO_BYTES);

export class Umem {
  readonly memory: PacketMemory;
  /** The memory registered with the kernel: the chunks. */
  readonly registered: Uint8Array;
  private readonly free: Int32Array;
  /** Mask and shift that give the chunk of an offset. */
  private readonly chunkMask: number;
  private readonly chunkShift: number;
  /** By chunk: the socket it was last given to. */
  private readonly holder: Uint16Array;
  private freeCount = 0;
  private readonly freeJumbos: Int32Array;
  private freeJumboCount = 0;
  private readonly jumboAt: number;

  /** `jumbos` is the number of jumbo buffers: 0 if no frame is longer than a chunk. */
  constructor(chunks: number, chunkBytes: number, jumbos = 0) {
    const bytes = jumboStart(chunks * chunkBytes) + jumbos * JUMBO_BYTES;
    if (bytes > 2 ** 31 - ALIGNMENT_BYTES)
      throw new RangeError(`${chunks} chunks of ${chunkBytes} bytes: packet memory is at most 2 GiB per worker`);
    const buffer = new SharedArrayBuffer(bytes + ALIGNMENT_BYTES);
    const misaligned = addressOf(new Uint8Array(buffer)) % ALIGNMENT_BYTES;
    const start = misaligned === 0 ? 0 : ALIGNMENT_BYTES - misaligned;
    this.memory = new PacketMemory(buffer, start, chunks, chunkBytes, jumbos);
    this.registered = this.memory.u8.subarray(0, chunks * chunkBytes);
    this.jumboAt = this.memory.jumboAt;
    advise(this.memory.u8);
    this.chunkMask = -chunkBytes;
    this.chunkShift = 31 - Math.clz32(chunkBytes);
    this.holder = new Uint16Array(chunks);
    this.free = new Int32Array(chunks);
    for (let chunk = chunks - 1; chunk >= 0; chunk--) this.give(chunk * chunkBytes);
    this.freeJumbos = new Int32Array(jumbos);
    for (let jumbo = jumbos - 1; jumbo >= 0; jumbo--) this.give(this.jumboAt + jumbo * JUMBO_BYTES);
  }

  get available(): number {
    return this.freeCount;
  }

  /** Number of free jumbo buffers. */
  get availableJumbos(): number {
    return this.freeJumboCount;
  }

  /** Records that the chunk at this offset goes to a socket's tx ring. */
  lend(offset: number, socket: number): void {
    this.holder[offset >>> this.chunkShift] = socket;
  }

  /**
   * Between batches: takes back all chunks of a closed socket, wherever they are. Returns their
   * number.
   *
   * The kernel must have finished with them: the socket's device is gone, or it copied, or its
   * queue was bound again.
   */
  reclaim(socket: number): number {
    const { free, holder, chunkShift } = this;
    const isFree = new Uint8Array(holder.length);
    for (let i = 0; i < this.freeCount; i++) isFree[free[i] >>> chunkShift] = 1;
    let count = 0;
    for (let chunk = 0; chunk < holder.length; chunk++) {
      if (holder[chunk] !== socket || isFree[chunk] === 1) continue;
      this.give(chunk << chunkShift);
      count++;
    }
    return count;
  }

  /** Takes back the chunk or the jumbo buffer at this offset. */
  give(offset: number): void {
    if (offset >= this.jumboAt) this.freeJumbos[this.freeJumboCount++] = offset & -JUMBO_BYTES;
    else this.free[this.freeCount++] = offset & this.chunkMask;
  }

  /**
   * Copies a frame that fits a chunk into a free chunk, which must exist. Returns the byte offset
   * of the frame.
   */
  takeCopy(frames: Uint8Array, from: number, length: number): number {
    const { u8, chunkBytes } = this.memory;
    const start =
      this.free[--this.freeCount] + Math.min(chunkBytes - length, XDP_PACKET_HEADROOM_BYTES + UMEM_HEADROOM_BYTES);
    for (let i = 0; i < length; i++) u8[start + i] = frames[from + i];
    return start;
  }

  /** Takes a free chunk, which must exist. Returns its byte offset. */
  take(): number {
    return this.free[--this.freeCount];
  }

  /** Takes a free jumbo buffer, which must exist. Returns the byte offset for a frame in it. */
  takeJumbo(): number {
    return this.freeJumbos[--this.freeJumboCount] + XDP_PACKET_HEADROOM_BYTES + UMEM_HEADROOM_BYTES;
  }

  /** Takes back all chunks that were sent. Returns their number. */
  collect(completion: CompletionRing): number {
    const count = completion.drain(this.free, this.freeCount, this.chunkMask);
    this.freeCount += count;
    return count;
  }

  /** Gives the kernel `count` chunks to receive into. At least as many must be free. */
  supply(fill: FillRing, count: number, socket: number): void {
    const { free, holder, chunkShift } = this;
    const first = this.freeCount - count;
    for (let i = first; i < this.freeCount; i++) holder[free[i] >>> chunkShift] = socket;
    this.freeCount = first;
    fill.put(free, first, count);
  }
}

/**
 * Huge pages save TLB misses. DONTFORK keeps a fork from making the kernel's pinned pages
 * copy-on-write.
 */
function advise(memory: Uint8Array): void {
  adviseMemory(memory, 'dontfork');
  try {
    adviseMemory(memory, 'hugepage');
  } catch (error) {
    // A kernel without huge pages is slower, but correct.
    if (!isNativeError(error, 'EINVAL')) throw error;
  }
}
