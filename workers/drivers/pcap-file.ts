/**
 * Capture files in the classic pcap format (draft-ietf-opsawg-pcap), link type Ethernet.
 *
 *     file     magic 4 | version 2.4: 4 | reserved 8 | longest record 4 | FCS length, link type 4
 *     record   seconds 4 | micro- or nanoseconds 4 | captured bytes 4 | bytes of frame 4 | bytes …
 *
 * Numbers are in the byte order of the machine that wrote the file. The magic number shows the byte
 * order, and whether fractions of a second are in micro- or nanoseconds.
 */

import { closeSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';

const MAGIC_MICROSECONDS = 0xa1b2c3d4;
const MAGIC_NANOSECONDS = 0xa1b23c4d;
const VERSION_MAJOR = 2;
const VERSION_MINOR = 4;
const LINK_ETHERNET = 1;
/**
 * Set if the upper four bits give the length of the frame check sequence that ends each frame, in
 * half words.
 */
const FCS_PRESENT = 0x0400_0000;
const FILE_HEADER_BYTES = 24;
const RECORD_HEADER_BYTES = 16;
/** The most that libpcap accepts. A record that claims more is damage, not a frame. */
const RECORD_BYTES_MAX = 262_144;
const READ_AHEAD_BYTES = RECORD_BYTES_MAX + RECORD_HEADER_BYTES;
const WRITE_BUFFER_BYTES = 256 * 1024;

/** A damaged or unsupported file: what is wrong, and at which byte. */
class PcapError extends Error {
  constructor(file: string, offset: number, why: string) {
    super(`${file}: at byte ${offset}: ${why}`);
    this.name = 'PcapError';
  }
}

const OTHER_FORMATS: Readonly<Record<number, string>> = {
  168627466: 'a pcapng file, not classic pcap: convert it with `editcap -F pcap`',
  2712849716: 'a "modified" pcap file, not classic pcap: convert it with `editcap -F pcap`',
};

/**
 * Reads one record after the other through a bounded buffer. `next()` steps to a record, and the
 * fields describe it.
 */
export class PcapReader {
  readonly file: string;
  readonly nanosecondFile: boolean;
  /** Time stamp of the record. */
  seconds = 0;
  nanoseconds = 0;
  /** The record's bytes: `buffer[at … at + bytes)`, valid until the next step. */
  readonly buffer = Buffer.allocUnsafe(READ_AHEAD_BYTES);
  at = 0;
  bytes = 0;
  /** Whether the file ended within its last record, for example because its writer was stopped. */
  truncated = false;
  private readonly fd: number;
  private readonly littleEndian: boolean;
  private readonly fcsBytes: number;
  /** `buffer[from … to)` is unread. `from` is at byte `offset` of the file. */
  private from = 0;
  private to = 0;
  private offset = 0;
  private ended = false;

  /** Opens a file and reads its header. Throws a `PcapError`, or the file system's error. */
  constructor(file: string) {
    this.file = file;
    this.fd = openSync(file, 'r');
    try {
      if (!fstatSync(this.fd).isFile()) throw new PcapError(file, 0, 'this is not a regular file');
      if (!this.fill(FILE_HEADER_BYTES)) throw new PcapError(file, this.to, 'the file ends within its header');
      const magic = this.magic();
      this.littleEndian = magic.littleEndian;
      this.nanosecondFile = magic.nanoseconds;
      const version = `${this.u16(4)}.${this.u16(6)}`;
      if (version !== `${VERSION_MAJOR}.${VERSION_MINOR}`)
        throw new PcapError(file, 4, `format version ${version}; ${VERSION_MAJOR}.${VERSION_MINOR} is read`);
      const link = this.u32(20);
      if ((link & 0xffff) !== LINK_ETHERNET)
        throw new PcapError(file, 20, `link type ${link & 0xffff}; only Ethernet (${LINK_ETHERNET}) is read`);
      this.fcsBytes = (link & FCS_PRESENT) !== 0 ? (link >>> 28) * 2 : 0;
      this.skip(FILE_HEADER_BYTES);
    } catch (error) {
      closeSync(this.fd);
      throw error;
    }
  }

  private magic(): { littleEndian: boolean; nanoseconds: boolean } {
    const little = this.buffer.readUInt32LE(0);
    const big = this.buffer.readUInt32BE(0);
    for (const [magic, nanoseconds] of [
      [MAGIC_MICROSECONDS, false],
      [MAGIC_NANOSECONDS, true],
    ] as const) {
      if (little === magic) return { littleEndian: true, nanoseconds };
      if (big === magic) return { littleEndian: false, nanoseconds };
    }
    const known = OTHER_FORMATS[little] ?? OTHER_FORMATS[big];
    throw new PcapError(this.file, 0, known ?? `the magic number ${big.toString(16)} is not that of a pcap file`);
  }

  /**
   * Steps to the next record. Returns false at the end. Throws a `PcapError` if the file is
   * damaged; the reader is then at its end.
   */
  next(): boolean {
    if (this.ended) return false;
    this.ended = true; // reset below if a whole record is found
    if (!this.fill(RECORD_HEADER_BYTES)) {
      this.truncated = this.to > this.from;
      return false;
    }
    const captured = this.u32(8);
    const original = this.u32(12);
    const fraction = this.u32(4);
    if (captured > RECORD_BYTES_MAX) throw this.damage(8, `a record of ${captured} bytes`);
    if (captured > original) throw this.damage(8, `${captured} bytes captured of a frame of ${original}`);
    if (fraction >= (this.nanosecondFile ? 1e9 : 1e6)) throw this.damage(4, `${fraction} parts of a second`);
    if (!this.fill(RECORD_HEADER_BYTES + captured)) {
      this.truncated = true;
      return false;
    }
    this.seconds = this.u32(0);
    this.nanoseconds = this.nanosecondFile ? fraction : fraction * 1000;
    this.at = this.from + RECORD_HEADER_BYTES;
    this.bytes = Math.max(0, Math.min(captured, original - this.fcsBytes));
    this.skip(RECORD_HEADER_BYTES + captured);
    this.ended = false;
    return true;
  }

  close(): void {
    closeSync(this.fd);
    this.ended = true;
  }

  private damage(within: number, why: string): PcapError {
    return new PcapError(this.file, this.offset + within, why);
  }

  private skip(bytes: number): void {
    this.from += bytes;
    this.offset += bytes;
  }

  /** Reads until at least `bytes` bytes are at `from`. Returns false if the file has fewer left. */
  private fill(bytes: number): boolean {
    if (this.to - this.from >= bytes) return true;
    this.buffer.copyWithin(0, this.from, this.to);
    this.to -= this.from;
    this.from = 0;
    while (this.to < bytes) {
      const read = readSync(this.fd, this.buffer, this.to, this.buffer.length - this.to, null);
      if (read === 0) return false;
      this.to += read;
    }
    return true;
  }

  private u16(at: number): number {
    return this.littleEndian ? this.buffer.readUInt16LE(this.from + at) : this.buffer.readUInt16BE(this.from + at);
  }

  private u32(at: number): number {
    return this.littleEndian ? this.buffer.readUInt32LE(this.from + at) : this.buffer.readUInt32BE(this.from + at);
  }
}

/** Writes a file record by record, buffered, in little-endian order. */
export class PcapWriter {
  readonly file: string;
  private readonly fd: number;
  private readonly nanosecondFile: boolean;
  private readonly buffer = Buffer.allocUnsafe(WRITE_BUFFER_BYTES);
  private used = 0;
  /** Number of records not yet in the file. */
  pending = 0;

  /** Creates the file, or empties it. Throws a `PcapError`, or the file system's error. */
  constructor(file: string, nanosecondFile: boolean) {
    this.file = file;
    this.nanosecondFile = nanosecondFile;
    this.fd = openSync(file, 'w');
    this.u32(nanosecondFile ? MAGIC_NANOSECONDS : MAGIC_MICROSECONDS);
    this.u32(VERSION_MAJOR | (VERSION_MINOR << 16));
    this.u32(0);
    this.u32(0);
    this.u32(RECORD_BYTES_MAX);
    this.u32(LINK_ETHERNET);
    try {
      this.flush();
    } catch (error) {
      closeSync(this.fd);
      throw new PcapError(file, 0, (error as Error).message);
    }
  }

  /** Appends a frame of `bytes` bytes at `source[at]`. Throws the file system's error. */
  write(source: Uint8Array, at: number, bytes: number, seconds: number, nanoseconds: number): void {
    if (this.used + RECORD_HEADER_BYTES + bytes > this.buffer.length) this.flush();
    this.pending++;
    this.u32(seconds);
    this.u32(this.nanosecondFile ? nanoseconds : Math.trunc(nanoseconds / 1000));
    this.u32(bytes);
    this.u32(bytes);
    this.buffer.set(source.subarray(at, at + bytes), this.used);
    this.used += bytes;
  }

  /** Writes the buffer to the file, so others can read all records. */
  flush(): void {
    let from = 0;
    while (from < this.used) from += writeSync(this.fd, this.buffer, from, this.used - from);
    this.used = 0;
    this.pending = 0;
  }

  close(): void {
    try {
      this.flush();
    } finally {
      closeSync(this.fd);
    }
  }

  private u32(value: number): void {
    this.used = this.buffer.writeUInt32LE(value >>> 0, this.used);
  }
}
