/**
 * The half-open entries that were answered, as only this instance knows it. An entry is established
 * only after its responder was seen, at any site. Without an answer it stays half-open, whatever
 * the requester sends.
 *
 *     per slot   requester: generation of the entry (31) | whether it went on (1), if its packets pass here
 *                responder: generation of the entry, if a packet of it passed here
 *
 * **Symmetric routes.** One site sees both ends. Its note of the answer is local, and the
 * requester's next packet establishes the entry. This needs only two records: one when the entry
 * begins and one when its rank rises.
 *
 * **Asymmetric routes.** A site that sees the responder of an entry, but never saw its requester,
 * replicates the answer: the entry's rank becomes `ANSWERED`, within the budget of half-open
 * records. The other site establishes the entry with the requester's next packet. If the requester
 * went on before that site learned of the answer, and has been silent since, `walk` establishes the
 * entry.
 *
 * Each word has one meaning and is stored whole, so threads need no lock. If a slot was given to
 * another entry, its words are void, because that entry has another generation.
 */

import type { Region } from '../../region.js';
import { BYTES_PER_WORD } from '../../struct.js';
import type { FlowSlots } from './table-slots.js';

/** The rank of an entry whose responder was not seen, as far as that was replicated. */
export const HALF_OPEN = 0;
/**
 * The rank of an entry whose responder was seen, and which the requester has not yet established.
 * It is half-open too.
 */
export const ANSWERED = 1;

const WORDS = 2;
const REQUESTER = 0;
const RESPONDER = 1;
/**
 * An entry that was answered here is replicated as `ANSWERED` if it is at least this many seconds
 * old and the requester did not go on here.
 */
const UNCONFIRMED_S = 2;

/** Bytes of `OpenContext.local` for a table with this number of slots. */
export function answersBytes(slots: number): number {
  return slots * WORDS * BYTES_PER_WORD;
}

export class Answers {
  private readonly flows: FlowSlots;
  private readonly words: Int32Array;
  private cursor = 0;

  /**
   * `memory`: the instance's local memory, used from `byteOffset` on. Without it, this thread keeps
   * the words for itself.
   */
  constructor(flows: FlowSlots, memory: Region | undefined, byteOffset = 0) {
    const count = flows.slots * WORDS;
    this.flows = flows;
    this.words =
      memory === undefined || memory.byteLength === 0 ? new Int32Array(count) : memory.i32(byteOffset, count);
  }

  /**
   * Notes that a packet of the requester passed here. `wentOn`: the packet establishes the entry if
   * the responder has answered.
   */
  heard(slot: number, wentOn: boolean): void {
    const at = slot * WORDS + REQUESTER;
    const silent = this.flows.generation(slot) << 1;
    if (wentOn) this.words[at] = silent | 1;
    else if ((this.words[at] & ~1) !== silent) this.words[at] = silent;
  }

  /**
   * Notes that a packet of the responder passed here. Returns whether the answer must be
   * replicated, because the requester was not seen here.
   */
  answered(slot: number): boolean {
    const generation = this.flows.generation(slot);
    this.words[slot * WORDS + RESPONDER] = generation;
    return (this.words[slot * WORDS + REQUESTER] & ~1) !== generation << 1;
  }

  /** Whether the responder was seen: here, or elsewhere as far as that was replicated. */
  isAnswered(slot: number): boolean {
    const { flows, words } = this;
    return flows.rank(slot) >= ANSWERED || words[slot * WORDS + RESPONDER] === flows.generation(slot);
  }

  private wentOn(slot: number): boolean {
    return this.words[slot * WORDS + REQUESTER] === ((this.flows.generation(slot) << 1) | 1);
  }

  /**
   * Checks the next `count` slots, in turn. Calls `establish` for half-open entries that were
   * answered and whose requester went on here. Calls `replicate` for entries of rank `HALF_OPEN`
   * that are at least `UNCONFIRMED_S` old and were answered here, and whose requester did not go on
   * here.
   */
  walk(
    now: number,
    count: number,
    establish: (slot: number, now: number) => void,
    replicate: (slot: number, now: number) => void,
  ): void {
    const { flows } = this;
    for (let n = 0; n < count; n++) {
      this.cursor = (this.cursor + 1) & (flows.slots - 1);
      const slot = this.cursor;
      if (!flows.isUsed(slot) || flows.rank(slot) > ANSWERED || flows.expires(slot) <= now) continue;
      if (!this.isAnswered(slot)) continue;
      if (this.wentOn(slot)) establish(slot, now);
      else if (flows.rank(slot) === HALF_OPEN && now - flows.generation(slot) >= UNCONFIRMED_S) replicate(slot, now);
    }
  }
}
