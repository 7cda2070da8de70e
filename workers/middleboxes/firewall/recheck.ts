/**
 * `recheck: true`: the rules in force must accept a connection, even if it began under other rules,
 * at another site, or before this worker started.
 *
 * The memory is the worker's own. For each slot it stores the version of the rules that accepted
 * the entry, and the entry's generation. It starts empty, so a new worker asks the rules once about
 * each connection that it meets.
 */

import { type Batch, Protocol, TcpFlag, type TcpFlowTable } from '../../api/api.js';
import type { Judge } from './judge.js';
import { PACKET } from './program.js';
import { Verdict } from './rule.js';
import { State } from './vocabulary.js';

const { TCP } = Protocol;
const { SYN } = TcpFlag;

export interface Recheck {
  /** Notes that the rules in force accepted the connection in `slot`. */
  accepted(slot: number): void;
  /**
   * Returns true if the rules in force accept the connection of packet `i`. The packet goes in the
   * direction of the connection's first packet, or in the other if `reversed`.
   */
  passes(i: number, slot: number, reversed: boolean): boolean;
}

interface RecheckParts {
  readonly batch: Batch;
  readonly table: TcpFlowTable;
  readonly judge: Judge;
  readonly rules: { readonly version: number };
}

/** Made once per worker and table. */
export function createRecheck({ batch, table, judge, rules }: RecheckParts): Recheck {
  const { protocol, version } = batch;
  const slots = table.describe(0)['slots'];
  const versions = new Int32Array(slots);
  const generations = new Int32Array(slots);

  function accepted(slot: number): void {
    versions[slot] = rules.version;
    generations[slot] = table.generation(slot);
  }

  function passes(i: number, slot: number, reversed: boolean): boolean {
    if (versions[slot] === rules.version && generations[slot] === table.generation(slot)) return true;
    judge.fill(i, reversed);
    if (protocol[i] === TCP) judge.packet[PACKET.flags] = SYN;
    const place = judge.suppose(State.NEW, version[i]);
    if (judge.verdict(place) !== Verdict.ACCEPT) return false;
    accepted(slot);
    return true;
  }

  return { accepted, passes };
}
