/** Size of a jumbo buffer, in bytes. */
export const JUMBO_BYTES = 16_384;

/** Byte offset of the jumbo buffers after this many bytes of chunks. */
export function jumboStart(chunksBytes: number): number {
  return Math.ceil(chunksBytes / JUMBO_BYTES) * JUMBO_BYTES;
}

/**
 * Packet memory: one SharedArrayBuffer per worker, divided into chunks of a power of two bytes,
 * with one frame per chunk.
 *
 * For AF_XDP it is the UMEM and starts on a page. A frame's Ethernet header starts at an offset of
 * 2 modulo 4. The IP header, 14 or 18 bytes later, is then on a word boundary, and each address is
 * one `Int32Array` access. All offsets are bytes from the start of the memory. A frame's chunk is
 * `offset & ~(chunkBytes - 1)`.
 *
 * Frames longer than a chunk are in *jumbo buffers*, which follow the chunks from `jumboAt` on.
 * They are not part of the UMEM. A driver that receives such a frame in several chunks copies them
 * together, and splits the frame again to send it. So a packet is always in one piece for all other
 * code.
 */
export class PacketMemory {
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly i32: Int32Array;
  readonly chunkBytes: number;
  readonly chunks: number;
  /**
   * Byte offset of the jumbo buffers, a multiple of their size. If there are none, the end of the
   * memory.
   */
  readonly jumboAt: number;
  /** Longest frame that there is room for, in either kind of buffer. */
  readonly roomBytes: number;

  constructor(buffer: SharedArrayBuffer, byteOffset: number, chunks: number, chunkBytes: number, jumbos = 0) {
    if (chunkBytes < 2048 || (chunkBytes & (chunkBytes - 1)) !== 0)
      throw new RangeError(`packet chunk of ${chunkBytes} bytes: a power of two from 2048 is needed`);
    this.jumboAt = jumbos === 0 ? chunks * chunkBytes : jumboStart(chunks * chunkBytes);
    this.roomBytes = jumbos === 0 ? chunkBytes : JUMBO_BYTES;
    const bytes = this.jumboAt + jumbos * JUMBO_BYTES;
    this.u8 = new Uint8Array(buffer, byteOffset, bytes);
    this.u16 = new Uint16Array(buffer, byteOffset, bytes >>> 1);
    this.i32 = new Int32Array(buffer, byteOffset, bytes >>> 2);
    this.chunkBytes = chunkBytes;
    this.chunks = chunks;
  }
}
