/**
 * Finds ports for new bindings if they are short. One external address has some 64,000 ports per
 * protocol, which a flood takes before the quota of half-open bindings is full. So half-open
 * bindings are also evicted if ports are short, by protocol, external address and range (well-known
 * or not):
 *
 * - If an allocation found no port at random and few are free, it checks some ports and evicts the
 *   half-open binding among them that expires first. So a flood keeps evicting its own bindings,
 *   and some ports stay free for others.
 * - If an allocation found no port at all, it evicts several bindings. It takes a port that was
 *   freed before, as soon as that is safe.
 * - A timer does the same for bindings that come by records of other sites (`keepFree`).
 *
 * Answered bindings are never evicted for their ports, nor are those younger than `YOUNG_S`. The
 * port of an evicted binding is free after the guard of its slot (table-slots.ts). Two kinds of
 * resting ports are freed at once: those of half-open bindings that expired unanswered (RFC 6888
 * REQ-8 is about ports that were used) and, after the guard, those of answered bindings that the
 * quota evicted.
 */

import { NONE } from '../../none.js';
import { PROTOCOL_COUNT } from '../ports/external-places.js';
import type { PortAllocator } from '../ports/port-allocator.js';
import { isYoung } from '../table/half-open.js';
import type { NatTables } from './nat-tables.js';

/** Ports that are checked to find one binding to evict, and bindings that are compared. */
const LOOKED_AT = 64;
const COMPARED = 8;
/** A call ends after this many fruitless searches. */
const FRUITLESS_MAX = 3;
/**
 * Number of places freed by this thread that it remembers, for allocations that find none. A power
 * of two.
 */
const FREED = 256;
/**
 * Ports in a sample that shows whether a range of ports is short. It is short if fewer than
 * `FREE_MIN` of them are free. That is what a flood of 8,000 per second takes of 64,000 ports
 * before the first evicted port can be used.
 */
const SAMPLED = 64;
const FREE_MIN = 16;
/** Maximum number of ranges that one call checks, and of bindings that it evicts in each. */
const RANGES_MAX = 12;
const EVICTED_MAX = 128;

export class PortRoom {
  private readonly tables: NatTables;
  private readonly allocator: PortAllocator;
  private readonly freed = new Int32Array(FREED).fill(NONE);
  private next = 0;
  /** The range that `keepFree` checked last. */
  private turn = 0;

  constructor(tables: NatTables, allocator: PortAllocator) {
    this.tables = tables;
    this.allocator = allocator;
  }

  /**
   * Evicts up to `count` half-open bindings whose ports the current allocation could have. Returns
   * how many ports are free at once.
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
   * Locks and returns a place that this thread freed, that the current allocation may have, and
   * that is free now. `NONE` if there is no such place.
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

  /** Checks the next few ranges of ports, in turn, and evicts bindings in those that are short. */
  keepFree(now: number): void {
    const { allocator } = this;
    const ranges = PROTOCOL_COUNT * allocator.addresses * 2;
    for (let n = 0; n < Math.min(ranges, RANGES_MAX); n++) {
      this.turn = (this.turn + 1) % ranges;
      allocator.aim(this.turn);
      if (this.isShort(now)) this.make(EVICTED_MAX, now);
    }
  }

  /** Whether few of the ports that the current allocation could have are free. */
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
   * Compares a few places of half-open bindings. Returns the place whose binding expires first, or
   * a place that rests unused, or `NONE`.
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
