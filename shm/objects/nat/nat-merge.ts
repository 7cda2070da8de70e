/**
 * Merges another instance's bindings into this instance's: a snapshot, or the other half of a
 * healed partition.
 *
 * Flows and claims are joined independently (nat-tables.ts), so their order does not change the
 * result. Valid flows still come first, each with its claim in one step. A claim without its flow
 * looks like a free port to the workers, which run meanwhile. Then come the claims whose flow is
 * gone or bound elsewhere, then the dead flows.
 */

import { NONE } from '../../none.js';
import type { Region } from '../../region.js';
import { capacityAt, type MergeSource } from '../core/merge-source.js';
import { Applied, merged } from '../core/object.js';
import { tryAgain } from '../core/transaction.js';
import { ExternalPlaces, TCP } from '../ports/external-places.js';
import { CONTENDED } from '../table/table-slots.js';
import { addressesOf } from './nat-options.js';
import { ENTRY_WORDS, NatTables } from './nat-tables.js';

/** The secret is not needed: entries are visited in slot order, not searched. */
const NO_SECRET = new Int32Array(4);
const NO_LIMITS = {
  halfOpen: 0,
  halfOpenRecords: 0,
  bindingsPerSubscriber: 0,
  newPerSecond: 0,
  reuseAfterS: 0,
  reserved: new Set<number>(),
};

export class NatMerge {
  private readonly id: number;
  private readonly ours: NatTables;
  private readonly theirs: NatTables;
  private readonly now: number;
  private readonly source: MergeSource | undefined;
  /**
   * By index of the other instance's addresses: the first local place of the address for TCP, or
   * `NONE`.
   */
  private readonly firstPlaces: Int32Array;
  private readonly entry = new Int32Array(ENTRY_WORDS);
  private changed = 0;

  constructor(id: number, ours: NatTables, from: Region, now: number, source?: MergeSource) {
    this.id = id;
    this.ours = ours;
    this.source = source;
    this.theirs = new NatTables(
      { id, region: from, secret: NO_SECRET, writer: null, memberIndex: 0, memberCount: 1 },
      capacityAt(source, ours.capacity, 'flows'),
      source?.shape === undefined ? ours.places : new ExternalPlaces(addressesOf(source.shape)),
      NO_LIMITS,
    );
    this.now = now;
    const { places } = this.theirs;
    this.firstPlaces = Int32Array.from(places.list(), (address) => ours.places.find(address, 0, TCP));
  }

  /**
   * The local place of another instance's place. `NONE` if its address is not an external one here.
   */
  private placeHere(place: number): number {
    const { addressCount } = this.theirs.places;
    const index = place >>> 16;
    const first = this.firstPlaces[index % addressCount];
    if (first === NONE) return NONE;
    const protocol = Math.trunc(index / addressCount);
    return first + ((protocol * this.ours.places.addressCount) << 16) + (place & 0xffff);
  }

  /**
   * Merges all. Returns how many flows and claims changed local content. An entry that finds no
   * room or is malformed is counted as such.
   */
  run(): number {
    this.flows(false);
    this.claims();
    this.flows(true);
    return this.changed;
  }

  private flows(dead: boolean): void {
    const { theirs, entry } = this;
    const { record } = this.ours;
    for (let slot = 0; slot < theirs.flows.slots; slot++) {
      if (!theirs.flows.isUsed(slot) || !theirs.flows.isReplicated(slot) || !theirs.flows.read(slot, entry, 0))
        continue;
      if ((entry[6] !== 0) !== dead) continue;
      [record.generation, record.expires, record.rank, record.address, record.portAndProtocol, record.place] = entry;
      const { place, address, portAndProtocol } = record;
      const isPlace = theirs.places.isValid(place, portAndProtocol >>> 16);
      record.claimGeneration = isPlace ? theirs.claims.generation(place) : 0;
      const isOwned = isPlace && theirs.claims.isOwnedBy(place, address, portAndProtocol);
      record.place = isPlace ? this.placeHere(place) : place;
      if (record.place !== NONE) this.join(isOwned);
      else if (record.expires > this.now) {
        this.ours.count('foreign');
        if (this.source !== undefined && !this.ours.flows.isHalfOpenRank(record.rank)) this.source.full++;
      }
    }
  }

  private claims(): void {
    const { theirs } = this;
    const { record } = this.ours;
    for (let place = 0; place < theirs.claims.places; place++) {
      record.claimGeneration = theirs.claims.generation(place);
      if (record.claimGeneration === 0) continue;
      record.place = this.placeHere(place);
      if (record.place === NONE) continue;
      record.address = theirs.claims.key0(place);
      record.portAndProtocol = theirs.claims.key1(place);
      // Values that pass the check, for a flow that is long over.
      record.generation = 1;
      record.expires = 1;
      record.rank = 0;
      this.join(true);
    }
  }

  /** Joins the current record, with its claim or without. */
  private join(withClaim: boolean): void {
    const { ours, now } = this;
    const { record, key } = ours;
    if (!ours.isPlausible(now)) {
      ours.count('malformed');
      return;
    }
    if (!withClaim) record.claimGeneration = 0;
    const { claimGeneration, generation, rank, place, expires } = record;
    key[0] = record.address;
    key[1] = record.portAndProtocol;
    for (let tries = 1; ; tries++) {
      const applied = ours.tryApply(ours.flows.hash2(key[0], key[1]), now);
      if (applied !== CONTENDED) {
        this.changed += merged(applied, this.id, ours.flows.isHalfOpenRank(rank) ? undefined : this.source);
        return;
      }
      if (!tryAgain(tries, true)) {
        ours.count('contended');
        merged(Applied.BUSY, this.id);
      }
      // A try may have left the join of both flows in the record.
      Object.assign(record, { claimGeneration, generation, rank, place, expires });
    }
  }
}
