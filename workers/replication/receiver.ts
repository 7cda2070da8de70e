/**
 * The receive thread's half of the protocol core: takes messages, applies their operations, and keeps the board: what we
 * have of each origin, what each member has of ours, and the round trip to it.
 *
 * No sockets, clocks or threads. Nothing in a message is believed before it has passed every check of `REJECTS`.
 *
 * **Lives.** A member's incarnation tells one life from the next; lives.ts says which one is believed. A member that started again is sent whatever the others still hold; what they had let go of, because its old
 * life had it, and what its old life had not delivered, takes a snapshot and a repair, which are not here.
 */

import { AckBoard, PeerRecord } from '../../shm/ack-board.js';
import { CLOCK_SKEW_GUARD_S } from '../../shm/clock.js';
import { MemberTable } from '../../shm/members.js';
import type { StateObject } from '../../shm/objects/object.js';
import { ClockSkew, type SkewLevel } from './clock-skew.js';
import { Lives } from './lives.js';
import { MessageReader, type Reject, stampOf } from './message.js';
import type { Counts } from './metrics.js';
import { ReceiveChannel, type ReceiveContext } from './receive-channel.js';
import { RoundTrip } from './round-trip.js';
import { memberTableOf, messageBytes, type ReplicationSettings, selfIndex } from './settings.js';
import { Vectors } from './vectors.js';

export interface ReceiverOptions {
  readonly settings: ReplicationSettings;
  readonly layoutHash: readonly [number, number];
  /** In the order of their ids, from 0, opened to write. */
  readonly objects: readonly StateObject[];
  readonly board: SharedArrayBuffer;
  readonly counts: Counts;
  /** The member table; absent: the settings' members, for good. */
  readonly members?: SharedArrayBuffer;
  /** Rings the send thread's bell: an acknowledgement is owed, or there is room in its log. */
  readonly ring: () => void;
  /** Told of errors thrown by an object's own code. */
  readonly onError?: (error: unknown, object: number, origin: number) => void;
  /** Told, once an episode and level, that a member's clock is too far from ours. */
  readonly onSkew?: (problem: string, level: SkewLevel) => void;
}

/** A longer round trip, in microseconds, is not one. */
const ROUND_TRIP_US_MAX = 60e6;

export class Receiver {
  private readonly settings: ReplicationSettings;
  private readonly board: AckBoard;
  private readonly counts: Counts;
  private readonly ring: () => void;
  private readonly reader: MessageReader;
  private readonly self: number;
  private readonly members: MemberTable;
  /** Whose slot each is, as of the last look at the table. */
  private readonly ids: Int32Array;
  private readonly peers: PeerRecord[];
  private readonly lives: Lives;
  private readonly vectors: Vectors;
  private readonly roundTrips: RoundTrip[];
  private readonly skews: ClockSkew[];
  private readonly onSkew: (problem: string, level: SkewLevel) => void;
  /** [object][member] */
  private readonly channels: readonly (readonly ReceiveChannel[])[];
  /** Per object: messages that asked for an acknowledgement, and as of which the bell last rang. */
  private readonly owed: Int32Array;
  private readonly rung: Int32Array;

  constructor(options: ReceiverOptions) {
    const { settings, objects, counts } = options;
    const board = new AckBoard(options.board);
    if (board.objects !== objects.length || board.members !== settings.slots)
      throw new RangeError('the acknowledgement board was made for other objects or members');
    this.settings = settings;
    this.board = board;
    this.counts = counts;
    this.ring = options.ring;
    this.reader = new MessageReader(settings.clusterId, options.layoutHash, objects.length, messageBytes(settings));
    this.self = selfIndex(settings);
    this.members = new MemberTable(options.members ?? memberTableOf(settings));
    this.ids = Int32Array.from({ length: settings.slots }, (_, slot) => this.members.id(slot));
    this.peers = Array.from({ length: settings.slots }, (_, member) => {
      const record = new PeerRecord();
      board.readPeer(member, record);
      return record;
    });
    this.lives = new Lives(settings);
    this.vectors = new Vectors(board);
    this.roundTrips = Array.from({ length: settings.slots }, () => new RoundTrip());
    this.skews = Array.from({ length: settings.slots }, () => new ClockSkew());
    this.onSkew = options.onSkew ?? (() => {});
    const context: ReceiveContext = {
      board,
      counts,
      onError: options.onError ?? (() => {}),
      reorderBytes: settings.reorderBytes,
    };
    this.channels = objects.map((object) =>
      Array.from({ length: settings.slots }, (_, member) => new ReceiveChannel(object, member, context)),
    );
    this.owed = Int32Array.from(objects, (_, object) => board.owed(object));
    this.rung = this.owed.slice();
  }

  /**
   * Takes one datagram, received at `now` (ms); `coarse` is the time in coarse seconds, for the state objects; `wallMs` the
   * wall clock (Unix ms), to compare the sender's with; 0: not compared. Returns why it was refused, or null.
   */
  receive(message: Uint8Array, now: number, coarse: number, wallMs = 0): Reject | null {
    const { counts } = this;
    counts.row[counts.at.state_rx_messages]++;
    counts.row[counts.at.state_rx_bytes] += message.byteLength;
    if (this.members.refresh()) this.noteMembers();
    const reject = this.reader.read(message) ?? this.check(now);
    if (reject !== null) {
      counts.add(`state_rejected_${reject}`, 1);
      return reject;
    }
    const { object } = this.reader;
    const member = this.members.slotOf(this.reader.sender);
    const channel = this.channels[object][member];
    this.hear(member, now);
    const told = this.takeEntries(channel, member, now);
    this.compareClocks(member, now, wallMs);
    channel.takeUnits(this.reader, this.reader.excludes(this.self), now, coarse);
    this.board.writePeer(member, this.peers[member]);
    this.board.noteChange(object);
    const owed = this.reader.units > 0 && this.owe(object, now);
    if (owed || (told && this.board.hungry(object))) this.ring();
    return null;
  }

