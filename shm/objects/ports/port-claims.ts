/**
 * The owners of external ports: one claim per place, directly indexed. This file knows neither log
 * nor records. The port pool and the NAT binding are built on it.
 *
 *     claim    generation (24) | writer that holds the lock (8)
 *     key      two words: the owner
 *     owner    slot of the owner's flow, a local hint, not replicated; below 0: the place rests, see `rest`
 *
 * A place is `((protocolIndex * addresses + addressIndex) << 16) | port`. A claim is the pair
 * (generation, key). Of two claims on a place the larger stands: by generation, then by the key's
 * words as unsigned numbers. Generation 0 means that the place was never claimed. A claim is never
 * forgotten, only superseded, so claims form a lattice: every instance ends with the same claims,
 * whatever their order and repetition. The object above decides whether a claim still *matters*: a
 * place is free when its owner's flow is over.
 *
 * Words change only under the claim's lock. `claim` is one word and is read whole. A reader of the
 * other words that takes no lock checks them against the flow that they lead to (nat-binding.ts).
 */

import { struct } from '../../struct.js';
import { LOCK_MASK, type Transaction } from '../core/transaction.js';

const CLAIM = struct({ claim: 1, key: 2, owner: 1 });
const { claim: AT_CLAIM, key: AT_KEY, owner: AT_OWNER } = CLAIM.at;
const SHIFT = 2;

export const PORTS_PER_ADDRESS = 65_536;
/** Generations follow the time, in units of 64 s. 24 bits of them last until 2058. */
const GENERATION_SHIFT = 6;
/** The last generation a place can have. */
export const MAX_CLAIM_GENERATION = 0xff_ffff;

/**
 * The generation of a claim that supersedes one of generation `current`, at `now` (coarse seconds):
 * the next one, and at least that of the time. So if a member restarts without its state, and takes
 * places that it had claimed before, its new claims supersede the old ones. The exceptions are a
 * restart within the same unit of time, and a place that was reused faster than the units pass.
 */
export function nextClaimGeneration(current: number, now: number): number {
  return Math.max(current + 1, now >>> GENERATION_SHIFT);
}

/**
 * The owner word of a place that has had no owner since `at` (coarse seconds). `used`: its flow was
 * answered, so a remote may still send to it.
 */
export function rest(at: number, used: boolean): number {
  return -((Math.max(1, at) << 1) | Number(used));
}

/** Words of shared memory for the claims of `places` places. */
export function portClaimsWords(places: number): number {
  return places * CLAIM.words;
}

/** Whether the pair `a0`, `a1` is larger than `b0`, `b1`, as unsigned words. */
export function isLargerKey(a0: number, a1: number, b0: number, b1: number): boolean {
  return a0 === b0 ? a1 >>> 0 > b1 >>> 0 : a0 >>> 0 > b0 >>> 0;
}

export class PortClaims {
  readonly places: number;
  private readonly words: Int32Array;
  private readonly base: number;

  constructor(words: Int32Array, base: number, places: number) {
    this.words = words;
    this.base = base;
    this.places = places;
  }

  /**
   * Returns a function that writes `owner` of `places[i]` to `slots[i]` for i < `count`. If the
   * place is `NONE` or rests, the result may be any number. Make it once per thread: see
   * flow-lookup.ts.
   */
  ownerFinder(places: Int32Array, slots: Int32Array): (count: number) => void {
    const { words, base } = this;
    // One pass: nothing depends on the values read, so the cache misses overlap. NONE is -1: its
    // word is before the claims.
    return (count: number): void => {
      for (let i = 0; i < count; i++) slots[i] = words[(base + (places[i] << SHIFT) + AT_OWNER) | 0];
    };
  }

  generation(place: number): number {
    return this.words[this.base + (place << SHIFT) + AT_CLAIM] >>> 8;
  }

  isLocked(place: number): boolean {
    return (this.words[this.base + (place << SHIFT) + AT_CLAIM] & LOCK_MASK) !== 0;
  }

  /** Number of locks held now: 0 if no operation is under way. Reads every place. */
  locksHeld(): number {
    let held = 0;
    for (let place = 0; place < this.places; place++) if (this.isLocked(place)) held++;
    return held;
  }

  key0(place: number): number {
    return this.words[this.base + (place << SHIFT) + AT_KEY];
  }

  key1(place: number): number {
    return this.words[this.base + (place << SHIFT) + AT_KEY + 1];
  }

  /** The slot of the owner's flow, as a hint. For a place without an owner it may be any slot. */
  owner(place: number): number {
    const owner = this.words[this.base + (place << SHIFT) + AT_OWNER];
    return owner < 0 ? 0 : owner;
  }

  /**
   * Coarse seconds at which the last flow of the place ended, as far as that was seen, if the place
   * has no owner; otherwise 0.
   */
  freedAt(place: number): number {
    const owner = this.words[this.base + (place << SHIFT) + AT_OWNER];
    return owner < 0 ? -owner >>> 1 : 0;
  }

  /** Whether a place has no owner, and its last flow ended without an answer or was evicted. */
  restsUnused(place: number): boolean {
    const owner = this.words[this.base + (place << SHIFT) + AT_OWNER];
    return owner < 0 && (-owner & 1) === 0;
  }

  isOwnedBy(place: number, key0: number, key1: number): boolean {
    const at = this.base + (place << SHIFT);
    return (
      this.words[at + AT_CLAIM] >>> 8 !== 0 && this.words[at + AT_KEY] === key0 && this.words[at + AT_KEY + 1] === key1
    );
  }

  /** Word index of a place's lock, for `Transaction.lock`. */
  lockOf(place: number): number {
    return this.base + (place << SHIFT) + AT_CLAIM;
  }

  /** Whether the claim (generation, key) would supersede the place's current claim. */
  wouldSupersede(place: number, generation: number, key0: number, key1: number): boolean {
    const current = this.generation(place);
    if (generation !== current) return generation > current;
    return isLargerKey(key0, key1, this.key0(place), this.key1(place));
  }

  /** Writes a claim on a locked place. */
  put(tx: Transaction, place: number, generation: number, key0: number, key1: number, owner: number): void {
    const at = this.base + (place << SHIFT);
    tx.setLocked(at + AT_CLAIM, generation << 8);
    tx.set(at + AT_KEY, key0);
    tx.set(at + AT_KEY + 1, key1);
    tx.set(at + AT_OWNER, owner);
  }

  /** Notes that a locked place has no owner since `at`: see `rest`. */
  release(tx: Transaction, place: number, at: number, used: boolean): void {
    this.setOwner(tx, place, rest(at, used));
  }

  setOwner(tx: Transaction, place: number, owner: number): void {
    const at = this.base + (place << SHIFT) + AT_OWNER;
    if (this.words[at] !== owner) tx.set(at, owner);
  }
}
