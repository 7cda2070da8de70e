/**
 * Packet memory: one SharedArrayBuffer per worker, cut into chunks of a power of two bytes, one frame a chunk.
 *
 * For AF_XDP it is the UMEM and starts on a page. A frame's Ethernet header starts at an offset of 2 modulo 4, so that
 * the IP header, 14 or 18 bytes on, lies on a word boundary and its addresses are one `Int32Array` access each.
 * All offsets are bytes from the start of the memory; a frame's chunk is `offset & ~(chunkBytes - 1)`.
 */
export class PacketMemory {
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly i32: Int32Array;
  readonly chunkBytes: number;
  readonly chunks: number;

  constructor(buffer: SharedArrayBuffer, byteOffset: number, chunks: number, chunkBytes: number) {
    if (chunkBytes < 2048 || (chunkBytes & (chunkBytes - 1)) !== 0)
      throw new RangeError(`packet chunk of ${chunkBytes} bytes: a power of two from 2048 is needed`);
    const bytes = chunks * chunkBytes;
    this.u8 = new Uint8Array(buffer, byteOffset, bytes);
    this.u16 = new Uint16Array(buffer, byteOffset, bytes >>> 1);
    this.i32 = new Int32Array(buffer, byteOffset, bytes >>> 2);
    this.chunkBytes = chunkBytes;
    this.chunks = chunks;
  }
}
