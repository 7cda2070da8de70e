/**
 * The content of the cells of the acknowledgement board, as records that a thread fills from a cell
 * or writes to one: vectors, peers, the incarnations of a slot, and the state of a member for us as
 * a sender. Numbers only: see versioned.ts.
 */

/**
 * Maximum out-of-order ranges in a reception vector. A message that would need more is not
 * accepted.
 */
export const MAX_RANGES = 64;

const VECTOR = {
  incarnation: 0,
  contiguous: 1,
  highest: 2,
  datagram: 3,
  stamp: 4,
  arrival: 5,
  floor: 6,
  excluded: 7,
  flags: 9,
  folded: 10,
  ranges: 11,
} as const;
export const VECTOR_FLOATS = VECTOR.ranges + 1 + 2 * MAX_RANGES;
const PEER = {
  incarnation: 0,
  heardAt: 1,
  latest: 2,
  minimum: 3,
  average: 4,
  smoothed: 5,
  variation: 6,
  samples: 7,
  flags: 8,
  speaks: 9,
  skew: 10,
  skewSamples: 11,
  answered: 12,
} as const;
export const PEER_FLOATS = PEER.answered + 1;

/**
 * The status of an instance, which it sends in every message. It is `READY` while neither bit is
 * set.
 */
export const PeerFlag = { JOINING: 1, LEAVING: 2 } as const;

/** How many closed incarnations of one slot are remembered one by one. */
export const BARRED_MAX = 8;
const INCARNATIONS = {
  current: 0,
  former: 1,
  closed: 2,
  pending: 3,
  frozenAt: 4,
  closedThrough: 5,
  barred: 6,
} as const;
export const INCARNATIONS_FLOATS = INCARNATIONS.barred + 1 + BARRED_MAX;

const ATTACHMENT = { state: 0, incarnation: 1, backlogRecords: 2, backlogBytes: 3, cut: 4 } as const;
export const ATTACHMENT_FLOATS = ATTACHMENT.cut + 1;

/**
 * In an entry of a vector: the member that sent it retains its own units for the entry's origin.
 */
export const VECTOR_RETAINS = 1;
/**
 * In our reception of an origin: it has detached us, and sends what we lack in units for us alone.
 */
export const VECTOR_DETACHED = 2;

/**
 * Which of one origin's sequence numbers one member has: everything up to `contiguous`, and the
 * ranges beyond it, in ascending order and never adjacent. Fields that a kind of cell does not use
 * stay 0.
 */
export class VectorRecord {
  readonly floats = new Float64Array(VECTOR_FLOATS);

  /** Incarnation that the record is about. 0: nothing is known. */
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
  /** Highest number that the origin reported to have sent. */
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
  /** When that datagram arrived, in our milliseconds. */
  get arrivalMs(): number {
    return this.floats[VECTOR.arrival];
  }
  set arrivalMs(value: number) {
    this.floats[VECTOR.arrival] = value;
  }
  /** Lowest number that the origin reported that it can still send us. */
  get floor(): number {
    return this.floats[VECTOR.floor];
  }
  set floor(value: number) {
    this.floats[VECTOR.floor] = value;
  }
  /** Bits `VECTOR_…`: what was reported beside the numbers. */
  get flags(): number {
    return this.floats[VECTOR.flags];
  }
  set flags(value: number) {
    this.floats[VECTOR.flags] = value;
  }
  /** Lowest number that came in a folded unit of the present backlog. 0: none came. */
  get folded(): number {
    return this.floats[VECTOR.folded];
  }
  set folded(value: number) {
    this.floats[VECTOR.folded] = value;
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

  /** Highest number that was received. */
  get last(): number {
    return this.ranges === 0 ? this.contiguous : this.end(this.ranges - 1);
  }

  /** Mask of slots that the origin does not address: 32 slots a word. */
  excluded(word: 0 | 1): number {
    return this.floats[VECTOR.excluded + word];
  }
  setExcluded(low: number, high: number): void {
    this.floats[VECTOR.excluded] = low;
    this.floats[VECTOR.excluded + 1] = high;
  }
  excludes(slot: number): boolean {
    return ((this.floats[VECTOR.excluded + (slot >>> 5)] >>> (slot & 31)) & 1) !== 0;
  }

  /** Whether both have the same numbers of the same incarnation. */
  equals(other: VectorRecord): boolean {
    if (this.incarnation !== other.incarnation || this.contiguous !== other.contiguous) return false;
    if (this.ranges !== other.ranges) return false;
    for (let i = 0; i < this.ranges; i++)
      if (this.start(i) !== other.start(i) || this.end(i) !== other.end(i)) return false;
    return true;
  }

  /** How many of the numbers up to `highest` were not received. */
  missing(highest: number): number {
    let missing = Math.max(0, highest - this.contiguous);
    for (let i = 0; i < this.ranges; i++) missing -= this.end(i) - this.start(i) + 1;
    return Math.max(0, missing);
  }

  clear(): void {
    this.floats.fill(0);
  }
}

/** Smallest allowance for variation. The clock and the scheduler are not more exact. */
const GRANULARITY_MS = 1;

/**
 * What is known about a peer itself, over all objects. Times are in milliseconds. Round trips are 0
 * while `samples` is 0.
 */
export class PeerRecord {
  readonly floats = new Float64Array(PEER_FLOATS);

