/**
 * How many packets of a traffic dispersion graph were replicated, for its error bound.
 *
 *     local   `ReplicatedAmounts` of one cell: the packets in our records; and per worker the packets it added
 *
 * A record carries an edge's totals. Its new part is the difference to what was replicated of that
 * edge before. The edge's entry notes that amount. Only the send thread writes it, and the thread
 * that inserts the entry. After the death of a send thread the bound may stay too large by what
 * that thread had staged, but never too small.
 */

import type { Region } from '../../region.js';
import { BYTES_PER_LINE } from '../../struct.js';
import { ReplicatedAmounts, replicatedBytes } from '../core/replicated-amounts.js';

export function graphReplicatedBytes(stripes: number): number {
  return replicatedBytes(1) + stripes * BYTES_PER_LINE;
}

export class GraphReplicated {
  private readonly replicated: ReplicatedAmounts;
  private readonly added: Float64Array;
  /** Index in `added` of this worker. */
  private readonly own: number;
  private recovered = false;

  constructor(local: Region, stripes: number, writerId: number) {
    this.replicated = new ReplicatedAmounts(local.part(0, replicatedBytes(1)), 1);
    this.added = local.f64(replicatedBytes(1), (stripes * BYTES_PER_LINE) / 8);
    this.own = ((writerId - 1) * BYTES_PER_LINE) / 8;
  }

  /** A worker calls this when it is about to log `packets` more packets. */
  add(packets: number): void {
    this.added[this.own] += packets;
  }

  /** The send thread calls this when a record contains `packets` packets for the first time. */
  advance(packets: number): void {
    if (!this.recovered) {
      this.recovered = true;
      this.replicated.takeBack(() => {});
    }
    if (packets > 0) this.replicated.advance(0, this.replicated.amount(0) + packets);
  }

  settle(sequence: number): void {
    this.replicated.settle(sequence);
  }

  errorBound(sequence: number): number {
    let added = 0;
    for (const packets of this.added) added += packets;
    return (
      Math.max(0, added - this.replicated.amount(0)) + this.replicated.volume - this.replicated.volumeUpTo(sequence)
    );
  }
}
