/**
 * Which incarnation of a member its messages are believed to come from.
 *
 * A message *answers* us if it echoes a datagram of this start of ours that is later than every one
 * that the present incarnation has echoed. An incarnation that ended before the present one began
 * cannot have received that datagram, so no recorded or delayed message of it answers us. This is
 * the proof of freshness. It does not depend on any clock, and needs no field of its own.
 *
 * | present incarnation               | a later incarnation is believed | an earlier one is believed          |
 * | --------------------------------- | ------------------------------- | ----------------------------------- |
 * | none                              | at once                         | if it answers us                    |
 * | never answered us, we are joining | at once                         | if it answers us; or if the present one is silent, and it is heard several times |
 * | never answered us                 | if it answers us; or if the present one is silent, and it is heard several times | if it answers us and the present one is silent |
 * | has answered us                   | if it answers us                | if it answers us and the present one is silent |
 *
 * The present incarnation that has never answered us may itself be a recording, so a real member
 * can replace it without a proof: otherwise two members that both believe recordings would each
 * wait for the other's answer. While we are joining, this is harmless, since no incarnation ends
 * (`replace` in closing.ts). Afterwards it would end the present one, which may live: we may know
 * it from the snapshot only, or have been cut off from it since. So a recording of a later one must
 * not replace it at once, and a recording of an earlier one never does. An incarnation that ended
 * is never believed again.
 *
 * A believed incarnation is admitted only after the one before it is closed (closing.ts).
 */

import type { SlotIncarnations } from '../../../shm/board-records.js';
import type { ReplicationSettings } from '../settings.js';

/** An incarnation that does not answer us is believed at this number of messages. */
const MESSAGES_MIN = 4;
/** Of messages closer together than this part of the keepalive interval, only one counts. */
const SPACING = 1 / 2;

export const Belief = {
  /** The present incarnation. */
  PRESENT: 0,
  /** A new one, present from now on. */
  NEW: 1,
  /** Known to be next, once the one before it is closed. */
  WAITING: 2,
  /** Ended, or earlier than what is known. */
  NOT: 3,
} as const;
export type Belief = (typeof Belief)[keyof typeof Belief];

interface Candidate {
  incarnation: number;
  messages: number;
  heardAt: number;
}

export class Beliefs {
  private readonly settings: ReplicationSettings;
  private readonly candidates: readonly Candidate[];

  constructor(settings: ReplicationSettings) {
    this.settings = settings;
    this.candidates = Array.from({ length: settings.slots }, () => ({ incarnation: 0, messages: 0, heardAt: 0 }));
  }

  /**
   * Judges a message of the member's incarnation `incarnation`, heard at `now` (ms). `heardAt`:
   * when a believed one was last heard (ms). `answered`: whether the present incarnation has
   * answered us. `answers`: whether this message does. `isJoining`: we have no state yet.
   */
  judge(
    member: number,
    incarnations: SlotIncarnations,
    incarnation: number,
    heardAt: number,
    now: number,
    answered: boolean,
    answers: boolean,
    isJoining: boolean,
  ): Belief {
    const candidate = this.candidates[member];
    if (incarnation === incarnations.current) {
      candidate.messages = 0;
      return Belief.PRESENT;
    }
    if (incarnation === incarnations.former || incarnations.isOver(incarnation)) return Belief.NOT;
    if (incarnation === incarnations.pending) {
      candidate.messages = 0;
      return Belief.WAITING;
    }
    const isLater = incarnation > Math.max(incarnations.current, incarnations.former, incarnations.pending);
    const isUnproven = isJoining && !answered;
    if (isLater ? answers || incarnations.current === 0 || isUnproven : answers && isUnproven) {
      candidate.messages = 0;
      return Belief.NEW;
    }
    if (now - heardAt <= this.settings.silentMs) return Belief.NOT;
    if (answers) return Belief.NEW;
    if (incarnations.current === 0 || answered || !(isLater || isJoining)) return Belief.NOT;
    if (candidate.messages === 0 || candidate.incarnation !== incarnation) {
      candidate.incarnation = incarnation;
      candidate.messages = 1;
      candidate.heardAt = now;
    } else if (now - candidate.heardAt >= this.settings.keepaliveMs * SPACING) {
      candidate.messages++;
      candidate.heardAt = now;
    }
    return candidate.messages >= MESSAGES_MIN ? Belief.NEW : Belief.NOT;
  }
}
