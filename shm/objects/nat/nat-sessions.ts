/**
 * The NAT's sessions: the remotes to which an internal endpoint has sent, for filtering by remote
 * and for TCP's states. A session belongs to a binding, which is the same for all remotes
 * (nat-binding.ts). Sessions are in a flow table of their own, which all sites share, because a
 * reply may come by any of them.
 *
 *     key      internal address, internal port and protocol, remote address, remote port (0: any port of the address); all raw
 *     rank     as of a binding: new, answered, established, closing
 *
 * The key contains the internal endpoint, not the external one. So what an inside host allowed
 * never applies to another endpoint, whichever gets the port next.
 *
 * **Levels.** Members may be configured with different levels of filtering, for example while an
 * operator changes it at one site after another (filter-level.ts). An instance that is configured
 * not to filter keeps no sessions. Its table is as small as possible, and it ignores records,
 * snapshots and digests of others. So the object costs it almost nothing, and all members are
 * compatible.
 *
 * What each end of a TCP connection expects is kept beside the table, for this instance only
 * (tcp-flow-table.ts). So a reset can be checked where the inside's segments pass, but not where
 * only the outside's do.
 */

import type { Parameters } from '../../arena.js';
import { coarseSeconds } from '../../clock.js';
import type { Region } from '../../region.js';
import { ContentDigest } from '../core/content-digest.js';
import { capacityAt, capacityOf, type MergeSource } from '../core/merge-source.js';
import { Applied, type OpenContext, type StateDefinition } from '../core/object.js';
import { flowTable, KEY_WORDS_IPV4_FIVE_TUPLE, largerValue } from '../flow/flow-table.js';
import { TcpFlowTable, tcpFlowLocalBytes } from '../flow/tcp-flow-table.js';
import { swapPort } from '../ports/external-places.js';
import { ANSWERED, Answers, answersBytes } from '../table/answers.js';
import { type HalfOpenOptions, halfOpenLimits } from '../table/half-open.js';
import { flowSlotCount } from '../table/table-slots.js';
import { FILTER_LEVEL_BYTES, FILTERINGS, FilterLevel, levelOf } from './filter-level.js';
import type { Rank } from './nat-tables.js';

interface NatSessionsOptions extends HalfOpenOptions {
  /** Maximum number of sessions. */
  readonly sessions: number;
  /**
   * The configured level of filtering of this instance: an index of `FILTERINGS`. Default: the
   * strictest. 0: no session is kept.
   */
  readonly level?: number;
  /** Whether packets of sessions can be held; default false. This instance only. */
  readonly holds?: boolean;
}

const shapeOf = (sessions: number) => ({
  capacity: sessions,
  keyWords: KEY_WORDS_IPV4_FIVE_TUPLE,
  valueWords: 0,
  halfOpenRank: ANSWERED,
});

export function natSessions(options: NatSessionsOptions): StateDefinition<NatSessions> {
  const { level = STRICTEST } = options;
  const sessions = level === 0 ? SESSIONS_MIN : options.sessions;
  const holds = options.holds === true && level > 0;
  const limits = halfOpenLimits(sessions, { ...options, ...(level === 0 && { halfOpen: 1 }) });
  const { parameters, shape } = flowTable({ ...shapeOf(sessions), ...limits });
  return {
    kind: 'nat-sessions',
    parameters,
    shape: { ...shape, level },
    bytes: levelAt(sessions) + FILTER_LEVEL_BYTES,
    withShape: (theirs) =>
      natSessions({ ...options, sessions: capacityOf(theirs), level: levelOf(theirs), halfOpen: 1 }),
    localBytes: () => tcpFlowLocalBytes(shapeOf(sessions), holds) + answersBytes(flowSlotCount(shapeOf(sessions))),
    open: (context) => new NatSessions(context, sessions, level, limits, holds),
    reconfigure: (object) => (object as NatSessions).halfOpen.setLimits(limits),
  };
}

const STRICTEST = FILTERINGS.length - 1;
/** Capacity of the table of an instance that keeps no sessions. */
const SESSIONS_MIN = 64;

/** The offset of the level in force in the region: behind the table. */
function levelAt(sessions: number): number {
  return flowTable(shapeOf(sessions)).bytes;
}

/**
 * A session as `show flows` shows it. Addresses are raw words, ports in host order. Remote port 0:
 * any port.
 */
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

/** After this many slots without a result, `null` is yielded. */
const SLOTS_SILENT_MAX = 1000;

export class NatSessions extends TcpFlowTable {
  /** The half-open sessions that were answered. */
  readonly answers: Answers;
  /** The level of filtering. */
  readonly level: FilterLevel;

  constructor(
    context: OpenContext,
    sessions: number,
    level: number,
    limits: Required<HalfOpenOptions>,
    holds: boolean,
  ) {
    const shape = shapeOf(sessions);
    const bytes = tcpFlowLocalBytes(shape, holds);
    const local = context.local as Region;
    const region = context.region.part(0, levelAt(sessions));
    super({ ...context, region, local: local.part(0, bytes) }, shape, limits, largerValue);
    this.answers = new Answers(this.slots, local, bytes);
    this.level = new FilterLevel(context.region, levelAt(sessions), level);
  }

  override apply(op: number, words: Int32Array, at: number, length: number, origin: number, now: number): Applied {
    return this.level.own === 0 ? Applied.UNCHANGED : super.apply(op, words, at, length, origin, now);
  }

  override merge(from: Region, now: number, source?: MergeSource): number {
    if (this.level.own === 0) return 0;
    const sessions = capacityAt(source, this.capacity);
    const level = source?.shape === undefined ? this.level.own : levelOf(source.shape);
    const changed = super.merge(from.part(0, levelAt(sessions)), now, source);
    this.level.merge(new FilterLevel(from, levelAt(sessions), level), now);
    return changed;
  }

  /**
   * The digest is empty while nothing is filtered, because members may then have different
   * sessions, or none.
   */
  override digest(now?: number, evictable?: boolean): string {
    return this.level.inForce === 0 ? new ContentDigest().toString() : super.digest(now, evictable);
  }

  override describe(now: number): Record<string, number> {
    const { own, inForce } = this.level;
    return { ...super.describe(now), filtering: inForce, filtering_configured: own };
  }

  /**
   * Filters as loosely as the loosest member, because that member does not record the sessions that
   * a stricter level needs.
   */
  heedShapes(shapes: readonly Parameters[], now = coarseSeconds(Date.now())): string | null {
    const { own } = this.level;
    const level = Math.min(own, ...shapes.map(levelOf));
    this.level.enforce(level, now);
    return level === own
      ? null
      : `filtering is ${FILTERINGS[level]} and not yet ${FILTERINGS[own]}, which not every member is configured with`;
  }

  /**
   * The remote of a half-open session was seen here. Replicates the answer, within the budget of
   * half-open records, if the inside's packets do not pass here. The expiry stays.
   */
  answered(slot: number, now: number): void {
    if (this.answers.answered(slot)) this.replicateAnswer(slot, now);
  }

  /** Replicates that a half-open session was answered, within the budget. */
  replicateAnswer(slot: number, now: number): void {
    if (this.halfOpen.mayReplicate(now, true)) this.prolong(slot, ANSWERED, now, 0);
  }

  /** IP protocol of a slot's session. */
  protocol(slot: number): number {
    return this.slots.key(slot, 1) >>> 16;
  }

  /** All sessions that have not expired. Yields `null` like `NatBinding.entries`. */
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
