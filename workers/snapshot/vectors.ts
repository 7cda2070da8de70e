/**
 * What a snapshot contains of each origin: per (object, origin), the incarnation of the origin and
 * which of its sequence numbers. So an instance that loads the snapshot takes later records from
 * the origin, and none twice.
 *
 *     present       what the donor has of the origin's present incarnation; for the donor itself, its own incarnation and numbers
 *     former        what it has of the incarnation before, whose last units may still be repaired; also for its own slot
 *     incarnations  which incarnations of each slot the donor believes, and which have ended (knowledge.ts)
 *
 * Vectors of in-order objects have no ranges: their units beyond a gap are in the donor's memory
 * and not in the snapshot.
 */

import { type AckBoard, MAX_RANGES, VectorRecord } from '../../shm/ack-board.js';
import { INCARNATIONS_FLOATS, PeerRecord, SlotIncarnations } from '../../shm/board-records.js';
import { NONE } from '../../shm/none.js';
import type { StateObject } from '../../shm/objects/core/object.js';
import { readAllIncarnations, writeAllIncarnations } from '../replication/units/knowledge.js';
import { Reception } from '../replication/units/reception.js';

export interface OriginVector {
  /** 0: nothing of this origin. */
  readonly incarnation: number;
  readonly contiguous: number;
  /** First and last number of each range beyond `contiguous`, ascending. */
  readonly ranges: readonly number[];
}

/** [object][slot] */
export type Vectors = readonly (readonly OriginVector[])[];

export interface SnapshotVectors {
  readonly present: Vectors;
  readonly former: Vectors;
  /** [slot] */
  readonly incarnations: readonly (readonly number[])[];
}

const NOTHING: OriginVector = { incarnation: 0, contiguous: 0, ranges: [] };

/**
 * Reads the vectors from the board, at the barrier. `self` is our own slot.
 *
 * Numbers of folded units stand for our records only (receive-channel.ts). For any-order objects,
 * the snapshot does not claim them. An instance that loads it takes the exact units with these
 * numbers, or counts them as skipped and takes snapshots.
 */
export function readVectors(board: AckBoard, objects: readonly StateObject[], self: number): SnapshotVectors {
  const record = new Reception();
  const vector = (version: number, inOrder: boolean): OriginVector => {
    if (version === 0 || record.incarnation === 0) return NOTHING;
    if (record.folded !== 0 && !inOrder) record.retreat(record.folded);
    const ranges: number[] = [];
    for (let i = 0; i < record.ranges && !inOrder; i++) ranges.push(record.start(i), record.end(i));
    return { incarnation: record.incarnation, contiguous: record.contiguous, ranges };
  };
  const slots = Array.from({ length: board.members }, (_, slot) => slot);
  return {
    present: objects.map(({ delivery }, object) =>
      slots.map((slot) =>
        slot === self
          ? { incarnation: board.incarnation, contiguous: board.numbered(object), ranges: [] }
          : vector(board.readReception(object, slot, record), delivery === 'in-order'),
      ),
    ),
    former: objects.map(({ delivery }, object) =>
      slots.map((slot) => vector(board.readFormer(object, slot, record), delivery === 'in-order')),
    ),
    incarnations: readAllIncarnations(board, self),
  };
}

/**
 * The slot of a member whose folded backlog is not complete here; `NONE`: there is no such member.
 * What we have of that member does not match any other member's numbers, so a snapshot of ours
 * would be wrong. For an any-order object, the snapshot can leave these numbers out
 * (`readVectors`). So the member counts for it only while it is heard, at `now`, and goes on
 * sending the backlog.
 */
export function backlogOrigin(
  board: AckBoard,
  objects: readonly Pick<StateObject, 'delivery'>[],
  silentMs: number,
  now: number,
): number {
  const record = new VectorRecord();
  const peer = new PeerRecord();
  for (let slot = 0; slot < board.members; slot++) {
    peer.floats.fill(0);
    board.readPeer(slot, peer);
    const isHeard = peer.incarnation !== 0 && now - peer.heardAt <= silentMs;
    for (let object = 0; object < board.objects; object++) {
      record.clear();
      board.readReception(object, slot, record);
      if (record.folded !== 0 && (isHeard || objects[object].delivery === 'in-order')) return slot;
    }
  }
  return NONE;
}

/**
 * Counts our numbers in the snapshot as sent, at the barrier, though some of them may still be
 * throttled. An instance that loads it acknowledges them, and an acknowledgement of an unsent
 * number is refused.
 */
export function countAsSent(board: AckBoard): void {
  for (let object = 0; object < board.objects; object++) board.setSequence(object, board.numbered(object));
}

