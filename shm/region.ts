import { BYTES_PER_LINE } from './struct.js';

/** A stretch of a SharedArrayBuffer that belongs to one object. Starts on a cache line. */
export class Region {
  readonly buffer: SharedArrayBuffer;
  readonly byteOffset: number;
  readonly byteLength: number;

  constructor(buffer: SharedArrayBuffer, byteOffset = 0, byteLength = buffer.byteLength - byteOffset) {
    if (byteOffset % BYTES_PER_LINE !== 0) throw new RangeError(`region at ${byteOffset} is not on a cache line`);
    if (byteOffset + byteLength > buffer.byteLength) throw new RangeError('region reaches past its buffer');
    this.buffer = buffer;
    this.byteOffset = byteOffset;
    this.byteLength = byteLength;
  }

  /** `count` signed words from `byteOffset` within the region. */
  i32(byteOffset = 0, count = (this.byteLength - byteOffset) >>> 2): Int32Array {
    this.check(byteOffset, count * 4);
    return new Int32Array(this.buffer, this.byteOffset + byteOffset, count);
  }

  u32(byteOffset = 0, count = (this.byteLength - byteOffset) >>> 2): Uint32Array {
    this.check(byteOffset, count * 4);
    return new Uint32Array(this.buffer, this.byteOffset + byteOffset, count);
  }

  u8(byteOffset = 0, count = this.byteLength - byteOffset): Uint8Array {
    this.check(byteOffset, count);
    return new Uint8Array(this.buffer, this.byteOffset + byteOffset, count);
  }

  f64(byteOffset = 0, count = (this.byteLength - byteOffset) >>> 3): Float64Array {
    this.check(byteOffset, count * 8);
    return new Float64Array(this.buffer, this.byteOffset + byteOffset, count);
  }

  /** A part of this region; the part starts on a cache line. */
  part(byteOffset: number, byteLength: number): Region {
    this.check(byteOffset, byteLength);
    return new Region(this.buffer, this.byteOffset + byteOffset, byteLength);
  }

  private check(byteOffset: number, byteLength: number): void {
    if (byteOffset < 0 || byteLength < 0 || byteOffset + byteLength > this.byteLength)
      throw new RangeError(`bytes ${byteOffset}..${byteOffset + byteLength} of a region of ${this.byteLength}`);
  }
}
