/**
 * Cells of numbers that one thread writes as a whole and others read as a whole, without a queue
 * between them. The reader sees the latest state, however many changes it missed.
 *
 * Each cell holds two copies and a version. The writer fills the copy that is not valid, then
 * stores the version, whose lowest bit names the valid copy:
 *
 *     version | used[2] | copy 0 … | copy 1 …                    a cell starts on a cache line
 *
 * | step                        | why it is safe                                                                  |
 * | --------------------------- | ------------------------------------------------------------------------------- |
 * | writer fills the other copy | plain stores: readers read copy `version & 1`                                     |
 * | writer stores `version + 1` | one atomic store releases the plain stores before it                            |
 * | reader reads its copy       | plain loads between two atomic loads of the version: if it did not change, the   |
 * |                             | writer had not yet returned to this copy (loads are not reordered: TSO)         |
 * | writer dies in between      | the valid copy is untouched: readers never wait for a dead writer               |
 */

import type { Region } from './region.js';
import { BYTES_PER_LINE, roundUp, struct } from './struct.js';

const HEAD = struct({ version: 1, used: 2, pad: 1 });
const FLOATS_AT = HEAD.words >> 1;

function strideBytes(floats: number): number {
  return roundUp(HEAD.bytes + 2 * floats * 8, BYTES_PER_LINE);
}

export class VersionedCells {
  readonly floats: number;
  private readonly i32: Int32Array;
  private readonly f64: Float64Array;
  private readonly strideWords: number;

  static bytes(cells: number, floats: number): number {
    return cells * strideBytes(floats);
  }

  /** `cells` cells of up to `floats` numbers each, at the start of `region`. */
  constructor(region: Region, cells: number, floats: number) {
    const bytes = VersionedCells.bytes(cells, floats);
    this.i32 = region.i32(0, bytes >>> 2);
    this.f64 = region.f64(0, bytes >>> 3);
    this.floats = floats;
    this.strideWords = strideBytes(floats) >>> 2;
  }

  /** Changes whenever the cell is written. 0: never written. */
  version(cell: number): number {
    return Atomics.load(this.i32, cell * this.strideWords + HEAD.at.version);
  }

  /** The only writer calls this: `source[0 … count)` becomes the cell's content. */
  write(cell: number, source: Float64Array, count: number): void {
    const base = cell * this.strideWords;
    const next = (this.i32[base + HEAD.at.version] + 1) | 0;
    const half = next & 1;
    const at = (base >>> 1) + FLOATS_AT + half * this.floats;
    for (let i = 0; i < count; i++) this.f64[at + i] = source[i];
    this.i32[base + HEAD.at.used + half] = count;
    Atomics.store(this.i32, base + HEAD.at.version, next);
  }

  /**
   * Copies the cell into `into` and returns its version. Elements of `into` beyond those last
   * written are not changed.
   */
  read(cell: number, into: Float64Array): number {
    const base = cell * this.strideWords;
    for (;;) {
      const version = Atomics.load(this.i32, base + HEAD.at.version);
      const half = version & 1;
      const count = this.i32[base + HEAD.at.used + half];
      const at = (base >>> 1) + FLOATS_AT + half * this.floats;
      for (let i = 0; i < count; i++) into[i] = this.f64[at + i];
      if (Atomics.load(this.i32, base + HEAD.at.version) === version) return version;
    }
  }
}
