/** A flow table looked at from outside the packet path, entry by entry. */

import type { FlowSlots } from './flow-slots.js';

/** After so many slots without anything to show comes a `null`: some microseconds. */
const SLOTS_SILENT_MAX = 1000;

/** Calls `see` with each entry that has not expired. `entry` has room for a record and is used again. */
export function walkEntries(
  slots: FlowSlots,
  entry: Int32Array,
  now: number,
  toldOnly: boolean,
  see: (entry: Int32Array) => void,
): void {
  for (let slot = 0; slot < slots.slots; slot++)
    if (slots.isUsed(slot) && !(toldOnly && !slots.isTold(slot)) && slots.read(slot, entry, 0) && entry[1] > now)
      see(entry);
}

/** See `FlowTable.entries`. `entry` has room for a record and is used again. */
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
