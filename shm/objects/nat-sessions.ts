/**
 * The NAT's sessions: whom an internal endpoint has sent to, for filtering by remote and for TCP's states. Below its binding, which is
 * for whatever remote (nat-binding.ts): a flow table of its own, shared by all sites, because a reply may come by any of them.
 *
 *     key      internal address, internal port and protocol, remote address, remote port (0: any port of the address); all raw
 *     rank     as of a binding: new, answered, established, closing
 *
 * The key names the internal endpoint, not the external one: what somebody inside allowed is never another's, whoever gets the port next.
 * Where filtering does not ask for the remote there are no sessions, and nothing of this is paid for.
 *
 * What TCP's inside end expects is kept beside, for this instance alone (tcp-flow-table.ts): so a reset can be checked where the inside's
 * segments pass, and not where only the outside's do.
 */

import type { Region } from '../region.js';
import { ANSWERED, Answers, answersBytes } from './answers.js';
import { swapPort } from './external-places.js';
import { flowSlotCount } from './flow-slots.js';
import { flowTable, KEY_WORDS_IPV4_FIVE_TUPLE, largerValue } from './flow-table.js';
import { type HalfOpenOptions, halfOpenLimits } from './half-open.js';
import { capacityOf } from './merge-source.js';
import type { Rank } from './nat-tables.js';
import type { OpenContext, StateDefinition } from './object.js';
import { TcpFlowTable, tcpFlowLocalBytes } from './tcp-flow-table.js';

export interface NatSessionsOptions extends HalfOpenOptions {
  /** Sessions held at most. */
  readonly sessions: number;
  /** Whether sessions can be held; default false. Of this instance alone. */
  readonly holds?: boolean;
}

const shapeOf = (sessions: number) => ({
  capacity: sessions,
  keyWords: KEY_WORDS_IPV4_FIVE_TUPLE,
  valueWords: 0,
  halfOpenRank: ANSWERED,
});

export function natSessions(options: NatSessionsOptions): StateDefinition<NatSessions> {
  const { sessions, holds = false } = options;
  const limits = halfOpenLimits(sessions, options);
  const { parameters, shape, bytes } = flowTable({ ...shapeOf(sessions), ...limits });
  return {
    kind: 'nat-sessions',
    parameters,
    ...(shape && { shape }),
    bytes,
    withShape: (theirs) => natSessions({ ...options, sessions: capacityOf(theirs), halfOpen: 1 }),
    localBytes: () => tcpFlowLocalBytes(shapeOf(sessions), holds) + answersBytes(flowSlotCount(shapeOf(sessions))),
    open: (context) => new NatSessions(context, sessions, limits, holds),
    reconfigure: (object) => (object as NatSessions).halfOpen.setLimits(limits),
  };
}

/** A session as `show flows` has it. Addresses are raw words, ports in host order; remote port 0: any. */
export interface NatSession {
  readonly protocol: number;
  readonly internalAddress: number;
  readonly internalPort: number;
  readonly remoteAddress: number;
  readonly remotePort: number;
  readonly rank: Rank;
  /** Coarse seconds. */
  readonly expires: number;
}

/** After so many slots without anything to show comes a `null`. */
const SLOTS_SILENT_MAX = 1000;

export class NatSessions extends TcpFlowTable {
  /** Which half-open sessions were answered. */
  readonly answers: Answers;

  constructor(context: OpenContext, sessions: number, limits: Required<HalfOpenOptions>, holds: boolean) {
    const shape = shapeOf(sessions);
    const bytes = tcpFlowLocalBytes(shape, holds);
    const local = context.local as Region;
    super({ ...context, local: local.part(0, bytes) }, shape, limits, largerValue);
    this.answers = new Answers(this.slots, local, bytes);
  }

  /**
   * The remote of a half-open session was seen here. Replicates that, within the budget of half-open records, if the inside's
   * packets do not pass here. The expiry stays.
   */
  answered(slot: number, now: number): void {
    if (this.answers.answered(slot)) this.replicateAnswer(slot, now);
  }

  /** Replicates that a half-open session was answered, within the budget. */
  replicateAnswer(slot: number, now: number): void {
    if (this.halfOpen.mayTell(now, true)) this.prolong(slot, ANSWERED, now, 0);
  }

  /** IP protocol of a slot's session. */
  protocol(slot: number): number {
    return this.slots.key(slot, 1) >>> 16;
  }

  /** All that have not expired, and `null` now and then, as `NatBinding.entries`. */
  *list(now: number): Generator<NatSession | null> {
    const { slots } = this;
    const read = new Int32Array(3 + KEY_WORDS_IPV4_FIVE_TUPLE);
    let silent = 0;
    for (let slot = 0; slot < slots.slots; slot++) {
      if (slots.isUsed(slot) && slots.read(slot, read, 0) && read[1] > now) {
        silent = 0;
        yield {
          protocol: read[4] >>> 16,
          internalAddress: read[3],
          internalPort: swapPort(read[4] & 0xffff),
          remoteAddress: read[5],
          remotePort: swapPort(read[6]),
          rank: read[2] as Rank,
          expires: read[1],
        };
      } else if (++silent === SLOTS_SILENT_MAX) {
        silent = 0;
        yield null;
      }
    }
  }
}
