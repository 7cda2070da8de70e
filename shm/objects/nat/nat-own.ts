/**
 * The bindings that were made at this instance, and since when, to log how long each lasted. The
 * memory is local to this instance. Bindings end without a message, by the clock or by another
 * claim, so they are checked in turn.
 *
 *     by slot: since (coarse seconds; 0: none), place, internal address, internal port and protocol
 *
 * The thread that binds notes the binding. One thread checks them. A slot is given to another key,
 * and a port to another binding, only once the one before has been over for `CLOCK_SKEW_GUARD_S`.
 * So a thread that checks every slot more often than that misses none. A binding that continues in
 * its place, after it expired or in a new generation, counts as the same one, unless its end was
 * reported meanwhile.
 */

import { CLOCK_SKEW_GUARD_S } from '../../clock.js';
import type { Region } from '../../region.js';
import { BYTES_PER_WORD } from '../../struct.js';
import type { ExternalPlaces } from '../ports/external-places.js';
import type { FlowSlots } from '../table/table-slots.js';
import { DEAD, PLACE } from './nat-tables.js';

const WORDS = 4;
const SINCE = 0;
const PLACE_WORD = 1;
const ADDRESS = 2;
const PORT = 3;

/** Every slot must be checked within this many seconds. */
export const LOOKED_AT_WITHIN_S = CLOCK_SKEW_GUARD_S / 2;

/**
 * Called when a binding made here has ended: with its inside endpoint (raw address,
 * `portAndProtocol`), its external one (raw), and the coarse seconds of its begin and end.
 */
export type BindingEnd = (
  address: number,
  portAndProtocol: number,
  externalAddress: number,
  externalPort: number,
  since: number,
  until: number,
) => void;

export function ownBindingsBytes(slots: number): number {
  return slots * WORDS * BYTES_PER_WORD;
}

export class OwnBindings {
  private readonly words: Int32Array;
  private readonly flows: FlowSlots;
  private readonly places: ExternalPlaces;
  private cursor = 0;
  /** Called for each end, by the thread that finds it. */
  onEnd: BindingEnd = () => {};

  constructor(memory: Region, byteOffset: number, flows: FlowSlots, places: ExternalPlaces) {
    this.words = memory.i32(byteOffset, flows.slots * WORDS);
    this.flows = flows;
    this.places = places;
  }

  /** Notes that the binding in `slot` was made here. False if it is known already and continues. */
  note(slot: number, now: number): boolean {
    const { flows, words } = this;
    const at = slot * WORDS;
    const [address, port, place] = [flows.key(slot, 0), flows.key(slot, 1), flows.value(slot, PLACE)];
    if (words[at + SINCE] !== 0) {
      if (this.isOf(at, address, port, place)) return false;
      this.end(at, now);
    }
    words[at + PLACE_WORD] = place;
    words[at + ADDRESS] = address;
    words[at + PORT] = port;
    Atomics.store(words, at + SINCE, now);
    return true;
  }

  /** Checks the next `slots` slots, and calls `onEnd` for bindings that have ended. */
  look(slots: number, now: number): void {
    for (let n = 0; n < slots; n++) {
      this.cursor = this.cursor + 1 < this.flows.slots ? this.cursor + 1 : 0;
      if (this.words[this.cursor * WORDS + SINCE] !== 0) this.lookAt(this.cursor, now);
    }
  }

  private lookAt(slot: number, now: number): void {
    const { flows } = this;
    const at = slot * WORDS;
    const isHeld = this.isOf(at, flows.key(slot, 0), flows.key(slot, 1), flows.value(slot, PLACE));
    if (!isHeld || flows.value(slot, DEAD) !== 0) this.end(at, now);
    else if (flows.expires(slot) <= now) this.end(at, flows.expires(slot));
  }

  private isOf(at: number, address: number, port: number, place: number): boolean {
    const { words } = this;
    return words[at + ADDRESS] === address && words[at + PORT] === port && words[at + PLACE_WORD] === place;
  }

  private end(at: number, until: number): void {
    const { words, places } = this;
    const since = words[at + SINCE];
    const [address, port, place] = [words[at + ADDRESS], words[at + PORT], words[at + PLACE_WORD]];
    // Only one thread reports the end, even if several find it at the same time.
    if (since !== 0 && Atomics.compareExchange(words, at + SINCE, since, 0) === since)
      this.onEnd(address, port, places.address(place), places.port(place), since, until);
  }
}
