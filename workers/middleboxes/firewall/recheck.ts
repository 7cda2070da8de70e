/**
 * `recheck: true`: the rules in force have to accept a connection, also if it began under other
 * rules, at another site, or before this worker started.
 *
 * The memory is the worker's own. By slot it has the version of the rules that accepted the entry,
 * and the entry's generation. It begins empty, so a worker that starts asks the rules once about
 * each connection that it meets.
 */

import { type Batch, Protocol, TcpFlag, type TcpFlowTable } from '../../api.js';
import type { Judge } from './judge.js';
import { PACKET } from './program.js';
import { Verdict } from './rule.js';
import { State } from './vocabulary.js';

const { TCP } = Protocol;
const { SYN } = TcpFlag;

export interface Recheck {
  /** The rules in force accepted the connection in `slot`. */
  accepted(slot: number): void;
  /**
   * Whether they accept it; packet `i` is one of it, and goes the way of its first packet, or
   * `reversed`.
   */
  passes(i: number, slot: number, reversed: boolean): boolean;
}

export interface RecheckParts {
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
