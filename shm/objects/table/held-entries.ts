/**
 * The entries of a table whose packets are held, as only this instance knows it. Packets of such an
 * entry wait until enough members have acknowledged its record, or until its deadline
 * (workers/plane/holds.ts).
 *
 *     header     used         1 once an entry was held; never reset
 *     per slot   generation   of the entry; if it differs, the words belong to an earlier entry and are void
 *                what         worker that logged the record (8) | members that must have it (8) | packets that waited (16)
 *                position     of that worker's log behind the record (shm/log.ts)
 *                deadline     monotonic milliseconds, modulo 2^32
 *
 * The thread that makes an entry writes these words before other threads can see the entry.
 * Afterwards only the count of packets changes. So whichever worker gets a later packet knows what
 * the first one waits for. Several workers add to the count without a lock. One of two additions
 * can be lost, so an entry may have a few more waiting packets than `ENTRY_HELD_MAX`.
 *
 * Nothing is erased when a hold ends. A hold is over when its deadline has passed or its position
 * is acknowledged. Both stay true.
 */

import type { Region } from '../../region.js';
import { BYTES_PER_WORD, LINE, struct } from '../../struct.js';
import type { OpenContext } from '../core/object.js';
import type { FlowSlots } from './table-slots.js';

const HEADER = struct({ used: LINE });
const SHIFT = 2;
const GENERATION = 0;
const WHAT = 1;
const POSITION = 2;
const DEADLINE = 3;

const BYTE = 0xff;
const MEMBERS_SHIFT = 8;
const COUNT_SHIFT = 16;

/** Maximum number of waiting packets of one entry, in all workers. */
export const ENTRY_HELD_MAX = 32;
/**
 * Seconds after which an entry is no longer held. This is far longer than any hold, because the
 * wall clock that dates entries can step. It saves the packets of old half-open entries a read of
 * these words.
 */
const RECENT_S = 60;

/** Bytes of `OpenContext.local` for a table with this number of slots. */
export function heldEntriesBytes(slots: number): number {
  return HEADER.bytes + (slots << SHIFT) * BYTES_PER_WORD;
}

/** The worker index of the thread that opens an object. Only workers make held entries. */
export function workerOf({ writer }: OpenContext): number {
  return writer === null ? 0 : writer.id - 1;
}

export class HeldEntries {
  private readonly flows: FlowSlots;
  private readonly worker: number;
  private readonly isPossible: boolean;
  private readonly header: Int32Array;
  private readonly words: Int32Array;
  /** How the packets of this thread's next entry are held. 0 members: they are not held. */
  private members = 0;
  private deadline = 0;

  /**
   * `memory`: the instance's local memory, used from `byteOffset` on. If it is too short, no entry
   * is ever held. Without memory, this thread keeps the words for itself. `worker`: this thread's
   * worker index.
   */
  constructor(flows: FlowSlots, memory: Region | undefined, byteOffset: number, worker: number) {
    const count = flows.slots << SHIFT;
    this.flows = flows;
    this.worker = worker;
    this.isPossible = memory === undefined || memory.byteLength >= byteOffset + heldEntriesBytes(flows.slots);
    const region = this.isPossible ? memory : undefined;
    this.header = region?.i32(byteOffset, HEADER.words) ?? new Int32Array(HEADER.words);
    this.words = region?.i32(byteOffset + HEADER.bytes, count) ?? new Int32Array(this.isPossible ? count : 0);
  }

  /**
   * Holds the packets of the next entry that this thread makes, for this number of members, until a
   * monotonic time in milliseconds. 0 members: they are not held. Throws if there is no memory for
   * it.
   */
  holdNext(members: number, deadline: number): void {
    if (!this.isPossible && members > 0) throw new Error('there is no memory for entries that are held');
    this.members = members < BYTE ? members : BYTE;
    this.deadline = deadline;
  }

  /**
   * Notes that an entry of this generation begins in a slot, before other threads see it.
   * `position`: of the log behind its record.
   */
  begin(slot: number, generation: number, position: number): void {
    const { words, members } = this;
    if (members === 0) return;
    this.members = 0;
    const at = slot << SHIFT;
    words[at + WHAT] = this.worker | (members << MEMBERS_SHIFT);
    words[at + POSITION] = position;
    words[at + DEADLINE] = this.deadline;
    words[at + GENERATION] = generation;
    this.header[0] = 1;
  }

  /** Whether any entry was ever held. */
  get isUsed(): boolean {
    return this.header[0] !== 0;
  }

  /**
   * Whether packets of the entry in a slot were held when it began, not long ago. The methods below
   * are valid only for such an entry.
   */
  wasHeld(slot: number, now: number): boolean {
    if (this.header[0] === 0) return false;
    const generation = this.flows.generation(slot);
    return now - generation <= RECENT_S && this.words[(slot << SHIFT) + GENERATION] === generation;
  }

  /** The worker that logged the entry's record. */
  logger(slot: number): number {
    return this.words[(slot << SHIFT) + WHAT] & BYTE;
  }

  membersOf(slot: number): number {
    return (this.words[(slot << SHIFT) + WHAT] >>> MEMBERS_SHIFT) & BYTE;
  }

  position(slot: number): number {
    return this.words[(slot << SHIFT) + POSITION];
  }

  deadlineOf(slot: number): number {
    return this.words[(slot << SHIFT) + DEADLINE];
  }

  /** Counts a packet of the entry that should wait. False if the maximum is already waiting. */
  admit(slot: number): boolean {
    const at = (slot << SHIFT) + WHAT;
    const what = this.words[at];
    if (what >>> COUNT_SHIFT >= ENTRY_HELD_MAX) return false;
    this.words[at] = what + (1 << COUNT_SHIFT);
    return true;
  }
}
