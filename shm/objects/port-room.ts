/**
 * Ports for new bindings where they are short. One external address has some 64,000 ports a
 * protocol, which a flood takes before the quota of half-open bindings is full. So half-open
 * bindings are evicted when ports are short too, by protocol, external address and range
 * (well-known or not):
 *
 * - An allocation that found no port at random, where few are free, looks at some ports and evicts
 *   the half-open binding among them that expires next. So a flood keeps evicting its own, and some
 *   ports stay free for others.
 * - An allocation that found none at all evicts several, and takes one that was evicted before, as
 *   soon as that is safe.
 * - A timer does the same where bindings come by records of other sites (`keepFree`).
 *
 * Bindings that were answered are never evicted for their ports, nor are those younger than
 * `YOUNG_S`. The port of an evicted binding is free after the guard of its slot (flow-slots.ts).
 * Some ports that rest are free at once too: those of half-open bindings that ran out unanswered
 * (RFC 6888 REQ-8 is about ports that were used), and, after the guard, those of answered ones that
 * the quota evicted.
 */

import { NONE } from '../none.js';
import { PROTOCOL_COUNT } from './external-places.js';
import { isYoung } from './half-open.js';
import type { NatTables } from './nat-tables.js';
import type { PortAllocator } from './port-allocator.js';

/** Ports looked at to find one binding to evict, and bindings compared of these. */
const LOOKED_AT = 64;
const COMPARED = 8;
/** Searches that found none after which a call ends. */
const FRUITLESS_MAX = 3;
/** Places remembered that this thread has freed, for allocations that find none. A power of two. */
const FREED = 256;
/**
 * Ports looked at, at random, to find out whether a range of ports is short; it is if fewer than
 * `FREE_MIN` of them are free. That is what a flood of 8,000 a second takes of 64,000 ports before
 * the first that it had evicted can be used.
 */
const SAMPLED = 64;
const FREE_MIN = 16;
/** Ranges looked at by one call, and bindings evicted of each, at most. */
const RANGES_MAX = 12;
const EVICTED_MAX = 128;

export class PortRoom {
  private readonly tables: NatTables;
  private readonly allocator: PortAllocator;
  private readonly freed = new Int32Array(FREED).fill(NONE);
  private next = 0;
  /** Which range `keepFree` looks at next. */
  private turn = 0;

  constructor(tables: NatTables, allocator: PortAllocator) {
    this.tables = tables;
    this.allocator = allocator;
  }

  /**
   * Evicts up to `count` half-open bindings whose ports the allocation under way could have.
   * Returns how many ports are free at once.
   */
  make(count: number, now: number): number {
    let freed = 0;
    let fruitless = 0;
    for (let n = 0; n < count && fruitless < FRUITLESS_MAX; n++) {
      const place = this.choose(now);
      const lifted = place !== NONE && this.lift(place, now);
      if (lifted) freed++;
      else if (place === NONE || !this.tables.evictSlot(this.tables.claims.owner(place), now)) {
        fruitless++;
        continue;
      }
      this.freed[this.next] = place;
      this.next = (this.next + 1) & (FREED - 1);
    }
    return freed;
  }

  /**
   * A place that was freed here, that the allocation under way may have, and that is free now:
   * locked. `NONE`: there is none.
   */
  take(now: number): number {
    const { tables, allocator, freed } = this;
    const { claims, tx } = tables;
    for (let n = 0; n < FREED; n++) {
      const place = freed[n];
      if (place === NONE || !allocator.mayHave(place) || !tables.isFree(place, now)) continue;
      if (!tx.tryLock(claims.lockOf(place))) continue;
      freed[n] = NONE;
      if (tables.isFree(place, now)) return place;
      tx.unlockLast();
    }
    return NONE;
  }

  /**
   * Looks at the next few ranges of ports, in turn, and evicts bindings of those that are short of
   * free ones.
   */
  keepFree(now: number): void {
    const { allocator } = this;
    const ranges = PROTOCOL_COUNT * allocator.addresses * 2;
    for (let n = 0; n < Math.min(ranges, RANGES_MAX); n++) {
      this.turn = (this.turn + 1) % ranges;
      allocator.aim(this.turn);
      if (this.isShort(now)) this.make(EVICTED_MAX, now);
    }
  }

  /** Whether few of the ports that the allocation under way could have are free. */
  isShort(now: number): boolean {
    const { allocator, tables } = this;
    let free = 0;
    let looked = 0;
    for (let n = 0; n < SAMPLED; n++) {
      allocator.lookAround();
      const place = allocator.around();
      if (place === NONE) continue;
      looked++;
      if (tables.isFree(place, now)) free++;
    }
    return looked > 0 && free * SAMPLED < FREE_MIN * looked;
  }

  /**
   * Of a few places that lead to half-open bindings, the one whose binding expires next; or one
   * that rests unused.
   */
  private choose(now: number): number {
    const { allocator, tables } = this;
    const { answers, claims, flows } = tables;
    let chosen: number = NONE;
    let soonest = 0;
    let compared = 0;
    allocator.lookAround();
    for (let n = 0; n < LOOKED_AT && compared < COMPARED; n++) {
      const place = allocator.around();
      if (place === NONE) continue;
      if (claims.restsUnused(place) && claims.freedAt(place) <= now && !tables.isFree(place, now)) return place;
      const slot = claims.owner(place);
      if (!tables.isBound(slot, place) || !flows.isHalfOpen(slot) || answers.isAnswered(slot)) continue;
      compared++;
      if (isYoung(flows.generation(slot), now)) continue;
      if (chosen !== NONE && flows.expires(slot) >= soonest) continue;
      chosen = place;
      soonest = flows.expires(slot);
    }
    return chosen;
  }

  /** Ends the rest of a place that `restsUnused`. False if it does not rest, or is locked. */
  private lift(place: number, now: number): boolean {
    const { claims, tx } = this.tables;
    if (!claims.restsUnused(place) || claims.freedAt(place) > now) return false;
    tx.begin();
    const lifted = tx.tryLock(claims.lockOf(place)) && claims.restsUnused(place);
    if (lifted) {
      claims.release(tx, place, 1, false);
      tx.commit();
    } else tx.abort();
    return lifted;
  }
}