  get incarnation(): number {
    return this.floats[PEER.incarnation];
  }
  set incarnation(value: number) {
    this.floats[PEER.incarnation] = value;
  }
  /** When a message of its present incarnation last came. Undefined while `incarnation` is 0. */
  get heardAt(): number {
    return this.floats[PEER.heardAt];
  }
  set heardAt(value: number) {
    this.floats[PEER.heardAt] = value;
  }
  get latest(): number {
    return this.floats[PEER.latest];
  }
  /** Minimum over the sliding window of samples. */
  get minimum(): number {
    return this.floats[PEER.minimum];
  }
  /** Average over the sliding window of samples. */
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
  /**
   * The longest round trip to expect after these samples. Never shorter than the latest one (RFC
   * 6298 §2).
   */
  get longestRoundTrip(): number {
    return this.smoothed + Math.max(GRANULARITY_MS, 4 * this.variation);
  }
  get samples(): number {
    return this.floats[PEER.samples];
  }
  /** Bits of `PeerFlag` from its latest message. */
  get flags(): number {
    return this.floats[PEER.flags];
  }
  set flags(value: number) {
    this.floats[PEER.flags] = value;
  }
  /**
   * Whether a message of its present incarnation answered a datagram of ours. Such a message was
   * made after we started, so it cannot be an earlier recording.
   */
  get hasAnswered(): boolean {
    return this.floats[PEER.answered] !== 0;
  }
  setAnswered(): void {
    this.floats[PEER.answered] = 1;
  }
  get isJoining(): boolean {
    return (this.floats[PEER.flags] & PeerFlag.JOINING) !== 0;
  }
  get isLeaving(): boolean {
    return (this.floats[PEER.flags] & PeerFlag.LEAVING) !== 0;
  }
  /** Highest version of the wire format that it supports. 0: not known. */
  get speaks(): number {
    return this.floats[PEER.speaks];
  }
  set speaks(value: number) {
    this.floats[PEER.speaks] = value;
  }
  /**
   * Its wall clock minus ours, in ms, corrected by half a round trip. 0 while `skewSamples` is 0.
   */
  get skewMs(): number {
    return this.floats[PEER.skew];
  }
  get skewSamples(): number {
    return this.floats[PEER.skewSamples];
  }

