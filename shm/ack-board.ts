/**
 * The acknowledgement board: how the threads of an instance share the state of replication. It is
 * level-triggered and has no queue that could fill. Each side reads the other's latest state when
 * it needs it. A thread that replaces a dead one finds here what its predecessor knew.
 *
 *     header                                     objects, members, our incarnation            written once, at creation
 *                                                status: JOINING, READY or LEAVING            written by main
 *                                                declaredDead, outrun                         written by the receive thread
 *     per object: line of the receive thread     ackRequests, ackRequestedAt, changes
 *                 line of the send thread        served, logFull, numbered, sequence, datagram
 *     per (object, origin): cell `reception`     what we have of that origin's present incarnation  written by the receive thread
 *                           cell `former`        what we have of its former incarnation             written by the receive thread
 *     per (object, member, origin): cell `vector`        what that member has of that origin  written by the receive thread
 *                                   cell `formerVector`  …of the origin's former incarnation  written by the receive thread
 *     per member:           cell `peer`          incarnation, last heard, round trips, flags  written by the receive thread
 *                           cell `incarnations`  its incarnations: believed, ended            written by the receive thread
 *     per (object, member): cell `attachment`    its state for us as a sender                 written by the send thread
 *     per (object, member): cell `digest`        of its content, at which vector              written by the receive thread
 *                           …our own             sent in keepalives                           written by main
 *
 * Members (*slots*) and objects are indices. Our own cells stay empty, except that vectors about
 * ourselves as origin are what the members acknowledged. Times are `monotonicMs()`, one clock for
 * all threads.
 *
 * **Memory.** A vector cell has 2.2 KB, so that it can hold `MAX_RANGES`, and an object has 2 n (n
 * + 1) of them: 55 KB for 3 members, 310 KB for 8, 18.5 MB for 64. The half for former
 * incarnations, and slots without a member, are never touched and so cost no memory.
 *
 * | word       | meaning                                                                                                 |
 * | ---------- | ------------------------------------------------------------------------------------------------------- |
 * | `status`   | bits of `PeerFlag`; 0 is READY. The send thread puts it in every message                               |
 * | `declaredDead` | 1: the others have declared our incarnation dead; we must restart                                       |
 * | `outrun`   | highest incarnation of our own slot that a member reported, above our own; 0: none                      |
 * | `ackRequests` | messages received so far that ask for an acknowledgement                                                |
 * | `served`   | value of `ackRequests` up to which the send thread has acknowledged                                            |
 * | `changes`  | number of writes to any cell of the object, or of a peer: if it is equal, the send thread looks no further |
 * | `logFull`   | the send thread's log is full: ring its doorbell when an acknowledgement comes                          |
 * | `numbered` | highest sequence number given to a record; stored before the record's ring is released, so a record is always in one of the two |
 * | `sequence`, `datagram` | highest numbers given to the network; stored before the system call that sends them, so a thread that sees an answer sees them (TSO; the answer crossed the kernel) |
 *
 * `ackRequests` and `served` are each stored before the other side's word is read, both with
 * sequentially consistent `Atomics`. So either the receive thread sees that its last ring was
 * served and rings again, or the send thread sees the larger `ackRequests`.
 */

import {
  ATTACHMENT_FLOATS,
  type AttachmentRecord,
  DIGEST_FLOATS,
  type DigestRecord,
  INCARNATIONS_FLOATS,
  PEER_FLOATS,
  type PeerRecord,
  type SlotIncarnations,
  VECTOR_FLOATS,
  type VectorRecord,
} from './board-records.js';
import { Region } from './region.js';
import { BYTES_PER_LINE, LINE, roundUp, struct } from './struct.js';
import { VersionedCells } from './versioned.js';

export { MAX_RANGES, PeerFlag, PeerRecord, VectorRecord } from './board-records.js';

const HEADER = struct({
  objects: 1,
  members: 1,
  incarnation: 2,
  status: LINE,
  declaredDead: LINE,
  unused: 1,
  outrun: 2,
});
const CHANNEL = struct({
  ackRequests: LINE,
  changes: 1,
  ackRequestedAt: 2,
  served: LINE,
  logFull: 1,
  numbered: 2,
  sequence: 2,
  datagram: 2,
});

