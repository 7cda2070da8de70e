/**
 * What one channel tells the others that we have: our reception vectors, riding on messages with
 * units where they can, in messages of their own when they can wait no longer, and all of them in
 * keepalives.
 */

import { VectorRecord } from '../../shm/ack-board.js';
import { DigestRecord, PeerRecord } from '../../shm/board-records.js';
import type { Attachments } from './attachments.js';
import { type ChannelContext, type Composer, EVERYONE, type Outlet } from './channel.js';
import { FREEZING_VERSION, FROZEN, HOLDS } from './message.js';
import { selfIndex } from './settings.js';

export class Acknowledging {
  private readonly object: number;
  private readonly context: ChannelContext;
  private readonly composer: Composer;
  private readonly attachments: Attachments;
  /** Version of each origin's vector that we last told. */
  private readonly told: Int32Array;
  /** The same of what we have of its former life. */
  private readonly toldFormer: Int32Array;
  private readonly vector = new VectorRecord();
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
    this.toldFormer = new Int32Array(context.settings.slots);
    this.self = selfIndex(context.settings);
    this.served = context.board.served(object);
  }

  /** When something is due, in ms. */
  get deadline(): number {
    return Math.min(this.ackDue, this.keepaliveDue);
  }

  /** What every message says of us has changed: the others are told at once. */
  announce(): void {
    this.keepaliveDue = Number.NEGATIVE_INFINITY;
  }

  /**
   * Alone in the cluster: there is nobody to tell, until somebody comes. Acknowledgements that are
   * owed wait, too.
   */
  rest(): void {
    this.ackDue = Number.POSITIVE_INFINITY;
    this.keepaliveDue = Number.POSITIVE_INFINITY;
  }

  /**
   * Acknowledgements that can wait no longer for a message to ride on, and keepalives. Returns the
   * messages sent.
   */
  poll(now: number, outlet: Outlet): number {
    const { attachments } = this;
    const { board, counts, peers, settings, writer } = this.context;
    const owed = board.owed(this.object);
    if (this.keepaliveDue === Number.POSITIVE_INFINITY) this.keepaliveDue = now;
    const keepalive = now >= this.keepaliveDue;
    if (!keepalive) {
      if (owed === this.served) return 0;
      if (this.ackDue === Number.POSITIVE_INFINITY)
        this.ackDue = Math.min(now, board.owedAt(this.object)) + peers.ackDelayMs;
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
    this.noteServed(owed, now);
    if (keepalive) this.keepaliveDue = now + settings.keepaliveMs;
    counts.add(keepalive ? 'state_tx_keepalives' : 'state_tx_acks', messages);
    return messages;
  }

  /** What main found our content to be, while nothing was under way. Format version 2. */
  private addDigest(): void {
    const { board, writer } = this.context;
    if (writer.version < FREEZING_VERSION || board.readDigest(this.object, this.self, this.digest) === 0) return;
    this.digest.load(this.vectorHash, this.content);
    writer.addDigest(this.vectorHash, this.content);
  }

  /**
   * Lets an owed acknowledgement ride on the message begun, leaving `reserve` words, but not on
   * every one.
   */
  piggyback(now: number, reserve: number): void {
    const { board, peers, settings } = this.context;
    const owed = board.owed(this.object);
    if (owed === this.served || now - this.vectorSentAt < peers.ackDelayMs / 4) return;
    if (this.addEntries(now, 0, false, reserve) === settings.slots) this.noteServed(owed, now);
  }

  /**
   * Adds entries for origins from slot `origin` on: all that were heard, or those whose vector
   * changed since it was last told. Returns the slot of the first that did not fit.
   */
  private addEntries(now: number, origin: number, all: boolean, reserve: number): number {
    const { peers, settings } = this.context;
    for (let i = origin; i < settings.slots; i++) {
      if (peers.present[i] === 1 && !this.addPresent(now, i, all, reserve)) return i;
      if (!this.addFormer(now, i, all, reserve)) return i;
    }
    return settings.slots;
  }

  private addPresent(now: number, origin: number, all: boolean, reserve: number): boolean {
    const { board, peers, writer } = this.context;
    if (!all && board.receptionVersion(this.object, origin) === this.told[origin]) return true;
    const { vector } = this;
    vector.incarnation = 0;
    const version = board.readReception(this.object, origin, vector);
    if (vector.incarnation !== 0) {
      const flags = this.holds(origin) ? HOLDS : 0;
      if (!writer.addEntry(peers.members.id(origin), vector, now, reserve, flags)) return false;
    }
    this.told[origin] = version;
    return true;
  }

  /**
   * What we have of the origin's life that is over, as long as somebody may lack it. Format version
   * 2.
   */
  private addFormer(now: number, origin: number, all: boolean, reserve: number): boolean {
    const { board, peers, writer } = this.context;
    if (!all && board.formerVersion(this.object, origin) === this.toldFormer[origin]) return true;
    const { vector } = this;
    vector.clear();
    const version = board.readFormer(this.object, origin, vector);
    if (vector.incarnation !== 0 && writer.version >= FREEZING_VERSION)
      if (!writer.addEntry(peers.members.id(origin), vector, now, reserve, FROZEN)) return false;
    this.toldFormer[origin] = version;
    return true;
  }

  /**
   * Whether we hold our units for the origin: as of now nothing is let go that it lacks. One that
   * leaves has nothing held for it any more once we have everything of it, and that tells it that
   * it may go.
   */
  private holds(origin: number): boolean {
    const { peer, vector } = this;
    if (!this.attachments.holdsFor(origin, vector.incarnation)) return false;
    this.context.board.readPeer(origin, peer);
    return !peer.isLeaving || vector.contiguous < vector.highest;
  }

  /**
   * Everything owed up to `owed` has been told. What came meanwhile is owed anew: see the board on
   * this race.
   */
  private noteServed(owed: number, now: number): void {
    const { board, peers } = this.context;
    this.served = owed;
    this.vectorSentAt = now;
    board.setServed(this.object, owed);
    this.ackDue = board.owed(this.object) === owed ? Number.POSITIVE_INFINITY : now + peers.ackDelayMs;
  }
}
