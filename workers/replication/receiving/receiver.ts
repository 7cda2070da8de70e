/**
 * The receive thread's half of the protocol core: reads messages, applies their operations and
 * keeps the board. The board says what we have of each origin, what each member has of ours, and
 * the round trip to it.
 *
 * No sockets, clocks or threads. Nothing in a message is used before it has passed every check of
 * `REJECTS`.
 *
 * **Incarnations.** incarnations.ts says which incarnation of a member is believed, and closing.ts
 * how one ends.
 *
 * **While the instance is joining** (joining.ts) it has no state to which units could be applied.
 * It hears the other members, says so, and applies no units. `reload` takes over what the donor had
 * when it gave the snapshot.
 */

import { AckBoard, PeerFlag, PeerRecord } from '../../../shm/ack-board.js';
import { DigestRecord, VectorRecord } from '../../../shm/board-records.js';
import { CLOCK_SKEW_GUARD_S } from '../../../shm/clock.js';
import { MemberTable } from '../../../shm/members.js';
import type { StateObject } from '../../../shm/objects/core/object.js';
import type { Counts } from '../metrics.js';
import { INCARNATION_MAX, memberTableOf, messageBytes, type ReplicationSettings, selfIndex } from '../settings.js';
import { openForeignLogs } from '../units/foreign-log.js';
import { FROZEN, MessageReader, type Reject, stampOf } from '../wire/message.js';
import { ClockSkew, type SkewLevel } from './clock-skew.js';
import { Closing } from './closing.js';
import { EchoAge } from './echo-age.js';
import { Belief, Beliefs } from './incarnations.js';
import { ReceiveChannel, type ReceiveContext } from './receive-channel.js';
import { RoundTrip } from './round-trip.js';
import { Vectors } from './vectors.js';

interface ReceiverOptions {
  readonly settings: ReplicationSettings;
  readonly meaningHash: readonly [number, number];
  /** In the order of their ids, from 0, opened for writing. */
  readonly objects: readonly StateObject[];
  readonly board: SharedArrayBuffer;
  /** From `createForeignLogs`. */
  readonly foreignLogs: SharedArrayBuffer;
  readonly counts: Counts;
  /** The member table; absent: the members in the settings, which never change. */
  readonly members?: SharedArrayBuffer;
  /** Rings the send thread's doorbell: an acknowledgement is due, or there is room in its log. */
  readonly ring: () => void;
  /** Called with errors thrown by an object's own code. */
  readonly onError?: (error: unknown, object: number, origin: number) => void;
  /**
   * Called if the members do not have the same units of an ended incarnation, or if a member and
   * this instance have evicted each other.
   */
  readonly onAlarm?: (problem: string, member: number) => void;
  /** Called once per episode and level if a member's clock is too far from ours. */
  readonly onSkew?: (problem: string, level: SkewLevel) => void;
}

/**
 * An incarnation that is not believed is asked for an answer at most once in this part of the
 * keepalive interval.
 */
const ASKING_SPACING = 1 / 4;

/** Longer round trips, in microseconds, are invalid. */
const ROUND_TRIP_US_MAX = 60e6;