interface Places {
  readonly channels: number;
  readonly vectors: number;
  readonly peers: number;
  readonly incarnations: number;
  readonly attachments: number;
  readonly digests: number;
  readonly bytes: number;
}

/**
 * Number of vector cells of one object: what we have of each origin's present and former
 * incarnation, and what each member has of them.
 */
function vectorsPerObject(members: number): number {
  return 2 * members * (members + 1);
}

function places(objects: number, members: number): Places {
  const channels = roundUp(HEADER.bytes, BYTES_PER_LINE);
  const vectors = channels + objects * CHANNEL.bytes;
  const peers = vectors + VersionedCells.bytes(objects * vectorsPerObject(members), VECTOR_FLOATS);
  const incarnations = peers + VersionedCells.bytes(members, PEER_FLOATS);
  const attachments = incarnations + VersionedCells.bytes(members, INCARNATIONS_FLOATS);
  const digests = attachments + VersionedCells.bytes(objects * members, ATTACHMENT_FLOATS);
  const bytes = digests + VersionedCells.bytes(objects * members, DIGEST_FLOATS);
  return { channels, vectors, peers, incarnations, attachments, digests, bytes };
}

/**
 * Memory for a board. `incarnation`: a whole number, 1 … 2^53−1, new at every start of the
 * instance. Main calls it once. Throws if the incarnation is out of range.
 */
export function createAckBoard(objects: number, members: number, incarnation: number): SharedArrayBuffer {
  if (!Number.isSafeInteger(incarnation) || incarnation < 1) throw new RangeError(`incarnation ${incarnation}`);
  const buffer = new SharedArrayBuffer(places(objects, members).bytes);
  const header = new Int32Array(buffer, 0, HEADER.words);
  header[HEADER.at.objects] = objects;
  header[HEADER.at.members] = members;
  new Float64Array(buffer, HEADER.at.incarnation * 4, 1)[0] = incarnation;
  return buffer;
}

export class AckBoard {
  readonly objects: number;
  readonly members: number;
  private readonly header: Int32Array;
  private readonly headerF64: Float64Array;
  private readonly i32: Int32Array;
  private readonly f64: Float64Array;
  private readonly vectors: VersionedCells;
  private readonly peers: VersionedCells;
  private readonly incarnations: VersionedCells;
  private readonly attachments: VersionedCells;
  private readonly digests: VersionedCells;

  constructor(buffer: SharedArrayBuffer) {
    const header = new Int32Array(buffer, 0, HEADER.words);
    this.objects = header[HEADER.at.objects];
    this.members = header[HEADER.at.members];
    this.headerF64 = new Float64Array(buffer, 0, HEADER.words >> 1);
    const place = places(this.objects, this.members);
    if (buffer.byteLength !== place.bytes) throw new Error('not an acknowledgement board');
    const channels = new Region(buffer, place.channels, this.objects * CHANNEL.bytes);
    this.i32 = channels.i32();
    this.f64 = channels.f64();
    const cells = (at: number, count: number, floats: number): VersionedCells =>
      new VersionedCells(new Region(buffer, at, VersionedCells.bytes(count, floats)), count, floats);
    this.header = header;
    this.vectors = cells(place.vectors, this.objects * vectorsPerObject(this.members), VECTOR_FLOATS);
    this.peers = cells(place.peers, this.members, PEER_FLOATS);
    this.incarnations = cells(place.incarnations, this.members, INCARNATIONS_FLOATS);
    this.attachments = cells(place.attachments, this.objects * this.members, ATTACHMENT_FLOATS);
    this.digests = cells(place.digests, this.objects * this.members, DIGEST_FLOATS);
  }

  // Written by main.

