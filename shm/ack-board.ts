/**
 * The acknowledgement board: what the send and the receive thread of an instance tell each other. It is level-triggered:
 * no queue that could fill, each side reads the other's latest state when it needs it, and a thread that died and was
 * started again finds here what its predecessor knew.
 *
 *     header                                        objects, members, our incarnation          written once, at creation
 *     per object: line of the receive thread        owed, owedAt, changes
 *                 line of the send thread           served, hungry, numbered, sequence, datagram
 *     per (object, member): cell `reception`        what we have of that origin                written by the receive thread
 *     per (object, member): cell `acknowledged`     what that member has of ours               written by the receive thread
 *     per member:           cell `peer`             incarnation, last heard, round trips       written by the receive thread
 *
 * Members and objects are indices; our own cells stay empty. Times are `monotonicMs()`, one clock for all threads.
 *
 * | word       | meaning                                                                                                 |
 * | ---------- | ------------------------------------------------------------------------------------------------------- |
 * | `owed`     | messages received so far that ask for an acknowledgement                                                |
 * | `served`   | value of `owed` up to which the send thread has acknowledged                                            |
 * | `changes`  | times any cell of the object, or of a peer, was written: the send thread looks no further if it is equal |
 * | `hungry`   | the send thread's log is full: ring its bell when an acknowledgement comes                              |
 * | `numbered` | highest sequence number given to a record; stored before the record's ring is released, so a record is always in one of the two |
 * | `sequence`, `datagram` | highest numbers given to the network; stored before the system call that sends them, so a thread that sees an answer sees them (TSO; the answer crossed the kernel) |
 *
 * `owed` and `served` are each stored before the other side's word is read, both with sequentially consistent `Atomics`:
 * so either the receive thread sees that its last ring was served and rings again, or the send thread sees more owed.
 */

import { Region } from './region.js';
import { BYTES_PER_LINE, LINE, roundUp, struct } from './struct.js';
import { VersionedCells } from './versioned.js';

const HEADER = struct({ objects: 1, members: 1, incarnation: 2 });
const CHANNEL = struct({
  owed: LINE,
  changes: 1,
  owedAt: 2,
  served: LINE,
  hungry: 1,
  numbered: 2,
  sequence: 2,
  datagram: 2,
});

/** Out-of-order ranges a reception vector can hold; what would need more is not accepted. */
export const MAX_RANGES = 64;

const VECTOR = { incarnation: 0, contiguous: 1, highest: 2, datagram: 3, stamp: 4, arrival: 5, ranges: 6 } as const;
const VECTOR_FLOATS = VECTOR.ranges + 1 + 2 * MAX_RANGES;
const PEER = {
  incarnation: 0,
  heardAt: 1,
  latest: 2,
  minimum: 3,
  average: 4,
  smoothed: 5,
  variation: 6,
  samples: 7,
} as const;
const PEER_FLOATS = PEER.samples + 1;

/**
 * Which of one origin's sequence numbers one member has: everything through `contiguous`, and the ranges beyond it, in
 * ascending order, never touching each other. Fields that a kind of cell does not use stay 0.
 */
export class VectorRecord {
  readonly floats = new Float64Array(VECTOR_FLOATS);

  /** Incarnation the record speaks of; 0 while nothing is known. */
  get incarnation(): number {
    return this.floats[VECTOR.incarnation];
  }
  set incarnation(value: number) {
    this.floats[VECTOR.incarnation] = value;
  }
  get contiguous(): number {
    return this.floats[VECTOR.contiguous];
  }
  set contiguous(value: number) {
    this.floats[VECTOR.contiguous] = value;
  }
  /** Highest number the origin said it has sent. */
  get highest(): number {
    return this.floats[VECTOR.highest];
  }
  set highest(value: number) {
    this.floats[VECTOR.highest] = value;
  }
  /** Latest datagram number received on this channel. */
  get datagram(): number {
    return this.floats[VECTOR.datagram];
  }
  set datagram(value: number) {
    this.floats[VECTOR.datagram] = value;
  }
  /** That datagram's send timestamp, in its sender's microseconds. */
  get stamp(): number {
    return this.floats[VECTOR.stamp];
  }
  set stamp(value: number) {
    this.floats[VECTOR.stamp] = value;
  }
  /** When that datagram came, in our milliseconds. */
  get arrivalMs(): number {
    return this.floats[VECTOR.arrival];
  }
  set arrivalMs(value: number) {
    this.floats[VECTOR.arrival] = value;
  }
  get ranges(): number {
    return this.floats[VECTOR.ranges];
  }
  set ranges(value: number) {
    this.floats[VECTOR.ranges] = value;
  }

