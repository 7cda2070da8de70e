/**
 * The interface of a state object to the threads that carry its operations.
 *
 * A *definition* is data. It fixes the object's position in the arena and is evaluated alike in
 * every thread. `open` makes a thread's view of the object in that region. The packet path calls
 * the object's own methods. Replication only knows this interface.
 */

import type { ArenaObject, Parameters } from '../../arena.js';
import type { LogProducer } from '../../log.js';
import type { Region } from '../../region.js';
import type { Journal } from './journal.js';
import type { MergeSource } from './merge-source.js';

/**
 * The order in which an object needs each origin's records. The guarantees below are weaker if
 * threads die or members are silent:
 *
 * - `any-order`: each record at least once, in any order. So records are idempotent and commute.
 * - `in-order`: each record once, in the order of the origin's numbers. A receive thread that dies
 *   abruptly may repeat the current unit. A send thread that dies between the unit log and `settle`
 *   may repeat the current round.
 *
 * In both cases a member that is behind gets what it missed, coalesced. If that outgrew the memory
 * for it, the member lacks the rest until it takes a snapshot.
 */
export type Delivery = 'any-order' | 'in-order';

/** A thread that changes shared state: a data plane worker or the receive thread. */
export interface Writer {
  /** 1…254, unique per thread slot. A lock word has this value while this thread has the lock. */
  readonly id: number;
  /**
   * The journal in which this thread notes its current operation, so that it can be undone or
   * completed after the thread's death.
   */
  readonly journal: Journal;
  /**
   * The worker's log; `null` for the receive thread, which applies other instances' changes. These
   * are not logged again.
   */
  readonly log: LogProducer | null;
}

export interface OpenContext {
  /** The object's index in the order of declaration, used in log records and on the wire. */
  readonly id: number;
  readonly region: Region;
  /** Four words of key for hashes. */
  readonly secret: Int32Array;
  /** `null` opens the object read-only (main thread, send thread). */
  readonly writer: Writer | null;
  /**
   * This instance's index among the members in the order of their ids, and their number, for
   * leases.
   */
  readonly memberIndex: number;
  readonly memberCount: number;
  /**
   * Instance-local memory of the object, of `localBytes(stripes)` bytes: outside the arena, in no
   * snapshot.
   */
  readonly local?: Region;
  /**
   * Number of data plane workers. Their writer ids are 1…`stripes`, and each has a stripe of what
   * is counted per writer.
   */
  readonly stripes?: number;
  /**
   * Four words that all members share and nobody else knows. They are derived from the cluster's
   * key, so they are the same after a restart and change only with the key. All 0, or absent: the
   * cluster has no key.
   */
  readonly clusterSecret?: Int32Array;
  /**
   * Two words that seed random choices. Default: unpredictable words. A simulation sets them, to be
   * repeatable.
   */
  readonly seed?: Int32Array;
}

/**
 * Doubles outside an object's region that belong to its content. A snapshot adds them to doubles in
 * the region: `lanes` of them to each of `cells`. Offsets and strides are bytes, multiples of 8.
 */
export interface Addends {
  /** In the region: the offset of the first cell, and the stride from cell to cell. */
  readonly target: number;
  readonly targetStride: number;
  readonly cells: number;
  /**
   * In the local memory: the offset of lane 0 of the first cell, the stride from cell to cell, and
   * the stride from lane to lane.
   */
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
   * The same definition with the shape of a donor of another layout, for the size of its region and
   * for `merge`. Throws a `RangeError` if there is no such shape. If absent, the object has no
   * `shape`, or cannot take a snapshot of another shape.
   */
  withShape?(shape: Parameters): Omit<ArenaObject, 'name'>;
  /**
   * Applies to an open object those options of this definition that do not change its layout, such
   * as limits.
   */
  reconfigure?(object: StateObject): void;
}

/** Results of `apply`. */
export const Applied = {
  /** The record changed state. */
  CHANGED: 0,
  /** The record was known already, or lost to a winner. Nothing was changed. */
  UNCHANGED: 1,
  /**
   * The record is invalid for this object: wrong operation, length or range. Nothing was changed.
   */
  MALFORMED: 2,
  /** There is no room for the record. Nothing was changed. */
  FULL: 3,
  /**
   * A lock was not available in time. Nothing was changed, and the record must be applied again.
   */
  BUSY: 4,
} as const;
export type Applied = (typeof Applied)[keyof typeof Applied];

