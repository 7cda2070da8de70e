/**
 * What one channel reports as received: our reception vectors. They go in messages with units if
 * possible, in messages of their own when they can wait no longer, and all of them in keepalives.
 */

import { VectorRecord } from '../../../shm/ack-board.js';
import { DigestRecord, PeerRecord } from '../../../shm/board-records.js';
import { selfIndex } from '../settings.js';
import { FREEZING_VERSION, FROZEN, RETAINS } from '../wire/message.js';
import type { Attachments } from './attachments.js';
import type { ChannelContext, Composer } from './channel.js';
import { EVERYONE, type Outlet } from './outlet.js';

export class Acknowledging {
  private readonly object: number;
  private readonly context: ChannelContext;
  private readonly composer: Composer;
  private readonly attachments: Attachments;
  /** Version of each origin's vector that was last sent. */
  private readonly told: Int32Array;
  /** The same for the vector of its former incarnation. */
  private readonly reportedFormer: Int32Array;
  private readonly present = new VectorRecord();
  private readonly former = new VectorRecord();
  private readonly peer = new PeerRecord();
  private readonly self: number;
  private readonly digest = new DigestRecord();
  private readonly vectorHash = new Int32Array(2);
  private readonly content = new Int32Array(2);
  private served: number;
  private ackDue = Number.POSITIVE_INFINITY;
  private vectorSentAt = Number.NEGATIVE_INFINITY;
  private keepaliveDue = Number.NEGATIVE_INFINITY;

  constructor(object: number, context: ChannelContext, composer: Composer, attachments: Attachments) {
    this.object = object;
    this.context = context;
    this.composer = composer;
    this.attachments = attachments;
    this.told = new Int32Array(context.settings.slots);
    this.reportedFormer = new Int32Array(context.settings.slots);
    this.self = selfIndex(context.settings);
    this.served = context.board.served(object);
  }

  /** When something is due, in ms. */
  get deadline(): number {
    return Math.min(this.ackDue, this.keepaliveDue);
  }

  /** What every message says of us has changed: the next poll sends a keepalive. */
  announce(): void {
    this.keepaliveDue = Number.NEGATIVE_INFINITY;
  }

  /**
   * Suspends everything while this instance is alone in the cluster. Pending acknowledgements wait
   * until a member comes.
   */
  rest(): void {
    this.ackDue = Number.POSITIVE_INFINITY;
    this.keepaliveDue = Number.POSITIVE_INFINITY;
  }

  /**
   * Sends acknowledgements that can wait no longer for a message with units, and keepalives.
   * Returns the number of messages sent.
   */
  poll(now: number, outlet: Outlet): number {
    const { attachments } = this;
    const { board, counts, peers, settings, writer } = this.context;
    const ackRequests = board.ackRequests(this.object);
    if (this.keepaliveDue === Number.POSITIVE_INFINITY) this.keepaliveDue = now;
    const keepalive = now >= this.keepaliveDue;
    if (!keepalive) {
      if (ackRequests === this.served) return 0;
      if (this.ackDue === Number.POSITIVE_INFINITY)
        this.ackDue = Math.min(now, board.ackRequestedAt(this.object)) + peers.ackDelayMs;
      if (now < this.ackDue) return 0;
    }
    let messages = 0;
    let origin = 0;
    do {
      const datagram = this.composer.begin(now, outlet);
      if (datagram === null) return messages;
      origin = this.addEntries(now, origin, keepalive, 0);
      if (keepalive) this.addDigest();
      attachments.maskFor();
      writer.exclude(attachments.maskLow, attachments.maskHigh);
      this.composer.finish(datagram, outlet, EVERYONE, attachments.floor());
      messages++;
    } while (origin < settings.slots);
    this.noteServed(ackRequests, now);
    if (keepalive) this.keepaliveDue = now + settings.keepaliveMs;
    counts.add(keepalive ? 'state_tx_keepalives' : 'state_tx_acks', messages);
    return messages;
  }