  /** First number of range `i`. */
  start(i: number): number {
    return this.floats[VECTOR.ranges + 1 + 2 * i];
  }
  /** Last number of range `i`. */
  end(i: number): number {
    return this.floats[VECTOR.ranges + 2 + 2 * i];
  }
  setRange(i: number, start: number, end: number): void {
    this.floats[VECTOR.ranges + 1 + 2 * i] = start;
    this.floats[VECTOR.ranges + 2 + 2 * i] = end;
  }

  get used(): number {
    return VECTOR.ranges + 1 + 2 * this.ranges;
  }

  has(sequence: number): boolean {
    if (sequence <= this.contiguous) return true;
    for (let i = 0; i < this.ranges; i++) {
      if (sequence < this.start(i)) return false;
      if (sequence <= this.end(i)) return true;
    }
    return false;
  }

  /** How many of the numbers through `highest` are not here. */
  missing(highest: number): number {
    let missing = Math.max(0, highest - this.contiguous);
    for (let i = 0; i < this.ranges; i++) missing -= this.end(i) - this.start(i) + 1;
    return Math.max(0, missing);
  }

  clear(): void {
    this.floats.fill(0);
  }
}

/** What is known of a member itself, over all objects. Times in milliseconds; round trips 0 while `samples` is 0. */
export class PeerRecord {
  readonly floats = new Float64Array(PEER_FLOATS);

  get incarnation(): number {
    return this.floats[PEER.incarnation];
  }
  set incarnation(value: number) {
    this.floats[PEER.incarnation] = value;
  }
  /** When a message of its present incarnation last came; meaningless while `incarnation` is 0. */
  get heardAt(): number {
    return this.floats[PEER.heardAt];
  }
  set heardAt(value: number) {
    this.floats[PEER.heardAt] = value;
  }
  get latest(): number {
    return this.floats[PEER.latest];
  }
  /** Over the sliding window of samples. */
  get minimum(): number {
    return this.floats[PEER.minimum];
  }
  /** Over the sliding window of samples. */
  get average(): number {
    return this.floats[PEER.average];
  }
  /** SRTT of RFC 6298. */
  get smoothed(): number {
    return this.floats[PEER.smoothed];
  }
  /** RTTVAR of RFC 6298. */
  get variation(): number {
    return this.floats[PEER.variation];
  }
  get samples(): number {
    return this.floats[PEER.samples];
  }

  setRoundTrip(latest: number, minimum: number, average: number, smoothed: number, variation: number): void {
    this.floats[PEER.latest] = latest;
    this.floats[PEER.minimum] = minimum;
    this.floats[PEER.average] = average;
    this.floats[PEER.smoothed] = smoothed;
    this.floats[PEER.variation] = variation;
    this.floats[PEER.samples]++;
  }
}

interface Places {
  readonly channels: number;
  readonly vectors: number;
  readonly peers: number;
  readonly bytes: number;
}

function places(objects: number, members: number): Places {
  const channels = roundUp(HEADER.bytes, BYTES_PER_LINE);
  const vectors = channels + objects * CHANNEL.bytes;
  const peers = vectors + VersionedCells.bytes(2 * objects * members, VECTOR_FLOATS);
  return { channels, vectors, peers, bytes: peers + VersionedCells.bytes(members, PEER_FLOATS) };
}

