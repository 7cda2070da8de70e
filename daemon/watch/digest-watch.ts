/**
 * Compares the content of the members. In every period, when no records are in flight, each member
 * computes the digest of every object's content. It sends the digest in its keepalives, with a hash
 * of the vector that the digest belongs to. Two members with equal vectors have applied the same
 * records. If their digests differ twice in a row, that is an error, and it is reported.
 *
 * **Time.** An entry counts if it has not expired by the end of the period. No member has deleted
 * such an entry yet, so clocks that differ a little make no difference. The end of the period is
 * part of the hash.
 *
 * **Evictions.** Digests leave out half-open entries (`StateObject.digest`), because each instance
 * evicts these by itself. If they counted, a flood would make digests differ, and each instance
 * would fetch a snapshot.
 */

import { createHash } from 'node:crypto';
import { type AckBoard, VectorRecord } from '../../shm/ack-board.js';
import { DigestRecord } from '../../shm/board-records.js';
import type { StateObject } from '../../shm/objects/core/object.js';

/**
 * Length of a period. Periods begin at multiples of it, so members compute digests at the same
 * time.
 */
const PERIOD_S = 64;
/** Number of differences in a row that are reported. */
const TIMES = 2;

interface DigestWatchOptions {
  readonly board: AckBoard;
  readonly self: number;
  /** Member ids by slot; 0: the slot is free. */
  readonly ids: () => readonly number[];
  /** Whether workers have records without a sequence number. */
  readonly isBusy: () => boolean;
  /** Called once when two members differ, and again only after they have agreed in between. */
  readonly onDiffer: (object: number, slot: number) => void;
}

export class DigestWatch {
  private readonly options: DigestWatchOptions;
  private readonly vector = new VectorRecord();
  /** By object: end of the period of our digest, in coarse seconds; 0: no digest yet. */
  private readonly doneFor: number[];
  private readonly own: DigestRecord[];
  private readonly theirs = new DigestRecord();
  /** By [object * slots + slot]: differences in a row, and the period that was compared last. */
  private readonly differed: Int32Array;
  private readonly comparedFor: Float64Array;

  constructor(options: DigestWatchOptions) {
    this.options = options;
    const { objects, members } = options.board;
    this.doneFor = new Array<number>(objects).fill(0);
    this.own = Array.from({ length: objects }, () => new DigestRecord());
    this.differed = new Int32Array(objects * members);
    this.comparedFor = new Float64Array(objects * members);
  }

  /**
   * Compares digests, and computes at most one digest per call, because that may take long. `now`
   * is in coarse seconds.
   */
  look(objects: readonly StateObject[], now: number): void {
    const end = (Math.floor(now / PERIOD_S) + 1) * PERIOD_S;
    for (const object of objects) this.compare(object.id);
    for (const object of objects) if (this.doneFor[object.id] !== end && this.find(object, end)) return;
  }

  /** Returns the slots of members whose content of the object differs. */
  differing(object: number): number[] {
    const { members } = this.options.board;
    return Array.from({ length: members }, (_, slot) => slot).filter(
      (slot) => this.differed[object * members + slot] >= TIMES,
    );
  }

  /** Computes a digest and returns true, unless records are in flight before or after. */
  private find(object: StateObject, end: number): boolean {
    const before = this.vectorHash(object.id, end);
    if (before === null) return false;
    const content = object.digest(end);
    if (this.vectorHash(object.id, end)?.equals(before) !== true) return false;
    const own = this.own[object.id];
    own.set(wordsOf(before), wordsOf(Buffer.from(content, 'hex')));
    this.doneFor[object.id] = end;
    this.options.board.writeDigest(object.id, this.options.self, own);
    return true;
  }

  /** Hashes the vector of all origins; `null` if this member lacks records that it knows of. */
  private vectorHash(object: number, end: number): Buffer | null {
    const { board, self, ids, isBusy } = this.options;
    if (isBusy()) return null;
    const entries: (readonly number[])[] = [];
    for (const [slot, id] of ids().entries()) {
      if (slot === self) entries.push([id, board.incarnation, board.numbered(object)]);
      else if (id !== 0) {
        this.vector.clear();
        board.readReception(object, slot, this.vector);
        const { incarnation, contiguous, highest, ranges } = this.vector;
        if (ranges > 0 || highest > contiguous) return null;
        entries.push([id, incarnation, contiguous]);
      }
    }
    entries.sort(([a], [b]) => a - b);
    return createHash('sha256')
      .update(JSON.stringify([end, object, entries]))
      .digest()
      .subarray(0, 8);
  }

  private compare(object: number): void {
    const { board, self, onDiffer } = this.options;
    if (this.doneFor[object] === 0) return;
    for (let slot = 0; slot < board.members; slot++) {
      const place = object * board.members + slot;
      if (slot === self || this.comparedFor[place] === this.doneFor[object]) continue;
      if (board.readDigest(object, slot, this.theirs) === 0 || !this.theirs.hasVectorOf(this.own[object])) continue;
      this.comparedFor[place] = this.doneFor[object];
      if (this.theirs.hasContentOf(this.own[object])) this.differed[place] = 0;
      else if (++this.differed[place] === TIMES) onDiffer(object, slot);
    }
  }
}

function wordsOf(bytes: Buffer): Int32Array {
  return Int32Array.of(bytes.readInt32LE(0), bytes.readInt32LE(4));
}
