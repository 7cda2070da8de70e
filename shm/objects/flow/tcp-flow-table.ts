/**
 * A flow table of TCP connections (and other flows) that also knows what each end of a connection
 * expects of the other. So a reset can be checked before it ends a connection (RFC 5961 §3, RFC
 * 7857 §2).
 *
 * This knowledge is local to the instance, by slot, and is not replicated, because there are too
 * many acknowledgements. So nothing is known here of an end whose segments pass another site.
 *
 *     per slot   generation of the entry (if it differs, the words are void), and for each of two ends:
 *                  what is known, sequence number expected next, width of its window in bytes;
 *                and one more word: while the connection is opening, the middlebox's word about its handshake;
 *                  once it is open, the number that acknowledges the SYN that one of the ends has sent since
 *
 * It also knows which connections' packets are held (held-entries.ts).
 *
 * Several workers write these words with plain stores. Of two concurrent acknowledgements one
 * stays, and either was true. A reset that meets words of both is judged by a window that is off by
 * one segment.
 */

import { NONE } from '../../none.js';
import type { Region } from '../../region.js';
import { BYTES_PER_WORD, struct } from '../../struct.js';
import type { OpenContext, StateDefinition } from '../core/object.js';
import { type HalfOpenOptions, halfOpenLimits } from '../table/half-open.js';
import { HeldEntries, heldEntriesBytes, workerOf } from '../table/held-entries.js';
import { type FlowShape, flowSlotCount } from '../table/table-slots.js';
import type { FlowTableOptions } from './flow-options.js';
import type { Winner } from './flow-record.js';
import { FlowTable, flowTable, largerValue } from './flow-table.js';

const END_WORDS = 3;
const EXPECTED = struct({ generation: 1, known: 1, next: 1, window: 1, other: END_WORDS, opening: 1 });
const { generation: GENERATION, known: KNOWN, next: NEXT, window: WINDOW, opening: OPENING } = EXPECTED.at;
const SHIFT = 3;

// The word `known`: the bits HAS_SYN and HAS_ACK; the window's scale; whether this end's last
// segment was a SYN although the connection is open; and, from bit `HEARD_SHIFT` on, the coarse
// second in which this end was last heard.
const HAS_SYN = 1;
const HAS_ACK = 2;
const SYN_SINCE = 64;
const SCALE_SHIFT = 2;
const HEARD_SHIFT = 8;
const SCALE_MASK = 0xf;
const HEARD_MASK = 0xffffff;
/** The largest possible scale (RFC 7323 §2.3), for a connection whose SYN was not seen here. */
const SCALE_MAX = 14;

/**
 * The state of a connection. It only grows within a generation. The NAT has other ranks:
 * nat-tables.ts.
 */
export const Rank = { NEW: 0, ESTABLISHED: 1, CLOSING: 2, CLOSED: 3 } as const;

/** Whether a segment that would end a connection is plausible. */
export const Plausible = { NO: 0, YES: 1, UNKNOWN: 2 } as const;
export type Plausible = (typeof Plausible)[keyof typeof Plausible];

function expectedBytes(slots: number): number {
  return (slots << SHIFT) * BYTES_PER_WORD;
}

/**
 * Bytes of `OpenContext.local` that a `TcpFlowTable` of this shape needs; a multiple of a cache
 * line. `holds`: packets of its entries can be held.
 */
export function tcpFlowLocalBytes(shape: FlowShape, holds = true): number {
  const slots = flowSlotCount(shape);
  return expectedBytes(slots) + (holds ? heldEntriesBytes(slots) : 0);
}

/** A `flowTable` with local TCP state. Peers cannot tell it from a `flowTable`. */
export function tcpFlowTable(options: FlowTableOptions): StateDefinition<TcpFlowTable> {
  const { capacity, keyWords, valueWords, winner = largerValue } = options;
  const shape = { capacity, keyWords, valueWords };
  const limits = halfOpenLimits(capacity, options);
  return {
    ...flowTable(options),
    localBytes: () => tcpFlowLocalBytes(shape),
    open: (context) => new TcpFlowTable(context, shape, limits, winner),
  };
}

export class TcpFlowTable extends FlowTable {
  /** The connections whose packets are held. */
  readonly held: HeldEntries;
  private readonly expected: Int32Array;
  /** What `touchExpected` read. It is kept so that the compiler keeps the read. */
  touched = 0;

  constructor(context: OpenContext, shape: FlowShape, limits: Required<HalfOpenOptions>, winner: Winner) {
    super(context, shape, limits, winner);
    const local = context.local as Region;
    const bytes = expectedBytes(this.slots.slots);
    this.expected = local.i32(0, bytes / BYTES_PER_WORD);
    this.held = new HeldEntries(this.slots, local, bytes, workerOf(context));
  }

  protected override began(slot: number, generation: number): void {
    this.held.begin(slot, generation, this.tx.logEnd);
  }

  /**
   * Starts to fetch what is known of `slots[0 … count − 1]`, which may be `NONE`, so that the cache
   * misses of a batch overlap.
   */
  touchExpected(slots: Int32Array, count: number): void {
    let sum = 0;
    for (let n = 0; n < count; n++) if (slots[n] !== NONE) sum += this.expected[slots[n] << SHIFT];
    this.touched = sum | 0;
  }

  // Ends are 0 and 1. Sequence numbers are the values of the packets' big-endian words, in 32 bits.

  /**
   * Notes a SYN from an end at `now`, with this sequence number. `scale`: the window scale that it
   * offers, 0 for none.
   */
  sawSyn(slot: number, end: number, now: number, sequence: number, scale: number): void {
    const at = this.wordsOf(slot, end);
    this.expected[at + NEXT] = (sequence + 1) | 0; // the number that its answer acknowledges
    this.expected[at + KNOWN] = HAS_SYN | (Math.min(scale, SCALE_MAX) << SCALE_SHIFT) | (now << HEARD_SHIFT);
  }