/** Memory for a board. `incarnation`: whole, 1 … 2^53−1, new at every start of the instance. Main thread, once. */
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
  /** Our own incarnation. */
  readonly incarnation: number;
  private readonly i32: Int32Array;
  private readonly f64: Float64Array;
  private readonly vectors: VersionedCells;
  private readonly peers: VersionedCells;

  constructor(buffer: SharedArrayBuffer) {
    const header = new Int32Array(buffer, 0, HEADER.words);
    this.objects = header[HEADER.at.objects];
    this.members = header[HEADER.at.members];
    this.incarnation = new Float64Array(buffer, HEADER.at.incarnation * 4, 1)[0];
    const place = places(this.objects, this.members);
    if (buffer.byteLength !== place.bytes) throw new Error('not an acknowledgement board');
    const channels = new Region(buffer, place.channels, this.objects * CHANNEL.bytes);
    this.i32 = channels.i32();
    this.f64 = channels.f64();
    this.vectors = new VersionedCells(
      new Region(buffer, place.vectors, place.peers - place.vectors),
      2 * this.objects * this.members,
      VECTOR_FLOATS,
    );
    this.peers = new VersionedCells(
      new Region(buffer, place.peers, place.bytes - place.peers),
      this.members,
      PEER_FLOATS,
    );
  }

  // Written by the receive thread.

  writeReception(object: number, member: number, record: VectorRecord): void {
    this.vectors.write(this.cell(object, member), record.floats, record.used);
  }

  writeAcknowledged(object: number, member: number, record: VectorRecord): void {
    this.vectors.write(this.cell(object, member) + 1, record.floats, record.used);
  }

  writePeer(member: number, record: PeerRecord): void {
    this.peers.write(member, record.floats, PEER_FLOATS);
  }

  noteChange(object: number): void {
    const at = object * CHANNEL.words + CHANNEL.at.changes;
    Atomics.store(this.i32, at, (this.i32[at] + 1) | 0);
  }

  setOwed(object: number, owed: number): void {
    Atomics.store(this.i32, object * CHANNEL.words + CHANNEL.at.owed, owed);
  }

  /** When the first message came that the last ring of the bell was for. A hint for the delay: plain. */
  setOwedAt(object: number, now: number): void {
    this.f64[(object * CHANNEL.words + CHANNEL.at.owedAt) >> 1] = now;
  }

  // Written by the send thread.

  setServed(object: number, owed: number): void {
    Atomics.store(this.i32, object * CHANNEL.words + CHANNEL.at.served, owed);
  }

  setHungry(object: number, hungry: boolean): void {
    Atomics.store(this.i32, object * CHANNEL.words + CHANNEL.at.hungry, hungry ? 1 : 0);
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

  // Read by anyone.

  /** Copies the cell into `into`; returns its version, 0 while it was never written. */
  readReception(object: number, member: number, into: VectorRecord): number {
    return this.vectors.read(this.cell(object, member), into.floats);
  }

  receptionVersion(object: number, member: number): number {
    return this.vectors.version(this.cell(object, member));
  }

  readAcknowledged(object: number, member: number, into: VectorRecord): number {
    return this.vectors.read(this.cell(object, member) + 1, into.floats);
  }

  readPeer(member: number, into: PeerRecord): number {
    return this.peers.read(member, into.floats);
  }

  changes(object: number): number {
    return Atomics.load(this.i32, object * CHANNEL.words + CHANNEL.at.changes);
  }

  owed(object: number): number {
    return Atomics.load(this.i32, object * CHANNEL.words + CHANNEL.at.owed);
  }

  owedAt(object: number): number {
    return this.f64[(object * CHANNEL.words + CHANNEL.at.owedAt) >> 1];
  }

  served(object: number): number {
    return Atomics.load(this.i32, object * CHANNEL.words + CHANNEL.at.served);
  }

  hungry(object: number): boolean {
    return Atomics.load(this.i32, object * CHANNEL.words + CHANNEL.at.hungry) !== 0;
  }

  /** Highest sequence number given to a record of ours, sent or not; 0 at first. */
  numbered(object: number): number {
    return this.f64[(object * CHANNEL.words + CHANNEL.at.numbered) >> 1];
  }

  /** Highest sequence number of ours given to the network; 0 at first. */
  sequence(object: number): number {
    return this.f64[(object * CHANNEL.words + CHANNEL.at.sequence) >> 1];
  }

  /** Highest datagram number of ours given to the network; 0 at first. */
  datagram(object: number): number {
    return this.f64[(object * CHANNEL.words + CHANNEL.at.datagram) >> 1];
  }

  private cell(object: number, member: number): number {
    return 2 * (object * this.members + member);
  }
}