export class Receiver {
  private readonly settings: ReplicationSettings;
  private readonly board: AckBoard;
  private readonly counts: Counts;
  private readonly ring: () => void;
  private readonly reader: MessageReader;
  private readonly self: number;
  private readonly members: MemberTable;
  /** The member id of each slot, as last read from the table. */
  private readonly ids: Int32Array;
  private readonly peers: PeerRecord[];
  private readonly digest = new DigestRecord();
  private readonly theirs = new VectorRecord();
  private readonly beliefs: Beliefs;
  private readonly closing: Closing;
  /** Per slot: when a believed incarnation of it was last heard, in ms. */
  private readonly heardAt: Float64Array;
  /** Per slot: when an incarnation that is not believed was last asked for an answer, in ms. */
  private readonly askedAt: Float64Array;
  /** Per slot: the incarnation that refuses us as we refuse it, as of the last alarm about it. */
  private readonly refusing: Float64Array;
  private readonly onAlarm: (problem: string, member: number) => void;
  /**
   * The current message answers a later datagram of ours than any that its sender's present
   * incarnation has answered.
   */
  private answers = false;
  private readonly vectors: Vectors;
  private readonly roundTrips: RoundTrip[];
  private readonly echoAge: EchoAge;
  private readonly skews: ClockSkew[];
  private readonly onSkew: (problem: string, level: SkewLevel) => void;
  private readonly context: ReceiveContext;
  /** [object][member], of the present and of the former incarnation. */
  private readonly channels: ReceiveChannel[][];
  private readonly former: ReceiveChannel[][];
  /** [object * slots + member]: the latest of our datagram numbers that was echoed. */
  private readonly echoed: Float64Array;
  /**
   * Per object: messages that asked for an acknowledgement, and their number when the doorbell last
   * rang.
   */
  private readonly ackRequests: Int32Array;
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
    this.reader = new MessageReader(settings.clusterId, options.meaningHash, objects.length, messageBytes(settings));
    this.self = selfIndex(settings);
    this.members = new MemberTable(options.members ?? memberTableOf(settings));
    this.ids = Int32Array.from({ length: settings.slots }, (_, slot) => this.members.id(slot));
    this.peers = Array.from({ length: settings.slots }, (_, member) => {
      const record = new PeerRecord();
      board.readPeer(member, record);
      return record;
    });
    this.beliefs = new Beliefs(settings);
    this.vectors = new Vectors(board);
    this.roundTrips = Array.from({ length: settings.slots }, () => new RoundTrip());
    this.echoAge = new EchoAge(board);
    this.skews = Array.from({ length: settings.slots }, () => new ClockSkew());
    this.onSkew = options.onSkew ?? (() => {});
    this.context = {
      board,
      counts,
      onError: options.onError ?? (() => {}),
      reorderBytes: settings.reorderBytes,
      foreign: openForeignLogs(options.foreignLogs, objects.length, settings.slots),
      keeping: this.members.members > 2,
      joining: (board.status & PeerFlag.JOINING) !== 0,
      prune: (object, origin) => this.prune(object, origin),
    };
    const open = (isFormer: boolean): ReceiveChannel[][] =>
      objects.map((object) =>
        Array.from(
          { length: settings.slots },
          (_, member) => new ReceiveChannel(object, member, this.context, isFormer),
        ),
      );
    this.channels = open(false);
    this.former = open(true);
    this.echoed = Float64Array.from({ length: objects.length * settings.slots }, (_, i) =>
      board.datagram(Math.floor(i / settings.slots)),
    );
    this.heardAt = Float64Array.from(this.peers, (peer) => peer.heardAt);
    this.askedAt = new Float64Array(settings.slots).fill(Number.NEGATIVE_INFINITY);
    this.refusing = new Float64Array(settings.slots);
    this.onAlarm = options.onAlarm ?? (() => {});
    this.closing = new Closing({
      settings,
      self: this.self,
      board,
      members: this.members,
      peers: this.peers,
      counts,
      present: this.channels,
      former: this.former,
      onFrozen: (slot) => this.forget(slot),
      onEnd: (now) => this.announce(now),
      onAlarm: this.onAlarm,
    });
    this.forgetStrangers();
    this.ackRequests = Int32Array.from(objects, (_, object) => board.ackRequests(object));
    this.rung = this.ackRequests.slice();
  }

  /**
   * Reads one datagram, received at `now` (ms). `coarse`: the time in coarse seconds, for the state
   * objects. `wallMs`: the wall clock (Unix ms), which is compared with the sender's; 0: not
   * compared. Returns why the datagram was refused, or null.
   */
  receive(message: Uint8Array, now: number, coarse: number, wallMs = 0): Reject | null {
    const { counts } = this;
    counts.row[counts.at.state_rx_messages]++;
    counts.row[counts.at.state_rx_bytes] += message.byteLength;
    this.refresh();
    if (this.closing.isUnfinished) this.closing.finish(now);
    const reject = this.reader.read(message) ?? this.check(now);
    if (reject !== null) {
      counts.add(`state_rejected_${reject}`, 1);
      return reject;
    }
    const { object } = this.reader;
    const member = this.members.slotOf(this.reader.sender);
    const isLatest = this.isLatest(member);
    this.hear(member, now, isLatest);
    const told = this.takeEntries(member, now);
    this.compareClocks(member, now, wallMs);
    if (isLatest) this.takeDigest(member);
    this.channels[object][member].takeUnits(this.reader, this.reader.excludes(this.self), now, coarse);
    if (this.reader.unitsOrigin !== this.reader.sender) this.takeRepair(now, coarse);
    this.board.writePeer(member, this.peers[member]);
    this.board.noteChange(object);
    const ackRequests = this.reader.units > 0 && this.requestAck(object, now);
    if (ackRequests || (told && this.board.logFull(object))) this.ring();
    return null;
  }

  /** Does what is due, and reads what the main thread wrote. Call it several times a second. */
  tick(now: number): void {
    this.refresh();
    this.echoAge.look(now);
    if (this.closing.isUnfinished) this.closing.finish(now);
    if (!this.context.joining) this.closing.tick(now);
  }

  /** Resumes from the board: the vectors were written there with the state that a donor gave us. */
  reload(): void {
    for (const channels of [...this.channels, ...this.former]) for (const channel of channels) channel.reload();
    this.closing.reload();
    this.forgetStrangers();
  }

  /** Bytes of units that wait for an earlier unit. */
  get bufferedBytes(): number {
    let bytes = 0;
    for (const members of [...this.channels, ...this.former])
      for (const channel of members) bytes += channel.bufferedBytes;
    return bytes;
  }

  /**
   * The checks that depend on the members. It changes only which incarnation of the sender may be
   * believed next.
   */
  private check(now: number): Reject | null {
    const { reader, settings, board, members } = this;
    if (reader.view !== settings.view) return 'view';
    const member = members.slotOf(reader.sender);
    if (member === this.self) return 'own';
    if (member < 0 || !members.isMember(member)) return 'sender';
    if (reader.incarnation <= members.dead(member)) {
      this.noteEstranged(member);
      return 'incarnation';
    }
    const echoed = this.echoed[reader.object * this.peers.length + member];
    this.answers = false;
    for (let i = 0; i < reader.entries; i++) {
      reader.entry(i);
      if (reader.origin !== settings.self || reader.originIncarnation !== board.incarnation) continue;
      const sent = board.sequence(reader.object);
      const highest = reader.ranges > 0 ? reader.rangeEnd(reader.ranges - 1) : reader.contiguous;
      if (highest > sent || reader.echoDatagram > board.datagram(reader.object)) return 'ack_unsent';
      if (reader.echoValid && reader.echoDatagram > echoed) this.answers = true;
    }
    // Last, because only a message that passes every other check proves that its sender is alive.
    return this.believe(member, reader.incarnation, now);
  }

  /**
   * Whether messages of this incarnation of the member are accepted. Ends the incarnation before a
   * new one.
   */
  private believe(member: number, incarnation: number, now: number): Reject | null {
    const { closing, beliefs, context, answers } = this;
    const incarnations = closing.incarnationsBySlot[member];
    const answered = this.peers[member].hasAnswered;
    const heardAt = this.heardAt[member];
    const belief = beliefs.judge(member, incarnations, incarnation, heardAt, now, answered, answers, context.joining);
    if (belief === Belief.NOT) {
      if (incarnation === incarnations.former || incarnations.isOver(incarnation)) this.noteEstranged(member);
      else this.askForAnswer(member, now);
      return 'incarnation';
    }
    if (belief !== Belief.PRESENT || this.isLatest(member)) this.heardAt[member] = now;
    if (belief === Belief.PRESENT) return null;
    if (belief === Belief.NEW && incarnations.current !== 0) this.counts.add('state_rx_restarts', 1);
    if (context.joining) closing.replace(member, incarnation);
    else if (!(belief === Belief.NEW ? closing.begin(member, incarnation, now) : closing.admit(member, now)))
      return 'unclosed';
    // Answer at once: members wait for the answer before they believe an incarnation or begin
    // (incarnations.ts, joining.ts).
    this.announce(now);
    return null;
  }

  /** Sends a message, which an incarnation that is not believed yet can answer to prove itself. */
  private askForAnswer(member: number, now: number): void {
    if (now - this.askedAt[member] < this.settings.keepaliveMs * ASKING_SPACING) return;
    this.askedAt[member] = now;
    this.announce(now);
  }

  /**
   * Handles a message of an incarnation that has ended here. If it says that ours has ended too,
   * both sides refuse each other, and neither learns from messages what the other has: only an
   * operator can decide which side restarts. Reported once for each incarnation.
   */
  private noteEstranged(member: number): void {
    const { reader, settings, board, members } = this;
    if (this.refusing[member] === reader.incarnation) return;
    for (let i = 0; i < reader.entries; i++) {
      reader.entry(i);
      if (reader.origin !== settings.self || reader.originIncarnation !== board.incarnation) continue;
      if ((reader.entryFlags & FROZEN) === 0) continue;
      this.refusing[member] = reader.incarnation;
      this.counts.add('state_members_estranged', 1);
      this.onAlarm(
        `${members.name(member)} is evicted here, and this instance is evicted there: both sides go on alone, and refuse each other's messages; restart the instances of one side, which then take the state of the other`,
        member,
      );
      return;
    }
  }

  /**
   * Forgets incarnations that we heard and that the donor did not know as the present ones: they
   * must be heard again.
   */
  private forgetStrangers(): void {
    for (let slot = 0; slot < this.peers.length; slot++)
      if (this.peers[slot].incarnation !== this.closing.incarnationsBySlot[slot].current) this.forget(slot);
  }

  /**
   * Whether the current message is later than all earlier ones of its sender and object. Only such
   * a message proves that the sender is alive. A late one proves nothing new, and may be a
   * recording.
   */
  private isLatest(member: number): boolean {
    const { object, datagram } = this.reader;
    return datagram > this.channels[object][member].reception.datagram;
  }

  /** Notes that the member is alive. */
  private hear(member: number, now: number, isLatest: boolean): void {
    const peer = this.peers[member];
    const { incarnation, flags, speaks } = this.reader;
    // An incarnation goes from JOINING to READY to LEAVING and never back, so a late or replayed
    // message, however old, cannot undo what a later one said.
    if (peer.incarnation !== incarnation || rankOf(flags) > rankOf(peer.flags)) peer.flags = flags;
    if (this.answers) peer.setAnswered();
    if (isLatest || peer.incarnation !== incarnation) peer.heardAt = now;
    peer.incarnation = incarnation;
    peer.speaks = speaks;
  }

  private takeDigest(member: number): void {
    const { digest, reader } = this;
    digest.set(reader.vectorHash, reader.digest);
    if (digest.isReplicated) this.board.writeDigest(reader.object, member, digest);
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

  /** Reads what the main thread wrote: the members, and the status of this instance. */
  private refresh(): void {
    this.context.joining = (this.board.status & PeerFlag.JOINING) !== 0;
    if (this.members.refresh()) this.noteMembers();
  }

  /** Clears each slot that now belongs to another member. */
  private noteMembers(): void {
    this.context.keeping = this.members.members > 2;
    for (let slot = 0; slot < this.ids.length; slot++) {
      const id = this.members.id(slot);
      if (this.ids[slot] === id) continue;
      if (this.ids[slot] !== 0) {
        this.closing.forget(slot);
        this.forget(slot);
        this.skews[slot] = new ClockSkew();
      }
      this.ids[slot] = id;
    }
  }

  /** Sends every object's vectors soon, so that the other members hear of what has changed. */
  private announce(now: number): void {
    for (let object = 0; object < this.channels.length; object++) this.requestAck(object, now);
    this.ring();
  }

  private forget(slot: number): void {
    this.vectors.forget(slot);
    this.roundTrips[slot] = new RoundTrip();
    this.peers[slot].floats.fill(0);
    this.board.writePeer(slot, this.peers[slot]);
    for (let object = 0; object < this.channels.length; object++) this.board.noteChange(object);
  }

  /** Reads the member's entries. Returns whether one of them acknowledges units of ours. */
  private takeEntries(member: number, now: number): boolean {
    const { reader } = this;
    let told = false;
    for (let i = 0; i < reader.entries; i++) {
      reader.entry(i);
      if (reader.origin === this.settings.self) {
        if (this.takeAcknowledgement(member, now)) told = true;
        continue;
      }
      const origin = this.members.slotOf(reader.origin);
      if (origin < 0) continue;
      if ((reader.entryFlags & FROZEN) !== 0) this.takeFormer(member, origin, now);
      else if (origin !== member) this.vectors.take(reader, member, origin);
    }
    return told;
  }

  /**
   * Reads the current entry, which is about us. Returns whether it acknowledges units of this
   * incarnation.
   */
  private takeAcknowledgement(member: number, now: number): boolean {
    const { reader, board } = this;
    const ours = reader.originIncarnation === board.incarnation;
    if (reader.originIncarnation > board.incarnation && reader.originIncarnation < INCARNATION_MAX)
      board.setOutrun(reader.originIncarnation);
    if ((reader.entryFlags & FROZEN) !== 0) {
      if (ours) board.setDeclaredDead();
      // The donor of our snapshot may not have known our former incarnation, or had less of it.
      else this.takeFormer(member, this.self, now);
      return false;
    }
    if (!ours || !this.vectors.take(reader, member, this.self)) {
      this.counts.add('state_rx_acks_stale', 1);
      return false;
    }
    const echo = reader.object * this.peers.length + member;
    if (reader.echoValid && reader.echoDatagram > this.echoed[echo]) {
      this.echoed[echo] = reader.echoDatagram;
      const us = (stampOf(now) - reader.echoStamp - reader.echoDelayUs) >>> 0;
      const isOld = this.echoAge.isOld(reader.object, reader.echoDatagram, now);
      if (!isOld && us <= ROUND_TRIP_US_MAX) this.roundTrips[member].sample(us / 1000, now, this.peers[member]);
    }
    return true;
  }

  /** Reads the current entry, which says that an incarnation of `origin` has ended. */
  private takeFormer(member: number, origin: number, now: number): void {
    if (this.context.joining) return;
    const grew = this.vectors.takeFormer(this.reader, member, origin);
    this.closing.hearFrozen(origin, this.reader.originIncarnation, grew, now);
    const { object } = this.reader;
    this.theirs.clear();
    this.board.readFormerVector(object, member, origin, this.theirs);
    if (this.former[object][origin].adopt(this.theirs) && this.requestAck(object, now)) this.ring();
    // The send thread determines what the member lacks.
    if (grew) this.ring();
  }

  /**
   * Handles a message that carries units of a former incarnation of a member other than its sender.
   */
  private takeRepair(now: number, coarse: number): void {
    const { reader, closing } = this;
    const origin = this.members.slotOf(reader.unitsOrigin);
    if (origin < 0 || closing.incarnationsBySlot[origin].former !== reader.unitsIncarnation) {
      this.counts.add('state_rx_units_refused', reader.units);
      return;
    }
    if (!this.former[reader.object][origin].repair(reader, coarse)) return;
    closing.hearRepair(origin, now);
  }

  /** Prunes the foreign log: deletes the units that every member has. */
  private prune(object: number, origin: number): void {
    const { current, former } = this.closing.incarnationsBySlot[origin];
    const formerSafe = former === 0 ? Number.MAX_SAFE_INTEGER : this.closing.formerSafeThrough(object, origin);
    this.context.foreign[object][origin].prune(
      current,
      this.vectors.safeThrough(object, origin, current, (member) => this.closing.takesPart(member)),
      former,
      formerSafe,
    );
  }

  /**
   * Notes that an acknowledgement is due. Returns whether the send thread must be woken; the
   * board's comment says why none is missed.
   */
  private requestAck(object: number, now: number): boolean {
    const ackRequests = (this.ackRequests[object] + 1) | 0;
    this.ackRequests[object] = ackRequests;
    this.board.setAckRequests(object, ackRequests);
    if (((this.board.served(object) - this.rung[object]) | 0) < 0) return false;
    this.rung[object] = ackRequests;
    this.board.setOwedAt(object, now);
    return true;
  }
}

/** JOINING, then READY, then LEAVING. */
function rankOf(flags: number): number {
  if ((flags & PeerFlag.LEAVING) !== 0) return 2;
  return (flags & PeerFlag.JOINING) !== 0 ? 0 : 1;
}

function skewProblem(name: string, ms: number, level: SkewLevel): string {
  const seconds = (Math.abs(ms) / 1000).toFixed(1);
  const consequence =
    level === 2
      ? `that is more than the ${CLOCK_SKEW_GUARD_S} s which state objects allow for: entries may end at one member and not at another`
      : `state objects allow for ${CLOCK_SKEW_GUARD_S} s`;
  return `the clock of ${name} is ${seconds} s ${ms > 0 ? 'ahead of' : 'behind'} ours (${consequence}); look after its time service and ours`;
}
