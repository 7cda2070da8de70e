/**
 * The NAT's sessions: whom an internal endpoint has sent to, for filtering by remote and for TCP's states. Below its binding, which is
 * for whatever remote (nat-binding.ts): a flow table of its own, shared by all sites, because a reply may come by any of them.
 *
 *     key      internal address, internal port and protocol, remote address, remote port (0: any port of the address); all raw
 *     rank     as of a binding: new, established, closing
 *
 * The key names the internal endpoint, not the external one: what somebody inside allowed is never another's, whoever gets the port next.
 * Where filtering does not ask for the remote there are no sessions, and nothing of this is paid for.
 *
 * **What TCP's inside end expects** is kept beside, for this instance alone: acknowledgements pass by the thousand, and are worth telling
 * nobody. So a reset can be checked where the inside's segments pass, and not where only the outside's do.
 *
 *     per slot   generation of the entry (else it is another's), what is known, sequence number expected in the answer to its SYN,
 *                sequence number expected next, width of its window in bytes
 *
 * Several workers write these words plainly: one of two acknowledgements stays, either of which was true. A reset that meets the words
 * of both is judged by a window that is off by one segment.
 */

import type { Region } from '../region.js';
import { BYTES_PER_WORD, struct } from '../struct.js';
import { swapPort } from './external-places.js';
import { flowSlotCount } from './flow-slots.js';
import { FlowTable, flowTable, KEY_WORDS_IPV4_FIVE_TUPLE, largerValue } from './flow-table.js';
import { type HalfOpenOptions, halfOpenLimits } from './half-open.js';
import type { Rank } from './nat-tables.js';
import type { OpenContext, StateDefinition } from './object.js';

const EXPECTED = struct({ generation: 1, known: 1, answer: 1, next: 1, window: 1, spare: 3 });
const { generation: GENERATION, known: KNOWN, answer: ANSWER, next: NEXT, window: WINDOW } = EXPECTED.at;
const SHIFT = 3;

// What is known, and from bit `SCALE_SHIFT` on the window's scale.
const HAS_SYN = 1;
const HAS_ACK = 2;
const SCALE_SHIFT = 8;
/** The largest scale there is (RFC 7323 §2.3): for a connection whose SYN was not seen here. */
const SCALE_MAX = 14;

/** What can be said of a segment from outside that would end the connection. */
export const Plausible = { NO: 0, YES: 1, UNKNOWN: 2 } as const;
export type Plausible = (typeof Plausible)[keyof typeof Plausible];

export interface NatSessionsOptions extends HalfOpenOptions {
  /** Sessions held at most. */
  readonly sessions: number;
}

const shapeOf = (sessions: number) => ({ capacity: sessions, keyWords: KEY_WORDS_IPV4_FIVE_TUPLE, valueWords: 0 });

export function natSessions(options: NatSessionsOptions): StateDefinition<NatSessions> {
  const { sessions } = options;
  const limits = halfOpenLimits(sessions, options);
  const { parameters, bytes } = flowTable({ ...shapeOf(sessions), ...limits });
  return {
    kind: 'nat-sessions',
    parameters,
    bytes,
    localBytes: () => (flowSlotCount(shapeOf(sessions)) << SHIFT) * BYTES_PER_WORD,
    open: (context) => new NatSessions(context, sessions, limits),
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

export class NatSessions extends FlowTable {
  private readonly expected: Int32Array;

  constructor(context: OpenContext, sessions: number, limits: Required<HalfOpenOptions>) {
    super(context, shapeOf(sessions), limits, largerValue);
    this.expected = (context.local as Region).i32();
  }

  // ——— What TCP's inside end expects. Sequence numbers as the packets' big-endian words say, in 32 bits. ———

  /** A SYN from inside of this sequence number, which offers a window scale, or does not (0). */
  sawSyn(slot: number, sequence: number, scale: number): void {
    const at = this.wordsOf(slot);
    this.expected[at + ANSWER] = (sequence + 1) | 0;
    this.expected[at + KNOWN] = HAS_SYN | (Math.min(scale, SCALE_MAX) << SCALE_SHIFT);
  }

  /** A segment from inside that acknowledges what is before `next`, and has a window of `window` bytes, unscaled. */
  sawAck(slot: number, next: number, window: number): void {
    const { expected } = this;
    const at = this.wordsOf(slot);
    const known = expected[at + KNOWN];
    const scale = (known & HAS_SYN) === 0 ? SCALE_MAX : known >>> SCALE_SHIFT;
    expected[at + NEXT] = next;
    expected[at + WINDOW] = window << scale;
    expected[at + KNOWN] = known | HAS_ACK;
  }

  /**
   * Whether the inside can expect a segment from outside that starts at `sequence`: it lies in its window (RFC 9293 §3.10.7.4), or
   * answers its SYN (§3.10.7.3). `acknowledged`: what it acknowledges, where `hasAck`.
   */
  isPlausible(slot: number, sequence: number, hasAck: boolean, acknowledged: number): Plausible {
    const { expected } = this;
    const at = slot << SHIFT;
    const known = expected[at + KNOWN];
    if (expected[at + GENERATION] !== this.generation(slot)) return Plausible.UNKNOWN;
    if ((known & HAS_ACK) !== 0) {
      const ahead = (sequence - expected[at + NEXT]) | 0;
      return ahead >= 0 && ahead <= expected[at + WINDOW] ? Plausible.YES : Plausible.NO;
    }
    if ((known & HAS_SYN) === 0) return Plausible.UNKNOWN;
    return hasAck && acknowledged === expected[at + ANSWER] ? Plausible.YES : Plausible.NO;
  }

  /** The words of a slot; empty ones where they were another entry's. */
  private wordsOf(slot: number): number {
    const { expected } = this;
    const at = slot << SHIFT;
    const generation = this.generation(slot);
    if (expected[at + GENERATION] !== generation) {
      expected[at + KNOWN] = 0;
      expected[at + GENERATION] = generation;
    }
    return at;
  }

  // ——— Looking on ———

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