/**
 * What one entry adds to the number that `StateObject.merge` returns. Counts FULL entries in
 * `source`. Throws if the entry was BUSY, because no peer would send an entry of a merge again. The
 * whole merge must then be repeated, which is harmless.
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
   * Applies one record of another instance. Checks everything in it first, because it comes from
   * the network. `words[at … at + length)` is the payload. `now` is in coarse seconds.
   */
  apply(op: number, words: Int32Array, at: number, length: number, origin: number, now: number): Applied;

  /**
   * A number that says whether two records may be coalesced. Records with different numbers never
   * are. Records with equal numbers may be, because the number is a hash.
   */
  coalesceKey(op: number, words: Int32Array, at: number, length: number): number;

  /**
   * Coalesces the later record into the earlier one, in place, if both have one key and the same
   * length. Returns whether it did. If so, the later record is not sent.
   */
  coalesce(op: number, words: Int32Array, earlier: number, later: number, length: number): boolean;

  /**
   * The send thread calls this for each local record when it stages it, before coalescing. It fills
   * in, in place, values that are best read late, such as a counter's total. Returns false if there
   * is nothing left to replicate: the record is then dropped.
   */
  fillIn?(op: number, words: Int32Array, at: number, length: number): boolean;

  /**
   * Called by the send thread, for records for which a log had no room. Writes the payload of the
   * next one (at most 8 words) to `words[at …]`. Returns `length << 8 | op`, or `NONE` if there is
   * no such record. The record is then staged.
   */
  nextUnreplicated?(words: Int32Array, at: number): number;

  /**
   * Called by the send thread: every replicated record is in the unit log, with numbers up to
   * `sequence`.
   */
  settle?(sequence: number): void;

  /**
   * Merges the content of another instance's region, in this instance's layout or that of
   * `source.shape`: a snapshot, or the other half of a healed partition. It can be repeated, and
   * the order of merges does not change the result. Called by the receive thread, or by the main
   * thread at a barrier. Returns the number of entries that changed local content. Throws, before
   * anything is changed, if the object's wire form cannot merge.
   */
  merge?(from: Region, now: number, source?: MergeSource): number;

  /**
   * What a copy of the region lacks to be a complete snapshot of the numbered operations. If
   * absent, it lacks nothing.
   */
  readonly addends?: Addends;

  /**
   * Called by the main thread after the region was filled from another instance's snapshot, before
   * anything is counted here. What the snapshot says of this member is from an earlier incarnation,
   * and its peers know it.
   */
  adopt?(): void;

  /**
   * Upper bound on what a member has not counted of this instance's counts, if it has acknowledged
   * local records up to `sequence`. Not for the packet path.
   */
  errorBound?(sequence: number): number;

  /**
   * Called by the main thread with the `shape` of the same object at each peer that has reported
   * it, whenever that changes and after a snapshot was loaded. For an object whose new entries must
   * be acceptable to all members. Returns a text that says what is restricted, or `null`. `now` is
   * in coarse seconds.
   */
  heedShapes?(shapes: readonly Parameters[], now?: number): string | null;

  /**
   * Digest of the replicated content, equal at two instances with the same content: 16 hex digits.
   * Not for the packet path. It leaves out entries that have expired by `now` (coarse seconds;
   * default: the current time) and entries that are locked at that moment. So two digests can be
   * compared if both were computed for the same `now` and no operation was under way.
   *
   * It also leaves out entries that an instance may evict by itself (half-open ones), because after
   * a flood the instances lack different ones. `evictable` includes them, for tests in which none
   * is evicted.
   */
  digest(now?: number, evictable?: boolean): string;

  /**
   * Completes or undoes a dead writer's current operation, and releases its locks. Returns the
   * number of words and locks that were recovered.
   */
  recover(writerId: number, journal: Journal, logPosition: number): number;

  /** The number of slots of a table whose entries expire. Then there is `sweep`. */
  readonly tableSlots?: number;

  /**
   * Removes expired entries that can be forgotten from the next `slots` slots, in turn. Returns how
   * many. The plane calls it (workers/plane/sweeps.ts), and the object itself when it adds entries.
   */
  sweep?(now: number, slots: number): number;

  /** Figures for `show objects`: used, capacity, collisions and so on. */
  describe(now: number): Record<string, number>;
}