  /**
   * Changes our incarnation, because the members know a later one of our slot. Only while we are
   * joining, have sent no unit, and no replication thread runs. Throws if the new one is not above
   * the present one.
   */
  raiseIncarnation(incarnation: number): void {
    if (!Number.isSafeInteger(incarnation) || incarnation <= this.incarnation)
      throw new RangeError(`incarnation ${incarnation} is not above ${this.incarnation}`);
    this.headerF64[HEADER.at.incarnation >> 1] = incarnation;
  }

  /** Bits of `PeerFlag`; 0: READY. */
  setStatus(status: number): void {
    Atomics.store(this.header, HEADER.at.status, status);
  }

  // Written by the receive thread.

  writeReception(object: number, origin: number, record: VectorRecord): void {
    this.vectors.write(this.ownCell(object, origin), record.floats, record.used);
  }

  writeFormer(object: number, origin: number, record: VectorRecord): void {
    this.vectors.write(this.ownCell(object, origin) + 1, record.floats, record.used);
  }

  writeVector(object: number, member: number, origin: number, record: VectorRecord): void {
    this.vectors.write(this.memberCell(object, member, origin), record.floats, record.used);
  }

  writeFormerVector(object: number, member: number, origin: number, record: VectorRecord): void {
    this.vectors.write(this.memberCell(object, member, origin) + 1, record.floats, record.used);
  }

  writeIncarnations(member: number, record: SlotIncarnations): void {
    this.incarnations.write(member, record.floats, INCARNATIONS_FLOATS);
  }

  /** The others have declared our incarnation dead. */
  setDeclaredDead(): void {
    Atomics.store(this.header, HEADER.at.declaredDead, 1);
  }

  /** A member reports a later incarnation of our own slot than ours. */
  setOutrun(incarnation: number): void {
    if (incarnation > this.headerF64[HEADER.at.outrun >> 1]) this.headerF64[HEADER.at.outrun >> 1] = incarnation;
  }

  writePeer(member: number, record: PeerRecord): void {
    this.peers.write(member, record.floats, PEER_FLOATS);
  }

  noteChange(object: number): void {
    const at = object * CHANNEL.words + CHANNEL.at.changes;
    Atomics.store(this.i32, at, (this.i32[at] + 1) | 0);
  }

  setAckRequests(object: number, ackRequests: number): void {
    Atomics.store(this.i32, object * CHANNEL.words + CHANNEL.at.ackRequests, ackRequests);
  }

  /**
   * When the first message came that the last ring of the doorbell was for. Only a hint for the
   * acknowledgement delay, so the store is plain.
   */
  setOwedAt(object: number, now: number): void {
    this.f64[(object * CHANNEL.words + CHANNEL.at.ackRequestedAt) >> 1] = now;
  }

  // Written by the send thread.

  setServed(object: number, ackRequests: number): void {
    Atomics.store(this.i32, object * CHANNEL.words + CHANNEL.at.served, ackRequests);
  }

  setLogFull(object: number, logFull: boolean): void {
    Atomics.store(this.i32, object * CHANNEL.words + CHANNEL.at.logFull, logFull ? 1 : 0);
  }

  setNumbered(object: number, sequence: number): void {
    this.f64[(object * CHANNEL.words + CHANNEL.at.numbered) >> 1] = sequence;
  }

  setSequence(object: number, sequence: number): void {
    this.f64[(object * CHANNEL.words + CHANNEL.at.sequence) >> 1] = sequence;
  }

  setDatagram(object: number, datagram: number): void {
    this.f64[(object * CHANNEL.words + CHANNEL.at.datagram) >> 1] = datagram;
  }

  writeAttachment(object: number, member: number, record: AttachmentRecord): void {
    this.attachments.write(object * this.members + member, record.floats, ATTACHMENT_FLOATS);
  }

  /** What `member` reports about its content. Main writes the cell of our own slot. */
  writeDigest(object: number, member: number, record: DigestRecord): void {
    this.digests.write(object * this.members + member, record.floats, DIGEST_FLOATS);
  }

  // Read by anyone.

  /** Returns the cell's version. 0: never written. */
  readDigest(object: number, member: number, into: DigestRecord): number {
    return this.digests.read(object * this.members + member, into.floats);
  }

