/**
 * The handshake of TCP connections. A connection of rank NEW is established only after both of its
 * ends were seen, each at any site. So packets of one end alone, even forged ones, stay within the
 * quota and the timer of half-open connections.
 *
 *     value of a connection   bit 0      side of the initiator
 *                             ANSWERED   a packet of the responder was seen
 *                             REQUESTED  a packet of the initiator was seen; absent only if a packet of the responder was picked up
 *                             NUMBERED   bits 16–31 have the low bits of the number that acknowledges the responder's SYN
 *
 * The table's winner rule takes the larger value. More knowledge is the larger value, so sites that
 * saw different packets converge.
 *
 * | packet, of a connection of rank NEW | what it does                                                        |
 * | ----------------------------------- | ------------------------------------------------------------------- |
 * | SYN or SYN-ACK of the responder     | answers, unless it is known here to acknowledge another SYN         |
 * | ACK without SYN, of the initiator   | establishes if an answer is known and, if NUMBERED, is acknowledged |
 * | ACK without SYN, of the responder   | establishes if REQUESTED, unless it only repeats its SYN-ACK        |
 * | FIN                                 | as an ACK, but the rank becomes CLOSING at once                     |
 * | RST                                 | nothing                                                             |
 *
 * The exception in the third row covers what a stranger can get from a server with a forged SYN and
 * a segment outside the window.
 *
 * **Two sites.** If one site sees the initiator and another the responder, the answer needs a
 * record of its own. Most connections do not need it, because the initiator's ACK passes the same
 * site, or the responder acknowledges data. So an answer is first noted in this instance only
 * (`TcpFlowTable.opening`). It is replicated if the connection is still NEW after `ANNOUNCE_RUNS`
 * runs, within the budget of half-open records. If no answer is known for an initiator's ACK, the
 * ACK waits in a ring for the record of the answer. Both rings are bounded. A connection dropped
 * from a ring is established by its next packets.
 */

import { type Batch, Plausible, Rank, TcpFlag, type TcpFlowTable, type TcpWindow } from '../../api/api.js';
import { SlotRing } from './slot-ring.js';
import { rankAfter } from './tcp.js';

const { ACK, RST, SYN } = TcpFlag;
const { NEW } = Rank;

/** Bits of a connection's value. The lowest bit is the initiator's side. */
const ANSWERED = 2;
export const REQUESTED = 4;
const NUMBERED = 8;
const NUMBER_SHIFT = 16;
const NUMBER_MASK = 0xffff;

// The word that this instance keeps has ANSWERED, NUMBERED and the number as above, and WAITING.
/** The initiator's ACK waits in the ring. */
const WAITING = 1;
const ANSWER = ANSWERED | NUMBERED | (NUMBER_MASK << NUMBER_SHIFT);

/** Period of `run`, in seconds. */
export const RUN_S = 0.1;
/** A connection that is still NEW this many runs after its answer is announced. */
const ANNOUNCE_RUNS = 5;
/** Entries of a ring. 16,000 connections a second for half a second fit. */
const RING_SLOTS = 8192;

export interface Openings {
  /**
   * Returns the value of a connection that is picked up with packet `i` of its responder. Side
   * `began` is the initiator.
   */
  valueOf(i: number, began: number): number;
  /** Returns the rank of a NEW connection after TCP packet `i`, which is from side `side`. */
  rankAfter(i: number, slot: number, value: number, side: number, now: number): number;
  /**
   * Replicates answers, and establishes connections that were answered elsewhere. Call it every
   * `RUN_S`.
   */
  run(now: number): void;
}

interface OpeningsParts {
  readonly batch: Batch;
  readonly table: TcpFlowTable;
  readonly window: TcpWindow;
  /** Idle times by rank, in seconds. */
  readonly timeouts: Int32Array;
}

