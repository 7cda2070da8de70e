/**
 * Which life of a member its messages are believed to come from.
 *
 * A later incarnation than any known is believed at once: the member has started again. An earlier one is a straggler, or,
 * rarely, a member whose clock went back before it started again. It is believed only when the present life has been silent,
 * and it was itself heard several times, spread over more time than the network keeps a message back: a member that lives
 * sends keepalives, and stragglers come in a burst. A life that is over, and what is earlier than one that a later life
 * followed, is never believed again, however long it is heard.
 *
 * That a life is believed does not mean that it is taken in: first the one before it must be closed (closing.ts).
 */

import type { LifeRecord } from '../../shm/board-records.js';
import type { ReplicationSettings } from './settings.js';

/** An earlier life is believed at this message… */
const MESSAGES_MIN = 4;
/** …and of messages closer together than this part of the keepalive interval, one counts. */
const SPACING = 1 / 2;

export const Belief = {
  /** The present life. */
  PRESENT: 0,
  /** A new one, from now on. */
  NEW: 1,
  /** Known to be next, once the one before it is closed. */
  WAITING: 2,
  /** Over, or earlier than what is known. */
  NOT: 3,
} as const;
export type Belief = (typeof Belief)[keyof typeof Belief];

interface Candidate {
  incarnation: number;
  messages: number;
  heardAt: number;
}

export class Lives {
  private readonly settings: ReplicationSettings;
  private readonly candidates: readonly Candidate[];

  constructor(settings: ReplicationSettings) {
    this.settings = settings;
    this.candidates = Array.from({ length: settings.slots }, () => ({ incarnation: 0, messages: 0, heardAt: 0 }));
  }

  /**
   * What to think of a message of the member's life `incarnation`, heard at `now`, given what is known of its lives and when
   * one of them that is believed was last heard (ms).
   */
  judge(member: number, life: LifeRecord, incarnation: number, heardAt: number, now: number): Belief {
    const candidate = this.candidates[member];
    if (incarnation === life.current) {
      candidate.messages = 0;
      return Belief.PRESENT;
    }
    if (incarnation === life.former || life.isOver(incarnation)) return Belief.NOT;
    if (incarnation === life.pending) {
      candidate.messages = 0;
      return Belief.WAITING;
    }
    if (incarnation > Math.max(life.current, life.former, life.pending)) {
      candidate.messages = 0;
      return Belief.NEW;
    }
    if (now - heardAt <= this.settings.silentMs) return Belief.NOT;
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
