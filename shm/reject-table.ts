/**
 * The sources of refused datagrams: the addresses that sent the most, in a fixed number of rows,
 * however many addresses there are.
 *
 * *Space-saving* (Metwally et al. 2005): an address without a row takes the row with the smallest
 * count and continues that count. So a count may be too high, by at most `inherited`, and is never
 * too low. Every address that sent more than 1/`ROWS` of all refused datagrams is in the table.
 *
 *     per row: a cell of address (66 characters at most), count, inherited, reason, time     written by the receive thread
 */

import { Region } from './region.js';
import { getText, putText } from './text-floats.js';
import { VersionedCells } from './versioned.js';

const ROWS = 32;
const ADDRESS_FLOATS = 11;
const ROW = { count: ADDRESS_FLOATS, inherited: 12, reason: 13, at: 14 } as const;
const ROW_FLOATS = 15;

export interface RejectRow {
  readonly address: string;
  /** Datagrams refused. At most `inherited` of them came from other addresses. */
  readonly count: number;
  readonly inherited: number;
  /**
   * Reason of the last refusal, as the writer numbers reasons. `at` is its time, in ms of
   * `monotonicMs`.
   */
  readonly reason: number;
  readonly at: number;
}

export function createRejectTable(): SharedArrayBuffer {
  return new SharedArrayBuffer(VersionedCells.bytes(ROWS, ROW_FLOATS));
}

export class RejectTable {
  private readonly cells: VersionedCells;
  private readonly rowOf = new Map<string, number>();
  private readonly addresses: string[] = [];
  /** The writer's copy of the rows. */
  private readonly floats: Float64Array[];

  constructor(buffer: SharedArrayBuffer) {
    this.cells = new VersionedCells(new Region(buffer), ROWS, ROW_FLOATS);
    this.floats = Array.from({ length: ROWS }, () => new Float64Array(ROW_FLOATS));
    for (let row = 0; row < ROWS && this.cells.read(row, this.floats[row]) > 0; row++) {
      this.addresses.push(getText(this.floats[row], 0, ADDRESS_FLOATS));
      this.rowOf.set(this.addresses[row], row);
    }
  }

  /** The only writer calls this when a datagram from `address` was refused. */
  note(address: string, reason: number, at: number): void {
    const row = this.rowOf.get(address) ?? this.take(address);
    const floats = this.floats[row];
    floats[ROW.count]++;
    floats[ROW.reason] = reason;
    floats[ROW.at] = at;
    this.cells.write(row, floats, ROW_FLOATS);
  }

  /** The rows at present, largest count first. */
  rows(): RejectRow[] {
    const rows: RejectRow[] = [];
    const floats = new Float64Array(ROW_FLOATS);
    for (let row = 0; row < ROWS && this.cells.read(row, floats) > 0; row++)
      rows.push({
        address: getText(floats, 0, ADDRESS_FLOATS),
        count: floats[ROW.count],
        inherited: floats[ROW.inherited],
        reason: floats[ROW.reason],
        at: floats[ROW.at],
      });
    return rows.sort((a, b) => b.count - a.count);
  }

  /**
   * Takes a row for an address that has none: a free one, else the one with the smallest count.
   */
  private take(address: string): number {
    let row = this.addresses.length;
    if (row === ROWS) {
      row = 0;
      for (let i = 1; i < ROWS; i++) if (this.floats[i][ROW.count] < this.floats[row][ROW.count]) row = i;
      this.rowOf.delete(this.addresses[row]);
      this.floats[row][ROW.inherited] = this.floats[row][ROW.count];
    }
    this.addresses[row] = address;
    this.rowOf.set(address, row);
    putText(this.floats[row], 0, ADDRESS_FLOATS, address);
    return row;
  }
}