  /**
   * Adds our content digest as computed by the main thread while nothing was under way. Format
   * version 2.
   */
  private addDigest(): void {
    const { board, writer } = this.context;
    if (writer.version < FREEZING_VERSION || board.readDigest(this.object, this.self, this.digest) === 0) return;
    this.digest.load(this.vectorHash, this.content);
    writer.addDigest(this.vectorHash, this.content);
  }

  /**
   * Adds a pending acknowledgement to the current message, leaving `reserve` words, but not to
   * every message.
   */
  piggyback(now: number, reserve: number): void {
    const { board, peers, settings } = this.context;
    const ackRequests = board.ackRequests(this.object);
    if (ackRequests === this.served || now - this.vectorSentAt < peers.ackDelayMs / 4) return;
    if (this.addEntries(now, 0, false, reserve) === settings.slots) this.noteServed(ackRequests, now);
  }

  /**
   * Adds entries for origins from slot `origin` on: for all that were heard, or for those whose
   * vector changed since it was last sent. Returns the slot of the first that did not fit; `slots`
   * if all did.
   */
  private addEntries(now: number, origin: number, all: boolean, reserve: number): number {
    const { settings } = this.context;
    for (let i = origin; i < settings.slots; i++) if (!this.addOrigin(now, i, all, reserve)) return i;
    return settings.slots;
  }

  /**
   * Adds the entries about one origin. A message that names its present incarnation also names the
   * former one, while we keep that. A member that hears only of the present one takes it that we
   * have nothing to say of the former (closing.ts, `isElsewhere`). Returns false if not both fit.
   */
  private addOrigin(now: number, origin: number, all: boolean, reserve: number): boolean {
    const { board, peers } = this.context;
    const { present } = this;
    let version = this.told[origin];
    const isDue = peers.present[origin] === 1 && (all || board.receptionVersion(this.object, origin) !== version);
    // The receive thread writes the former incarnation first, so it is read last.
    if (isDue) {
      present.incarnation = 0;
      version = board.readReception(this.object, origin, present);
    }
    // And it goes first, in case the present one does not fit.
    if (!this.addFormer(now, origin, all || isDue, reserve)) return false;
    if (isDue && present.incarnation !== 0 && !this.addPresent(now, origin, reserve)) return false;
    this.told[origin] = version;
    return true;
  }

  private addPresent(now: number, origin: number, reserve: number): boolean {
    const { peers, writer } = this.context;
    const flags = this.retains(origin) ? RETAINS : 0;
    return writer.addEntry(peers.members.id(origin), this.present, now, reserve, flags);
  }

  /**
   * Adds what we have of the origin's former incarnation, while some member may lack it. Format
   * version 2. Returns false if it does not fit.
   */
  private addFormer(now: number, origin: number, all: boolean, reserve: number): boolean {
    const { board, peers, writer } = this.context;
    if (!all && board.formerVersion(this.object, origin) === this.reportedFormer[origin]) return true;
    const { former } = this;
    former.clear();
    const version = board.readFormer(this.object, origin, former);
    if (former.incarnation !== 0 && writer.version >= FREEZING_VERSION)
      if (!writer.addEntry(peers.members.id(origin), former, now, reserve, FROZEN)) return false;
    this.reportedFormer[origin] = version;
    return true;
  }

  /**
   * Whether we retain our units for the origin: from now on nothing that it lacks is pruned. For a
   * leaving member nothing more is retained once we have everything of it, which tells it that it
   * may go.
   */
  private retains(origin: number): boolean {
    const { peer, present } = this;
    if (!this.attachments.retainsFor(origin, present.incarnation)) return false;
    this.context.board.readPeer(origin, peer);
    return !peer.isLeaving || present.contiguous < present.highest;
  }

  /**
   * All acknowledgements due up to `ackRequests` have been sent. Those that came meanwhile are due
   * again; the board's comment describes this race.
   */
  private noteServed(ackRequests: number, now: number): void {
    const { board, peers } = this.context;
    this.served = ackRequests;
    this.vectorSentAt = now;
    board.setServed(this.object, ackRequests);
    this.ackDue = board.ackRequests(this.object) === ackRequests ? Number.POSITIVE_INFINITY : now + peers.ackDelayMs;
  }
}
