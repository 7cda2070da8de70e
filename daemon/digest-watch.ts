/**
 * Compares what the members hold. From time to time, when nothing is under way, each finds the
 * digest of every object's content and says it in its keepalives, with a hash of the vector it
 * holds for. Two members with equal vectors have applied the same records; if their content differs
 * all the same, twice in a row, something is wrong, and is said.
 *
 * **Time.** What expires counts if it has not expired by the end of the period. Nobody has
 * forgotten any of that yet, so clocks that are not quite equal make no difference. The end of the
 * period is in the hash.
 *
 * **Evictions.** Digests leave out half-open entries (`StateObject.digest`). Each instance evicts
 * these by itself, so a flood would make digests differ, and each instance would fetch a snapshot.
 */

import { createHash } from 'node:crypto';
import { type AckBoard, VectorRecord } from '../shm/ack-board.js';
import { DigestRecord } from '../shm/board-records.js';
import type { StateObject } from '../shm/objects/object.js';

/** Members find digests at the same time: in periods that begin at multiples of this. */
const PERIOD_S = 64;
/** Digests that differ so often in a row are no accident. */
const TIMES = 2;

export interface DigestWatchOptions {
  readonly board: AckBoard;
  readonly self: number;
  /** Ids by slot; 0: nobody takes part there. */
  readonly ids: () => readonly number[];
  /** Whether workers have records that no number was given yet. */
  readonly isBusy: () => boolean;
  /** Called once, until the two agree again. */
  readonly onDiffer: (object: number, slot: number) => void;
}

export class DigestWatch {
  private readonly options: DigestWatchOptions;
  private readonly vector = new VectorRecord();
  /** Per object: end of the period our digest is of, in coarse seconds; 0: there is none. */
  private readonly doneFor: number[];
  private readonly own: DigestRecord[];
  private readonly theirs = new DigestRecord();
  /**
   * [object * slots + slot]: how often in a row the two differed, and the period that was counted
   * last.
   */
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
   * Finds what there is to be found, and compares; `now` in coarse seconds. At most one digest a
   * call: it may take long.
   */
  look(objects: readonly StateObject[], now: number): void {
    const end = (Math.floor(now / PERIOD_S) + 1) * PERIOD_S;
    for (const object of objects) this.compare(object.id);
    for (const object of objects) if (this.doneFor[object.id] !== end && this.find(object, end)) return;
  }

  /** Slots of the members whose content of the object differs. */
  differing(object: number): number[] {
    const { members } = this.options.board;
    return Array.from({ length: members }, (_, slot) => slot).filter(
      (slot) => this.differed[object * members + slot] >= TIMES,
    );
  }

  /** Returns whether a digest was found; not while something is under way. */
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

  /** Of what is here of every origin; `null` where that is not everything there is. */
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
