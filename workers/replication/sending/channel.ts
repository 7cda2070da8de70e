/**
 * What the parts of a sending channel share: the context of all channels of an instance, and the
 * composer of one channel's messages.
 */

import type { AckBoard } from '../../../shm/ack-board.js';
import type { Counts } from '../metrics.js';
import type { ReplicationSettings } from '../settings.js';
import type { Datagram, MessageWriter } from '../wire/message.js';
import type { HoldMarks } from './hold-marks.js';
import type { Outlet } from './outlet.js';
import type { Pacing } from './pacing.js';
import type { PeerView } from './peer-view.js';
import type { Window } from './window.js';

/** The memory, in bytes, that all backlogs of an instance may take. */
export interface BacklogBudget {
  used: number;
  readonly limit: number;
  /** The most bytes that the folded part of one backlog may take. */
  readonly perFold: number;
}

/** What all channels of an instance share. */
export interface ChannelContext {
  readonly settings: ReplicationSettings;
  readonly board: AckBoard;
  readonly writer: MessageWriter;
  readonly peers: PeerView;
  readonly counts: Counts;
  /** Called once per episode with what an operator should know. */
  readonly onAlarm: (problem: string, object: number) => void;
  /** The longest unit, in words of records. */
  readonly unitWords: number;
  readonly backlogBudget: BacklogBudget;
  readonly window: Window;
  readonly pacing: Pacing;
  /** Reports acknowledged records to the workers; null if no worker holds packets. */
  readonly marks: HoldMarks | null;
}

/**
 * Begins and ends the messages of one channel. Between the two, entries and units are added to the
 * context's writer.
 */
export class Composer {
  private readonly object: number;
  private readonly context: ChannelContext;

  constructor(object: number, context: ChannelContext) {
    this.object = object;
    this.context = context;
  }

  /** Begins a message. Returns null, and counts it, if there is no memory for one. */
  begin(now: number, outlet: Outlet): Datagram | null {
    const { board, counts, writer } = this.context;
    const datagram = outlet.claim();
    if (datagram === null) {
      counts.add('state_tx_busy', 1);
      return null;
    }
    const number = board.datagram(this.object) + 1;
    board.setDatagram(this.object, number);
    writer.begin(datagram, this.object, number, now);
    return datagram;
  }

  /** Ends the message. `highest`: the highest number sent, if the units are not ours. */
  finish(datagram: Datagram, outlet: Outlet, member: number, floor: number, highest = -1): void {
    this.finishFor(datagram, outlet, member, 0, 0, floor, highest);
  }

  /** Ends a message that has nothing for the slots whose bits are set. */
  finishFor(
    datagram: Datagram,
    outlet: Outlet,
    member: number,
    spareLow: number,
    spareHigh: number,
    floor: number,
    highest = -1,
  ): void {
    const { board, counts, writer } = this.context;
    const bytes = writer.finish(floor, highest < 0 ? board.sequence(this.object) : highest);
    counts.row[counts.at.state_tx_messages]++;
    counts.row[counts.at.state_tx_bytes] += bytes;
    outlet.send(datagram, bytes, this.object, member, spareLow, spareHigh);
  }
}