  /**
   * Notes a segment from an end at `now` that acknowledges everything before `next` and has a
   * window of `window` bytes, unscaled.
   */
  sawAck(slot: number, end: number, now: number, next: number, window: number): void {
    const { expected } = this;
    const at = this.wordsOf(slot, end);
    const known = expected[at + KNOWN];
    const scale = (known & HAS_SYN) === 0 ? SCALE_MAX : (known >>> SCALE_SHIFT) & SCALE_MASK;
    expected[at + NEXT] = next;
    expected[at + WINDOW] = window << scale;
    expected[at + KNOWN] = (known & ~(HEARD_MASK << HEARD_SHIFT) & ~SYN_SINCE) | HAS_ACK | (now << HEARD_SHIFT);
  }

  /**
   * Notes a SYN with this sequence number from an end of an open connection. It does not change
   * what the end expects. Otherwise a forger could make his resets plausible.
   */
  sawSynSince(slot: number, end: number, sequence: number): void {
    const { expected } = this;
    const at = this.wordsOf(slot, end);
    expected[this.wordsOf(slot, 1 - end) + KNOWN] &= ~SYN_SINCE;
    expected[(slot << SHIFT) + OPENING] = (sequence + 1) | 0;
    expected[at + KNOWN] |= SYN_SINCE;
  }

  /**
   * Whether a segment acknowledges the SYN that was the last segment of an end of an open
   * connection.
   */
  answersSynSince(slot: number, end: number, acknowledged: number): boolean {
    const { expected } = this;
    const first = slot << SHIFT;
    return (
      expected[first + GENERATION] === this.generation(slot) &&
      (expected[first + END_WORDS * end + KNOWN] & SYN_SINCE) !== 0 &&
      expected[first + OPENING] === acknowledged
    );
  }

  /**
   * Whether an end can expect a segment that starts at `sequence`: it is in the end's window (RFC
   * 9293 §3.10.7.4), or answers its SYN (§3.10.7.3). `acknowledged`: what the segment acknowledges,
   * if `hasAck`.
   */
  isPlausible(slot: number, end: number, sequence: number, hasAck: boolean, acknowledged: number): Plausible {
    const { expected } = this;
    const at = (slot << SHIFT) + END_WORDS * end;
    const known = expected[at + KNOWN];
    if (expected[(slot << SHIFT) + GENERATION] !== this.generation(slot)) return Plausible.UNKNOWN;
    if ((known & HAS_ACK) !== 0) {
      const ahead = (sequence - expected[at + NEXT]) | 0;
      return ahead >= 0 && ahead <= expected[at + WINDOW] ? Plausible.YES : Plausible.NO;
    }
    if ((known & HAS_SYN) === 0) return Plausible.UNKNOWN;
    return hasAck && acknowledged === expected[at + NEXT] ? Plausible.YES : Plausible.NO;
  }

  /**
   * Whether a segment acknowledges the SYN of an end. `UNKNOWN` unless the SYN, and no later
   * segment of the end, has passed here.
   */
  answersSyn(slot: number, end: number, acknowledged: number): Plausible {
    const at = (slot << SHIFT) + END_WORDS * end;
    const isCurrent = this.expected[(slot << SHIFT) + GENERATION] === this.generation(slot);
    if (!isCurrent || (this.expected[at + KNOWN] & (HAS_SYN | HAS_ACK)) !== HAS_SYN) return Plausible.UNKNOWN;
    return acknowledged === this.expected[at + NEXT] ? Plausible.YES : Plausible.NO;
  }

  /**
   * Whether the last segment of an end whose SYN has passed here acknowledged everything before
   * `next`.
   */
  acknowledgedBefore(slot: number, end: number, next: number): boolean {
    const at = (slot << SHIFT) + END_WORDS * end;
    const both = HAS_SYN | HAS_ACK;
    return (
      this.expected[(slot << SHIFT) + GENERATION] === this.generation(slot) &&
      (this.expected[at + KNOWN] & both) === both &&
      this.expected[at + NEXT] === next
    );
  }

  /** The middlebox's word about the handshake of a slot's opening connection; 0 until it is set. */
  opening(slot: number): number {
    const at = slot << SHIFT;
    return this.expected[at + GENERATION] === this.generation(slot) ? this.expected[at + OPENING] : 0;
  }

  /**
   * Clears the bits of `clear` and sets those of `set` in that word. Safe if other workers do the
   * same.
   */
  noteOpening(slot: number, clear: number, set: number): void {
    const at = this.wordsOf(slot, 0) + OPENING;
    Atomics.and(this.expected, at, ~clear);
    Atomics.or(this.expected, at, set);
  }

  /**
   * Seconds since an end was last heard here. Valid if `isPlausible` knows the end. The end may
   * have sent by another site since then.
   */
  silence(slot: number, end: number, now: number): number {
    return (now - (this.expected[(slot << SHIFT) + END_WORDS * end + KNOWN] >>> HEARD_SHIFT)) & HEARD_MASK;
  }

  /**
   * The index of the words of an end. If the words belonged to another entry, those of both ends
   * are cleared first.
   */
  private wordsOf(slot: number, end: number): number {
    const { expected } = this;
    const at = slot << SHIFT;
    const generation = this.generation(slot);
    if (expected[at + GENERATION] !== generation) {
      expected[at + KNOWN] = 0;
      expected[at + END_WORDS + KNOWN] = 0;
      expected[at + OPENING] = 0;
      expected[at + GENERATION] = generation;
    }
    return at + END_WORDS * end;
  }
}