  /** Our own incarnation. */
  get incarnation(): number {
    return this.headerF64[HEADER.at.incarnation >> 1];
  }

  /** Highest incarnation of our own slot, above ours, that a member reported. 0: none. */
  get outrun(): number {
    const incarnation = this.headerF64[HEADER.at.outrun >> 1];
    return incarnation > this.incarnation ? incarnation : 0;
  }

  get status(): number {
    return Atomics.load(this.header, HEADER.at.status);
  }

  get isDeclaredDead(): boolean {
    return Atomics.load(this.header, HEADER.at.declaredDead) !== 0;
  }

  /** Copies the cell into `into` and returns its version. 0: never written. */
  readReception(object: number, origin: number, into: VectorRecord): number {
    return this.vectors.read(this.ownCell(object, origin), into.floats);
  }

  receptionVersion(object: number, origin: number): number {
    return this.vectors.version(this.ownCell(object, origin));
  }

  readFormer(object: number, origin: number, into: VectorRecord): number {
    return this.vectors.read(this.ownCell(object, origin) + 1, into.floats);
  }

  formerVersion(object: number, origin: number): number {
    return this.vectors.version(this.ownCell(object, origin) + 1);
  }

  /** What the member reported to have of the origin's present incarnation. */
  readVector(object: number, member: number, origin: number, into: VectorRecord): number {
    return this.vectors.read(this.memberCell(object, member, origin), into.floats);
  }

  vectorVersion(object: number, member: number, origin: number): number {
    return this.vectors.version(this.memberCell(object, member, origin));
  }

  /**
   * What the member reported to have of the origin's former incarnation, for which it accepts only
   * repairs.
   */
  readFormerVector(object: number, member: number, origin: number, into: VectorRecord): number {
    return this.vectors.read(this.memberCell(object, member, origin) + 1, into.floats);
  }

  formerVectorVersion(object: number, member: number, origin: number): number {
    return this.vectors.version(this.memberCell(object, member, origin) + 1);
  }

  readIncarnations(member: number, into: SlotIncarnations): number {
    return this.incarnations.read(member, into.floats);
  }

  readAttachment(object: number, member: number, into: AttachmentRecord): number {
    return this.attachments.read(object * this.members + member, into.floats);
  }

  readPeer(member: number, into: PeerRecord): number {
    return this.peers.read(member, into.floats);
  }

  changes(object: number): number {
    return Atomics.load(this.i32, object * CHANNEL.words + CHANNEL.at.changes);
  }

  ackRequests(object: number): number {
    return Atomics.load(this.i32, object * CHANNEL.words + CHANNEL.at.ackRequests);
  }

  ackRequestedAt(object: number): number {
    return this.f64[(object * CHANNEL.words + CHANNEL.at.ackRequestedAt) >> 1];
  }

  served(object: number): number {
    return Atomics.load(this.i32, object * CHANNEL.words + CHANNEL.at.served);
  }

  logFull(object: number): boolean {
    return Atomics.load(this.i32, object * CHANNEL.words + CHANNEL.at.logFull) !== 0;
  }

  /** Highest sequence number given to a record of ours, sent or not. 0: none. */
  numbered(object: number): number {
    return this.f64[(object * CHANNEL.words + CHANNEL.at.numbered) >> 1];
  }

  /** Highest sequence number of ours given to the network. 0: none. */
  sequence(object: number): number {
    return this.f64[(object * CHANNEL.words + CHANNEL.at.sequence) >> 1];
  }

  /** Highest datagram number of ours given to the network. 0: none. */
  datagram(object: number): number {
    return this.f64[(object * CHANNEL.words + CHANNEL.at.datagram) >> 1];
  }

  private ownCell(object: number, origin: number): number {
    return object * vectorsPerObject(this.members) + 2 * origin;
  }

  private memberCell(object: number, member: number, origin: number): number {
    return object * vectorsPerObject(this.members) + 2 * ((member + 1) * this.members + origin);
  }
}
