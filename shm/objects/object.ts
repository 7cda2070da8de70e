/**
 * What a state object is to the threads that carry its operations.
 *
 * A *definition* is data: it fixes the object's place in the arena and is evaluated alike in every
 * thread. `open` makes a thread's view of the object over that place. The packet path calls the
 * object's own methods; replication only knows this interface.
 */

import type { ArenaObject, Parameters } from '../arena.js';
import type { LogProducer } from '../log.js';
import type { Region } from '../region.js';
import type { Journal } from './journal.js';
import type { MergeSource } from './merge-source.js';

/**
 * In which order an object needs each origin's records. Neither promises more than this where
 * threads die or members are silent:
 *
 * - `any-order`: each at least once; so records are idempotent and commute.
 * - `in-order`: each once, as the origin numbered them. A receive thread that dies abruptly may
 *   repeat the unit under way, a send thread that dies between the unit log and `settle` the round
 *   under way.
 *
 * A member that is behind gets, either way, coalesced what it missed; it lacks what outgrew the
 * memory for that, until it takes a snapshot.
 */
export type Delivery = 'any-order' | 'in-order';

/** A thread that changes shared state: a data plane worker or the receive thread. */
export interface Writer {
  /** 1…254, unique per thread slot: what a lock word holds while this thread has the lock. */
  readonly id: number;
  /**
   * Where this thread notes an operation under way, so that it can be undone or finished after its
   * death.
   */
  readonly journal: Journal;
  /**
   * The worker's log; `null` for the receive thread, whose changes are other instances' and are not
   * logged again.
   */
  readonly log: LogProducer | null;
}

export interface OpenContext {
  /** The object's index in the order of declaration: in log records and on the wire. */
  readonly id: number;
  readonly region: Region;
  /** Four words of key for hashes. */
  readonly secret: Int32Array;
  /** `null` opens the object to read only (main thread, send thread). */
  readonly writer: Writer | null;
  /**
   * This instance's place among the members in the order of their ids, and how many there are: for
   * leased regions.
   */
  readonly memberIndex: number;
  readonly memberCount: number;
  /**
   * The object's memory of this instance alone, of `localBytes(stripes)`: outside the arena, in no
   * snapshot.
   */
  readonly local?: Region;
  /**
   * Data plane workers: their writer ids are 1…`stripes`, and each has a stripe of what is counted
   * per writer.
   */
  readonly stripes?: number;
  /**
   * Four words that all members share and nobody else knows, derived from the cluster's key, so the
   * same after a restart. All 0, or left out: the cluster has no key. They change when the
   * cluster's key does.
   */
  readonly clusterSecret?: Int32Array;
  /**
   * Two words that random choices begin from; default: unpredictable ones. A simulation gives them,
   * to be repeatable.
   */
  readonly seed?: Int32Array;
}

/**
 * Doubles outside an object's region that belong to its content, for a snapshot to add to doubles
 * within: `lanes` of them to each of `cells`. Offsets and strides are bytes, multiples of 8.
 */
export interface Addends {
  /** In the region: the first cell, and from cell to cell. */
  readonly target: number;
  readonly targetStride: number;
  readonly cells: number;
  /** In the local memory: lane 0 of the first cell, from cell to cell, from lane to lane. */
  readonly source: number;
  readonly sourceStride: number;
  readonly laneStride: number;
  readonly lanes: number;
}

export interface StateDefinition<T extends StateObject = StateObject> extends Omit<ArenaObject, 'name'> {
  /** Bytes of instance-local memory, for an object that counts per writer. */
  localBytes?(stripes: number): number;
  open(context: OpenContext): T;
  /**
   * The same definition with another shape, as a donor of another layout says it: for the size of
   * its region and for `merge`. Throws a `RangeError` if there is no such shape. Absent: `shape`
   * is, too, or a snapshot of another shape cannot be taken.
   */
  withShape?(shape: Parameters): Omit<ArenaObject, 'name'>;
  /**
   * Takes over, in an object that is open, what of this definition does not shape its layout:
   * limits and the like.
   */
  reconfigure?(object: StateObject): void;
}

/** Rejections and outcomes of `apply`. */
export const Applied = {
  /** The record changed state. */
  CHANGED: 0,
  /** The record was known already or lost to a winner: nothing to do. */
  UNCHANGED: 1,
  /**
   * The record is not one this object can have been sent: wrong operation, length or range. Nothing
   * was changed.
   */
  MALFORMED: 2,
  /** There is no room for it. Nothing was changed. */
  FULL: 3,
  /** What it changes is locked, and patience is over: it is to come again. Nothing was changed. */
  BUSY: 4,
} as const;
export type Applied = (typeof Applied)[keyof typeof Applied];

