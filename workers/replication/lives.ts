/**
 * Which life of a member its messages are believed to come from.
 *
 * A later incarnation replaces the earlier one at once. An earlier one is a straggler from the old life, or, rarely, a
 * member whose clock went back before it started again. It is believed only when the present life has been silent, and it
 * was itself heard several times, spread over more time than the network keeps a message back: a member that lives sends
 * keepalives, and stragglers come in a burst.
 */

import type { PeerRecord } from '../../shm/ack-board.js';
import type { ReplicationSettings } from './settings.js';

/** An earlier life is believed at this message… */
const MESSAGES_MIN = 4;
/** …and of messages closer together than this part of the keepalive interval, one counts. */
const SPACING = 1 / 2;

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

  /** Whether a message of the member's life `incarnation`, heard at `now` (ms), is to be believed. */
  believes(member: number, peer: PeerRecord, incarnation: number, now: number): boolean {
    const candidate = this.candidates[member];
    if (incarnation >= peer.incarnation) {
      candidate.messages = 0;
      return true;
    }
    if (now - peer.heardAt <= this.settings.silentMs) return false;
    if (candidate.messages === 0 || candidate.incarnation !== incarnation) {
      candidate.incarnation = incarnation;
      candidate.messages = 1;
      candidate.heardAt = now;
    } else if (now - candidate.heardAt >= this.settings.keepaliveMs * SPACING) {
      candidate.messages++;
      candidate.heardAt = now;
    }
    return candidate.messages >= MESSAGES_MIN;
  }
}