  /** Bytes of units that wait for an earlier one. */
  get bufferedBytes(): number {
    let bytes = 0;
    for (const members of this.channels) for (const channel of members) bytes += channel.bufferedBytes;
    return bytes;
  }

  /** The checks that need to know the members. Changes nothing but which life of the sender may be believed next. */
  private check(now: number): Reject | null {
    const { reader, settings, board, members } = this;
    if (reader.view !== settings.view) return 'view';
    const member = members.slotOf(reader.sender);
    if (member === this.self) return 'own';
    if (member < 0 || !members.isMember(member)) return 'sender';
    if (reader.incarnation <= members.dead(member)) return 'incarnation';
    for (let i = 0; i < reader.entries; i++) {
      reader.entry(i);
      if (reader.origin !== settings.self || reader.originIncarnation !== board.incarnation) continue;
      const sent = board.sequence(reader.object);
      const highest = reader.ranges > 0 ? reader.rangeEnd(reader.ranges - 1) : reader.contiguous;
      if (highest > sent || reader.echoDatagram > board.datagram(reader.object)) return 'ack_unsent';
    }
    // Last: only a message that passes everything else is a sign of life.
    if (!this.lives.believes(member, this.peers[member], reader.incarnation, now)) return 'incarnation';
    return null;
  }

  /** Notes that the member lives, and forgets its last life if this is a new one. */
  private hear(member: number, now: number): void {
    const peer = this.peers[member];
    if (peer.incarnation !== this.reader.incarnation) {
      if (peer.incarnation !== 0) this.restarted(member);
      peer.incarnation = this.reader.incarnation;
    }
    peer.heardAt = now;
    peer.speaks = this.reader.speaks;
    peer.flags = this.reader.flags;
  }

  private compareClocks(member: number, now: number, wallMs: number): void {
    const { reader, counts } = this;
    const peer = this.peers[member];
    const skew = this.skews[member];
    if (wallMs === 0 || reader.wallMs === 0 || peer.samples === 0) return;
    if (!skew.sample(reader.wallMs, wallMs, peer.minimum, now)) return;
    peer.setSkew(skew.ms);
    let most = 0;
    for (const { ms } of this.skews) if (Math.abs(ms) > most) most = Math.abs(ms);
    counts.set('state_clock_skew_ms', most);
    const level = skew.alarm();
    if (level > 0) this.onSkew(skewProblem(this.members.name(member), skew.ms, level), level);
  }

  /** A slot that another member has now starts from nothing. */
  private noteMembers(): void {
    for (let slot = 0; slot < this.ids.length; slot++) {
      const id = this.members.id(slot);
      if (this.ids[slot] === id) continue;
      if (this.ids[slot] !== 0) {
        this.forget(slot);
        this.peers[slot].floats.fill(0);
        this.skews[slot] = new ClockSkew();
        this.board.writePeer(slot, this.peers[slot]);
      }
      this.ids[slot] = id;
    }
  }

  private restarted(member: number): void {
    this.counts.add('state_rx_restarts', 1);
    this.forget(member);
  }

  private forget(member: number): void {
    this.vectors.forget(member);
    for (let object = 0; object < this.channels.length; object++) {
      this.channels[object][member].reset();
      this.board.noteChange(object);
    }
  }

  /** Takes in what the member says it has. Returns whether it told something about us. */
  private takeEntries(channel: ReceiveChannel, member: number, now: number): boolean {
    const { reader, settings, board } = this;
    let told = false;
    for (let i = 0; i < reader.entries; i++) {
      reader.entry(i);
      if (reader.origin !== settings.self) {
        const origin = this.members.slotOf(reader.origin);
        if (origin >= 0 && origin !== member) this.vectors.take(reader, member, origin);
        continue;
      }
      if (reader.originIncarnation !== board.incarnation || !this.vectors.take(reader, member, this.self)) {
        this.counts.add('state_rx_acks_stale', 1);
        continue;
      }
      told = true;
      if (reader.echoValid && reader.echoDatagram > channel.echoed) {
        channel.echoed = reader.echoDatagram;
        const us = (stampOf(now) - reader.echoStamp - reader.echoDelayUs) >>> 0;
        if (us <= ROUND_TRIP_US_MAX) this.roundTrips[member].sample(us / 1000, now, this.peers[member]);
      }
    }
    return told;
  }

  /** An acknowledgement is owed. Returns whether the send thread must be told: see the board on why none is missed. */
  private owe(object: number, now: number): boolean {
    const owed = (this.owed[object] + 1) | 0;
    this.owed[object] = owed;
    this.board.setOwed(object, owed);
    if (((this.board.served(object) - this.rung[object]) | 0) < 0) return false;
    this.rung[object] = owed;
    this.board.setOwedAt(object, now);
    return true;
  }
}

function skewProblem(name: string, ms: number, level: SkewLevel): string {
  const seconds = (Math.abs(ms) / 1000).toFixed(1);
  const consequence =
    level === 2
      ? `that is more than the ${CLOCK_SKEW_GUARD_S} s which state objects allow for: entries may end at one member and not at another`
      : `state objects allow for ${CLOCK_SKEW_GUARD_S} s`;
  return `the clock of ${name} is ${seconds} s ${ms > 0 ? 'ahead of' : 'behind'} ours (${consequence}); look after its time service and ours`;
}