  setSkew(ms: number): void {
    this.floats[PEER.skew] = ms;
    this.floats[PEER.skewSamples]++;
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

/**
 * The incarnations of one slot. `workers/replication/receiving/incarnations.ts` says how one
 * follows another:
 *
 *     admitted (current) ─ died or superseded ▶ frozen (former) ─ all that are heard have the same of it ▶ closed ─▶ next admitted
 */
export class SlotIncarnations {
  readonly floats = new Float64Array(INCARNATIONS_FLOATS);

  /** The incarnation whose messages are believed. 0: none. */
  get current(): number {
    return this.floats[INCARNATIONS.current];
  }
  set current(value: number) {
    this.floats[INCARNATIONS.current] = value;
  }
  /** The incarnation before it, of which only repairs are accepted. 0: none. */
  get former(): number {
    return this.floats[INCARNATIONS.former];
  }
  set former(value: number) {
    this.floats[INCARNATIONS.former] = value;
  }
  get isClosed(): boolean {
    return this.floats[INCARNATIONS.closed] !== 0;
  }
  set isClosed(value: boolean) {
    this.floats[INCARNATIONS.closed] = value ? 1 : 0;
  }
  /** The incarnation that waits until the former one is closed. 0: none was heard. */
  get pending(): number {
    return this.floats[INCARNATIONS.pending];
  }
  set pending(value: number) {
    this.floats[INCARNATIONS.pending] = value;
  }
  /** When the former incarnation was frozen, in our milliseconds. */
  get frozenAt(): number {
    return this.floats[INCARNATIONS.frozenAt];
  }
  set frozenAt(value: number) {
    this.floats[INCARNATIONS.frozenAt] = value;
  }
  /** This incarnation and all earlier ones have ended. */
  get closedThrough(): number {
    return this.floats[INCARNATIONS.closedThrough];
  }
  set closedThrough(value: number) {
    this.floats[INCARNATIONS.closedThrough] = value;
  }
  get barred(): number {
    return this.floats[INCARNATIONS.barred];
  }

  /** Notes an incarnation after `closedThrough` that has ended. */
  bar(incarnation: number): void {
    const at = INCARNATIONS.barred + 1;
    if (this.isOver(incarnation)) return;
    if (this.barred === BARRED_MAX) {
      // The list is full. Replace the earliest: it and all before it have ended.
      let earliest = 0;
      for (let i = 1; i < BARRED_MAX; i++) if (this.floats[at + i] < this.floats[at + earliest]) earliest = i;
      this.closedThrough = Math.max(this.closedThrough, Math.min(this.floats[at + earliest], incarnation));
      if (incarnation < this.floats[at + earliest]) return;
      this.floats[at + earliest] = incarnation;
      return;
    }
    this.floats[at + this.barred] = incarnation;
    this.floats[INCARNATIONS.barred]++;
  }

  isOver(incarnation: number): boolean {
    if (incarnation <= this.closedThrough) return true;
    for (let i = 0; i < this.barred; i++) if (this.floats[INCARNATIONS.barred + 1 + i] === incarnation) return true;
    return false;
  }
}

/** The state of one member for us as the sender of one object's units. */
export const Attachment = {
  /** It has not been heard yet, or every unit it lacks is in the unit log. */
  ATTACHED: 0,
  /** It is detached: what it lacks is kept as a backlog, apart from the log. */
  BACKLOG: 1,
  /** It lacks units that are not kept. It gets nothing, and needs a snapshot. */
  ABSENT: 2,
} as const;
export type Attachment = (typeof Attachment)[keyof typeof Attachment];

export class AttachmentRecord {
  readonly floats = new Float64Array(ATTACHMENT_FLOATS);

  clear(): void {
    this.floats.fill(0);
  }

  get state(): Attachment {
    return this.floats[ATTACHMENT.state] as Attachment;
  }
  set state(value: Attachment) {
    this.floats[ATTACHMENT.state] = value;
  }
  /** The incarnation of the member that this is about. 0: it was never heard. */
  get incarnation(): number {
    return this.floats[ATTACHMENT.incarnation];
  }
  set incarnation(value: number) {
    this.floats[ATTACHMENT.incarnation] = value;
  }
  /** Size of the backlog in sequence numbers. `backlogBytes`: in bytes. */
  get backlogRecords(): number {
    return this.floats[ATTACHMENT.backlogRecords];
  }
  set backlogRecords(value: number) {
    this.floats[ATTACHMENT.backlogRecords] = value;
  }
  get backlogBytes(): number {
    return this.floats[ATTACHMENT.backlogBytes];
  }
  set backlogBytes(value: number) {
    this.floats[ATTACHMENT.backlogBytes] = value;
  }
  /** Highest number sent while it was attached. */
  get cut(): number {
    return this.floats[ATTACHMENT.cut];
  }
  set cut(value: number) {
    this.floats[ATTACHMENT.cut] = value;
  }
}

export const DIGEST_FLOATS = 4;

/**
 * A digest of an object's content, and the hash of the vector at which it was taken. All 0: none
 * was reported.
 */
export class DigestRecord {
  readonly floats = new Float64Array(DIGEST_FLOATS);

  set(vectorHash: Int32Array, digest: Int32Array): void {
    for (let i = 0; i < 2; i++) {
      this.floats[i] = vectorHash[i];
      this.floats[2 + i] = digest[i];
    }
  }

  load(vectorHash: Int32Array, digest: Int32Array): void {
    for (let i = 0; i < 2; i++) {
      vectorHash[i] = this.floats[i];
      digest[i] = this.floats[2 + i];
    }
  }

  get isReplicated(): boolean {
    return this.floats[0] !== 0 || this.floats[1] !== 0;
  }

  hasVectorOf(other: DigestRecord): boolean {
    return this.floats[0] === other.floats[0] && this.floats[1] === other.floats[1];
  }

  hasContentOf(other: DigestRecord): boolean {
    return this.floats[2] === other.floats[2] && this.floats[3] === other.floats[3];
  }
}