/** Made once per worker and table. */
export function createOpenings({ batch, table, window, timeouts }: OpeningsParts): Openings {
  const { flags } = batch;
  const answers = new SlotRing(RING_SLOTS);
  const acknowledgements = new SlotRing(RING_SLOTS);
  const value = new Int32Array(1);
  let runs = 0;

  /** Returns the answer, as value bits, that packet `i` of a responder gives. */
  function answerOf(i: number): number {
    if ((flags[i] & SYN) === 0) return ANSWERED;
    return ANSWERED | NUMBERED | ((window.sequence(i) + 1) << NUMBER_SHIFT);
  }

  /** Returns the known answer: from this instance, or else from the connection's value. */
  function knownAnswer(slot: number, known: number): number {
    const here = table.opening(slot);
    return (here & ANSWERED) !== 0 ? here & ANSWER : known & ANSWER;
  }

  function isAcknowledged(answer: number, acknowledged: number): boolean {
    return (answer & NUMBERED) === 0 || answer >>> NUMBER_SHIFT === (acknowledged & NUMBER_MASK);
  }

  function answered(i: number, slot: number, side: number, now: number): void {
    const answer = answerOf(i);
    const isSynAck = (flags[i] & (SYN | ACK)) === (SYN | ACK);
    if (isSynAck && table.answersSyn(slot, 1 - side, window.acknowledged(i)) === Plausible.NO) return;
    const here = table.opening(slot);
    if ((here & ANSWER) === answer) return;
    table.noteOpening(slot, ANSWER, answer);
    if ((here & ANSWERED) === 0) pushAnswer(slot, now);
  }

  function pushAnswer(slot: number, now: number): void {
    // If the ring is full, announce the oldest answer early instead of losing it.
    if (answers.isFull) announceOldest(now);
    answers.push(slot, table.generation(slot), 0, runs);
  }

  function afterInitiator(i: number, slot: number, known: number): number {
    const acknowledged = window.acknowledged(i) & NUMBER_MASK;
    const answer = knownAnswer(slot, known);
    const after = rankAfter(NEW, flags[i]);
    if ((answer & ANSWERED) !== 0) return isAcknowledged(answer, acknowledged) ? after : NEW;
    if ((table.opening(slot) & WAITING) === 0) {
      table.noteOpening(slot, 0, WAITING);
      acknowledgements.push(slot, table.generation(slot), (acknowledged << NUMBER_SHIFT) | after, runs);
    }
    return NEW;
  }

  function afterResponder(i: number, slot: number, known: number, side: number): number {
    if ((known & REQUESTED) === 0) return NEW;
    const saysMore = window.hasData(i) || rankAfter(NEW, flags[i]) === Rank.CLOSING;
    if (!saysMore && table.acknowledgedBefore(slot, side, window.acknowledged(i))) return NEW;
    return rankAfter(NEW, flags[i]);
  }

  /** Returns true if the connection of a ring's entry is still NEW. */
  function isOpening(slot: number, generation: number, now: number): boolean {
    return table.generation(slot) === generation && table.rank(slot) === NEW && table.expires(slot) > now;
  }

  function announceOldest(now: number): void {
    const slot = answers.slot(0);
    const generation = answers.generation(0);
    answers.drop();
    const here = table.opening(slot);
    const known = table.value(slot, 0);
    if (!isOpening(slot, generation, now) || (here & ANSWERED) === 0 || (known & ANSWERED) !== 0) return;
    value[0] = (known & ~ANSWER) | (here & ANSWER);
    // If the budget is spent or the log is full, try again later.
    if (!table.replaceValue(slot, value, 0, now)) answers.push(slot, generation, 0, runs);
  }

  /** Returns true if an initiator's ACK must wait longer. */
  function waits(slot: number, generation: number, shown: number, now: number): boolean {
    if (!isOpening(slot, generation, now)) return false;
    const answer = knownAnswer(slot, table.value(slot, 0));
    if ((answer & ANSWERED) === 0) return true;
    const after = shown & 0xff;
    if (isAcknowledged(answer, shown >>> NUMBER_SHIFT) && !table.refresh(slot, after, now, timeouts[after]))
      return true;
    table.noteOpening(slot, WAITING, 0);
    return false;
  }

  return {
    valueOf(i, began) {
      return began | answerOf(i);
    },

    rankAfter(i, slot, known, side, now) {
      const shown = flags[i];
      if ((shown & RST) !== 0) return NEW;
      if (side !== (known & 1)) {
        if ((shown & SYN) === 0) return afterResponder(i, slot, known, side);
        answered(i, slot, side, now);
        return NEW;
      }
      return (shown & (SYN | ACK)) === ACK ? afterInitiator(i, slot, known) : NEW;
    },

    run(now) {
      runs++;
      for (let n = answers.count; n > 0 && runs - answers.since(0) >= ANNOUNCE_RUNS; n--) announceOldest(now);
      acknowledgements.keep(waits, now);
    },
  };
}