/**
 * What one entry adds to the number `StateObject.merge` returns. Throws when it was BUSY: a merge
 * has nobody who would send the entry again, so the whole is to be done again, which is harmless.
 */
export function merged(applied: Applied, objectId: number, source?: MergeSource): 0 | 1 {
  if (applied === Applied.BUSY)
    throw new Error(`state object ${objectId}: an entry has been locked too long to merge into it; merge again`);
  if (applied === Applied.FULL && source !== undefined) source.full++;
  return applied === Applied.CHANGED ? 1 : 0;
}

export interface StateObject {
  readonly id: number;
  readonly delivery: Delivery;

  /**
   * Applies one record of another instance. Checks everything in it first: it comes from the
   * network. `words[at … at + length)` is the payload. `now` is in coarse seconds.
   */
  apply(op: number, words: Int32Array, at: number, length: number, origin: number, now: number): Applied;

  /**
   * Whether two records may be merged, as a number: records with different keys never are; equal
   * keys may be (a hash).
   */
  coalesceKey(op: number, words: Int32Array, at: number, length: number): number;

  /**
   * Merges the later record into the earlier one, in place, if they are of one key and the same
   * length; returns whether it did, and then the later one is not sent.
   */
  coalesce(op: number, words: Int32Array, earlier: number, later: number, length: number): boolean;

  /**
   * Asked by the send thread of each of our records when it is staged, before it is coalesced:
   * fills in, in place, what is told best as it is then (a counter's total). Returns false when
   * there is nothing to tell any more: the record is dropped.
   */
  tell?(op: number, words: Int32Array, at: number, length: number): boolean;

  /**
   * Writes the payload of a record that the log had no room for at `words[at …]` (of at most 8
   * words, operation `op` of the result's low byte) and returns `length << 8 | op`; `NONE` when
   * there is none. Send thread; each is then staged.
   */
  nextUntold?(words: Int32Array, at: number): number;

  /** Everything told is safe in the unit log, with numbers up to `sequence`. Send thread. */
  settle?(sequence: number): void;

  /**
   * Takes in the content of another instance's region, in the layout of ours or of `source.shape`:
   * a snapshot, or the other half of a healed partition. Repeatable, and whatever the order of
   * merges the result is the same. Called by the receive thread, or by main at a barrier. Returns
   * the number of entries that changed ours; throws, before anything is changed, where the object's
   * wire form cannot merge.
   */
  merge?(from: Region, now: number, source?: MergeSource): number;

  /**
   * What a copy of the region lacks to be a whole snapshot of what was numbered; absent: nothing.
   */
  readonly addends?: Addends;

  /**
   * The region was filled from another instance's snapshot, before anything was counted here: what
   * it says of ourselves is from a former life, and the others know it. Main.
   */
  adopt?(): void;

  /**
   * Bound on what the member who acknowledged our records up to `sequence` has not counted of what
   * is counted here. Off the packet path.
   */
  errorBound?(sequence: number): number;

  /**
   * The `shape` of the same object at each other member that has said it, whenever that changes:
   * for an object whose new entries have to be such as all can hold. Also after a snapshot was
   * loaded. Returns what that restricts, for people; `null`: nothing. Main; `now` in coarse
   * seconds.
   */
  heedShapes?(shapes: readonly Parameters[], now?: number): string | null;

  /**
   * Digest of the replicated content, equal at two instances that hold the same: 16 hex digits. Off
   * the packet path. Of what expires, what has not by `now` (coarse seconds; default: the time of
   * asking): digests of two instances can be compared if both were asked at the same `now`, and
   * nothing was under way: an entry locked at that moment is left out.
   *
   * Entries that an instance may evict by itself (half-open ones) are left out too: after a flood
   * the instances lack different ones. With `evictable` they are included: for tests in which none
   * is evicted.
   */
  digest(now?: number, evictable?: boolean): string;

  /**
   * Finishes or undoes what a dead writer had under way, and takes its locks. Returns the number of
   * slots mended.
   */
  recover(writerId: number, journal: Journal, logPosition: number): number;

  /** Figures for `show objects`: used, capacity, collisions and the like. */
  describe(now: number): Record<string, number>;
}
