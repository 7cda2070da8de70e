/** Reads the NAT's bindings outside the packet path: one by one, and all as a digest. */

import { ContentDigest } from '../core/content-digest.js';
import { swapPort } from '../ports/external-places.js';
import { ENTRY_WORDS, type NatTables, type Rank } from './nat-tables.js';

/** A binding as `entries` shows it. Addresses are raw words, ports in host order. */
export interface NatEntry {
  readonly protocol: number;
  readonly internalAddress: number;
  readonly internalPort: number;
  readonly externalAddress: number;
  readonly externalPort: number;
  readonly rank: Rank;
  readonly generation: number;
  /** Coarse seconds. */
  readonly expires: number;
  /** Whether another flow has its port. */
  readonly dead: boolean;
}

/** After this many slots without a result, `null` is yielded: some microseconds of work. */
const SLOTS_SILENT_MAX = 1000;

/** See `NatBinding.entries`. */
export function* natEntries(
  tables: NatTables,
  now: number,
  filter: (entry: NatEntry) => boolean = () => true,
): Generator<NatEntry | null> {
  const { flows, places } = tables;
  const read = new Int32Array(ENTRY_WORDS);
  let silent = 0;
  for (let slot = 0; slot < flows.slots; slot++) {
    if (flows.isUsed(slot) && flows.read(slot, read, 0) && read[1] > now) {
      const place = read[5];
      const entry: NatEntry = {
        protocol: read[4] >>> 16,
        internalAddress: read[3],
        internalPort: swapPort(read[4] & 0xffff),
        externalAddress: places.address(place),
        externalPort: swapPort(places.port(place)),
        rank: read[2] as Rank,
        generation: read[0],
        expires: read[1],
        dead: read[6] !== 0,
      };
      if (filter(entry)) {
        silent = 0;
        yield entry;
        continue;
      }
    }
    if (++silent === SLOTS_SILENT_MAX) {
      silent = 0;
      yield null;
    }
  }
}

/** See `StateObject.describe`. */
export function natFigures(tables: NatTables): Record<string, number> {
  return {
    capacity: tables.capacity,
    used: tables.used,
    slots: tables.flows.slots,
    places: tables.places.count,
    collisions: tables.counted('collisions'),
    splits: tables.counted('splits'),
    foreign_address: tables.counted('foreign'),
    exhausted: tables.counted('exhausted'),
    subscriber_limited: tables.counted('limited'),
    table_full: tables.counted('tableFull'),
    log_full: tables.counted('logFull'),
    contended: tables.counted('contended'),
    malformed: tables.counted('malformed'),
    reclaimed: tables.counted('reclaimed'),
    ...tables.halfOpen.describe(),
  };
}

/**
 * See `StateObject.digest`. Covers key, generation, rank, external address and port, expiry and
 * claim of every valid binding that is not local-only.
 */
export function natDigest(tables: NatTables, now: number, evictable: boolean): string {
  const { flows, claims, places, use } = tables;
  const digest = new ContentDigest();
  const content = new Int32Array(ENTRY_WORDS + 1);
  const read = content.subarray(0, ENTRY_WORDS);
  for (let slot = 0; slot < flows.slots; slot++) {
    if (
      !flows.isUsed(slot) ||
      !flows.isReplicated(slot) ||
      !flows.read(slot, read, 0) ||
      read[1] <= now ||
      read[6] !== 0
    )
      continue;
    if (!evictable && flows.isHalfOpenRank(read[2])) continue;
    // A member that lacks the address cannot have the binding.
    if (use.isBarred(places.indexAt(read[5]))) continue;
    const place = read[5];
    content[5] = places.address(place);
    content[6] = place & 0xffff;
    content[7] = claims.generation(place);
    digest.add(content);
  }
  return digest.toString();
}