/**
 * Writes the vectors to the board of the instance that loaded the snapshot, whose slot is `self`.
 * Call it while no receive thread runs, because that thread keeps vectors in its own memory. The
 * next one resumes from the board. `now`: `monotonicMs()`.
 */
export function writeVectors(board: AckBoard, vectors: SnapshotVectors, self: number, now: number): void {
  const { present, former, incarnations } = withOwnEnded(vectors, self, board.incarnation);
  const record = new VectorRecord();
  const fill = ({ incarnation, contiguous, ranges }: OriginVector): VectorRecord => {
    record.clear();
    record.incarnation = incarnation;
    record.contiguous = contiguous;
    record.highest = Math.max(contiguous, ranges[ranges.length - 1] ?? 0);
    record.ranges = ranges.length / 2;
    for (let i = 0; i < record.ranges; i++) record.setRange(i, ranges[2 * i], ranges[2 * i + 1]);
    return record;
  };
  for (let object = 0; object < board.objects; object++) {
    for (let slot = 0; slot < board.members; slot++) {
      // For our own slot, only the former incarnation.
      if (slot !== self) board.writeReception(object, slot, fill(present[object][slot]));
      // Also if the donor has nothing: what we have heard ourselves may be of an incarnation that
      // has ended for the donor.
      board.writeFormer(object, slot, fill(former[object][slot]));
    }
    board.noteChange(object);
  }
  writeAllIncarnations(board, incarnations, self, now);
}

/**
 * The vectors as the incarnation `own` of slot `self` takes them. Its donor may not know yet that
 * the slot's incarnation before it has ended. That one is the former one for us: we say what our
 * state has of it, and other members pass on the rest.
 */
function withOwnEnded(vectors: SnapshotVectors, self: number, own: number): SnapshotVectors {
  const known = new SlotIncarnations();
  known.floats.set(vectors.incarnations[self]);
  const { current } = known;
  if (current === 0 || current === own) return vectors;
  if (known.former !== 0) known.bar(known.former);
  known.former = current;
  known.current = 0;
  known.isClosed = false;
  const ended = (vector: OriginVector): OriginVector =>
    vector.incarnation === current ? vector : { ...NOTHING, incarnation: current };
  return {
    present: vectors.present,
    former: vectors.former.map((slots, object) => slots.with(self, ended(vectors.present[object][self]))),
    incarnations: vectors.incarnations.with(self, [...known.floats]),
  };
}

// Encoding, as doubles. Per vector: incarnation, contiguous, number of ranges, then first and last
// of each. Then the incarnations.

const VECTOR_NUMBERS_MAX = 3 + 2 * MAX_RANGES;

/** The most bytes of a table for this many objects and slots. */
export function vectorBytesMax(objects: number, slots: number): number {
  return (2 * objects * slots * VECTOR_NUMBERS_MAX + slots * INCARNATIONS_FLOATS) * 8;
}

export function encodeVectors({ present, former, incarnations }: SnapshotVectors): Float64Array {
  const numbers: number[] = [];
  for (const table of [present, former])
    for (const vector of table.flat())
      numbers.push(vector.incarnation, vector.contiguous, vector.ranges.length / 2, ...vector.ranges);
  return Float64Array.from([...numbers, ...incarnations.flat()]);
}

/** Throws a `RangeError` if the numbers are not such a table. */
export function decodeVectors(numbers: Float64Array, objects: number, slots: number): SnapshotVectors {
  let at = 0;
  const next = (): number => {
    const value = numbers[at++];
    // Past the end it is undefined.
    if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`a vector's number ${at - 1} is ${value}`);
    return value;
  };
  const vector = (): OriginVector => {
    const incarnation = next();
    const contiguous = next();
    const count = next();
    if (count > MAX_RANGES) throw new RangeError(`a vector of ${count} ranges, of at most ${MAX_RANGES}`);
    const ranges: number[] = [];
    for (let i = 0; i < count; i++) {
      const before = i === 0 ? contiguous : ranges[2 * i - 1];
      const start = next();
      const end = next();
      if (start <= before + 1 || end < start) throw new RangeError(`range ${start} … ${end} after ${before}`);
      ranges.push(start, end);
    }
    return { incarnation, contiguous, ranges };
  };
  const table = (): Vectors => Array.from({ length: objects }, () => Array.from({ length: slots }, () => vector()));
  const incarnations = (): number[] => Array.from({ length: INCARNATIONS_FLOATS }, () => next());
  const vectors = { present: table(), former: table(), incarnations: Array.from({ length: slots }, incarnations) };
  if (at !== numbers.length) throw new RangeError(`${numbers.length - at} numbers too many in a table of vectors`);
  return vectors;
}
