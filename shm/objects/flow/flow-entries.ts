/** Reads a flow table entry by entry, outside the packet path. */

import { ContentDigest } from '../core/content-digest.js';
import { type FlowShape, FlowSlots } from '../table/table-slots.js';
import { STATUS } from './flow-record.js';

/** The secret is not needed: entries are visited in slot order, not searched. */
const NO_SECRET = new Int32Array(2);

/** After this many slots without a result, `null` is yielded: some microseconds of work. */
const SLOTS_SILENT_MAX = 1000;

/**
 * Calls `see` with each entry that has not expired. With `replicatedOnly`, only with replicated
 * entries. `entry` has room for a record and is reused.
 */
export function walkEntries(
  slots: FlowSlots,
  entry: Int32Array,
  now: number,
  replicatedOnly: boolean,
  see: (entry: Int32Array) => void,
): void {
  for (let slot = 0; slot < slots.slots; slot++)
    if (
      slots.isUsed(slot) &&
      !(replicatedOnly && !slots.isReplicated(slot)) &&
      slots.read(slot, entry, 0) &&
      entry[1] > now
    )
      see(entry);
}

/** See `FlowTable.entries`. `entry` has room for a record and is reused. */
export function* flowEntries(slots: FlowSlots, entry: Int32Array, now: number): Generator<Int32Array | null> {
  let silent = 0;
  for (let slot = 0; slot < slots.slots; slot++) {
    if (slots.isUsed(slot) && slots.read(slot, entry, 0) && entry[1] > now) {
      silent = 0;
      yield entry;
    } else if (++silent === SLOTS_SILENT_MAX) {
      silent = 0;
      yield null;
    }
  }
}

/** Writes the entry of a locked slot at `out[at …]`, in the form of a record. */
export function writeFlow(slots: FlowSlots, slot: number, out: Int32Array, at: number): void {
  const status = at + slots.keyWords;
  for (let i = 0; i < slots.keyWords; i++) out[at + i] = slots.key(slot, i);
  out[status + STATUS.at.generation] = slots.generation(slot);
  out[status + STATUS.at.rank] = slots.rank(slot);
  out[status + STATUS.at.expires] = slots.expires(slot);
  for (let i = 0; i < slots.valueWords; i++) out[status + STATUS.words + i] = slots.value(slot, i);
}

/**
 * See `StateObject.digest`: the entries that are replicated and have not expired. `entry` has room
 * for a record.
 */
export function entriesDigest(slots: FlowSlots, entry: Int32Array, now: number, evictable: boolean): string {
  const digest = new ContentDigest();
  walkEntries(slots, entry, now, true, (seen) => {
    if (evictable || !slots.isHalfOpenRank(seen[2])) digest.add(seen);
  });
  return digest.toString();
}

/**
 * Yields the replicated entries of the table of this shape at `words[base …]`, in the form of
 * records. Each is read as it was at one moment. The array is reused.
 */
export function* flowRecords(words: Int32Array, base: number, shape: FlowShape): Generator<Int32Array> {
  const slots = new FlowSlots(words, base, shape, NO_SECRET);
  const { keyWords: status, valueWords } = shape;
  const record = new Int32Array(status + STATUS.words + valueWords);
  const entry = new Int32Array(record.length);
  for (let slot = 0; slot < slots.slots; slot++) {
    if (!slots.isUsed(slot) || !slots.isReplicated(slot) || !slots.read(slot, entry, 0)) continue;
    record.set(entry.subarray(STATUS.words));
    record.copyWithin(status + STATUS.words, status, status + valueWords);
    record[status + STATUS.at.generation] = entry[0];
    record[status + STATUS.at.expires] = entry[1];
    record[status + STATUS.at.rank] = entry[2];
    yield record;
  }
}
