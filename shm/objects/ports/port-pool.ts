/**
 * A port pool: the owner of each port, shared by all instances. It is for middleboxes that assign
 * ports, or anything else that is numbered, on their own. The NAT binding keeps its claims together
 * with its flows instead (nat-binding.ts).
 *
 * A claim is (generation, owner's key), and the larger stands: see port-claims.ts. Taking a free
 * place raises its generation and writes the owner. Releasing it raises the generation and writes
 * an empty owner. So a later change at an instance supersedes what the instance had seen, and of
 * two concurrent changes the larger key stands at every instance. Generations follow the time, so a
 * member that has restarted without state supersedes its earlier claims: `nextClaimGeneration`.
 * Nothing is forgotten, so records may come in any order, any number of times.
 *
 * A claim's words change under its lock. `owner` reads them without a lock: see there.
 *
 *     record   place, generation, key (2 words; both 0: no owner)
 */

import { NONE } from '../../none.js';
import type { Region } from '../../region.js';
import { BYTES_PER_WORD, LINE, struct } from '../../struct.js';
import { ContentDigest } from '../core/content-digest.js';
import type { Journal } from '../core/journal.js';
import { Applied, merged, type OpenContext, type StateDefinition, type StateObject } from '../core/object.js';
import { recoverTransaction, Transaction, tryAgain } from '../core/transaction.js';
import {
  isLargerKey,
  MAX_CLAIM_GENERATION,
  nextClaimGeneration,
  PORTS_PER_ADDRESS,
  PortClaims,
  portClaimsWords,
} from './port-claims.js';

interface PortPoolOptions {
  /** Number of protocols, each with its own ports. */
  readonly protocols: number;
  /** Number of addresses, each with its own ports. */
  readonly addresses: number;
}

/** The only operation in the log. */
export const PORT_CLAIM = 1;

const RECORD = struct({ place: 1, generation: 1, key: 2 });
const COUNTS = struct({ collisions: LINE, logFull: 1, contended: 1, malformed: 1 });

const PLACES_MAX = 2 ** 26;

export function portPool({ protocols, addresses }: PortPoolOptions): StateDefinition<PortPool> {
  const places = protocols * addresses * PORTS_PER_ADDRESS;
  if (!Number.isInteger(places) || places < 1 || places > PLACES_MAX)
    throw new RangeError(
      `port pool of ${protocols} protocols and ${addresses} addresses: at most 1024 of both together`,
    );
  return {
    kind: 'port-pool',
    parameters: { protocols, addresses },
    bytes: (COUNTS.words + portClaimsWords(places)) * BYTES_PER_WORD,
    open: (context) => new PortPool(context, places, addresses),
  };
}

export class PortPool implements StateObject {
  readonly id: number;
  readonly delivery = 'any-order';
  private readonly addresses: number;
  private readonly words: Int32Array;
  private readonly claims: PortClaims;
  private readonly transaction: Transaction | null;

  constructor({ id, region, writer }: OpenContext, places: number, addresses: number) {
    this.id = id;
    this.addresses = addresses;
    this.words = region.i32();
    this.claims = new PortClaims(this.words, COUNTS.words, places);
    this.transaction = writer === null ? null : new Transaction(this.words, id, writer);
  }

  /** The place of a port. See port-claims.ts. */
  place(protocolIndex: number, addressIndex: number, port: number): number {
    return ((protocolIndex * this.addresses + addressIndex) << 16) | port;
  }

  /**
   * Takes a free place for a key, whose words must not both be 0. Writes one log record. False if
   * the place has an owner, or if that is not possible now.
   */
  acquire(place: number, key0: number, key1: number, now: number): boolean {
    return this.change(place, 0, 0, key0, key1, now);
  }

  /**
   * Releases a place. Writes one log record. False if the key does not own it, or if that is not
   * possible now.
   */
  release(place: number, key0: number, key1: number, now: number): boolean {
    return this.change(place, key0, key1, 0, 0, now);
  }

  isFree(place: number): boolean {
    return this.isOwner(place, 0, 0);
  }

  /**
   * Whether a key owns the place. Takes no lock: while the owner changes, it may return false for
   * both the old and the new owner.
   */
  isOwner(place: number, key0: number, key1: number): boolean {
    return this.claims.key0(place) === key0 && this.claims.key1(place) === key1;
  }

  /**
   * Copies the owner's key, as it was at one moment, into `out[outAt …]`. False if there is no
   * owner, or it is changing.
   */
  owner(place: number, out: Int32Array, outAt: number): boolean {
    const at = this.claims.lockOf(place);
    const before = Atomics.load(this.words, at);
    out[outAt] = this.claims.key0(place);
    out[outAt + 1] = this.claims.key1(place);
    // An equal, unlocked claim word says that no thread changed the key meanwhile, except to a
    // larger key of the same generation. In that case the words that were read first are no longer
    // there.
    if ((before & 0xff) !== 0 || Atomics.load(this.words, at) !== before) return false;
    if (!this.isOwner(place, out[outAt], out[outAt + 1])) return false;
    return out[outAt] !== 0 || out[outAt + 1] !== 0;
  }

  private change(place: number, from0: number, from1: number, to0: number, to1: number, now: number): boolean {
    if ((from0 | from1 | to0 | to1) === 0) throw new RangeError('port pool: a key of two zero words is nobody');
    const { claims, tx } = this;
    if (!this.isOwner(place, from0, from1)) return false;
    const at = tx.beginLogged(PORT_CLAIM, RECORD.words);
    if (at === NONE) {
      this.count(COUNTS.at.logFull);
      return false;
    }
    const locked = tx.lock(claims.lockOf(place));
    if (!locked || !this.isOwner(place, from0, from1) || claims.generation(place) === MAX_CLAIM_GENERATION) {
      tx.abort();
      if (!locked) this.count(COUNTS.at.contended);
      return false;
    }
    const generation = nextClaimGeneration(claims.generation(place), now);
    claims.put(tx, place, generation, to0, to1, 0);
    const record = tx.record;
    record[at + RECORD.at.place] = place;
    record[at + RECORD.at.generation] = generation;
    record[at + RECORD.at.key] = to0;
    record[at + RECORD.at.key + 1] = to1;
    tx.commit();
    return true;
  }

  apply(op: number, words: Int32Array, at: number, length: number): Applied {
    const place = words[at + RECORD.at.place];
    const generation = words[at + RECORD.at.generation];
    if (
      op !== PORT_CLAIM ||
      length !== RECORD.words ||
      place < 0 ||
      place >= this.claims.places ||
      generation < 1 ||
      generation > MAX_CLAIM_GENERATION
    ) {
      this.count(COUNTS.at.malformed);
      return Applied.MALFORMED;
    }
    const key0 = words[at + RECORD.at.key];
    const key1 = words[at + RECORD.at.key + 1];
    const { claims, tx } = this;
    for (let tries = 1; ; tries++) {
      tx.begin();
      if (tx.lock(claims.lockOf(place))) {
        const changed = claims.wouldSupersede(place, generation, key0, key1);
        const rival =
          claims.generation(place) === generation && !this.isFree(place) && !this.isOwner(place, key0, key1);
        if (rival && (key0 | key1) !== 0) this.count(COUNTS.at.collisions);
        if (changed) claims.put(tx, place, generation, key0, key1, 0);
        tx.commit();
        return changed ? Applied.CHANGED : Applied.UNCHANGED;
      }
      tx.abort();
      if (!tryAgain(tries, true)) {
        this.count(COUNTS.at.contended);
        return Applied.BUSY;
      }
    }
  }

  coalesceKey(_op: number, words: Int32Array, at: number): number {
    return words[at + RECORD.at.place];
  }

  coalesce(_op: number, words: Int32Array, earlier: number, later: number, length: number): boolean {
    const { place, generation, key } = RECORD.at;
    if (words[earlier + place] !== words[later + place]) return false;
    const order = words[later + generation] - words[earlier + generation];
    const larger = isLargerKey(
      words[later + key],
      words[later + key + 1],
      words[earlier + key],
      words[earlier + key + 1],
    );
    if (order > 0 || (order === 0 && larger)) words.copyWithin(earlier, later, later + length);
    return true;
  }

  /**
   * Applies every claim of another instance's region, as if it had been received as a record. A
   * malformed claim is counted as such.
   */
  merge(from: Region): number {
    const theirs = new PortClaims(from.i32(), COUNTS.words, this.claims.places);
    const record = new Int32Array(RECORD.words);
    let changed = 0;
    for (let place = 0; place < theirs.places; place++) {
      record[RECORD.at.place] = place;
      record[RECORD.at.generation] = theirs.generation(place);
      record[RECORD.at.key] = theirs.key0(place);
      record[RECORD.at.key + 1] = theirs.key1(place);
      if (record[RECORD.at.generation] === 0) continue;
      changed += merged(this.apply(PORT_CLAIM, record, 0, RECORD.words), this.id);
    }
    return changed;
  }

  recover(writerId: number, journal: Journal, logPosition: number): number {
    return recoverTransaction(this.words, this.id, writerId, journal, logPosition);
  }

  /** Digest over every claim ever made. */
  digest(): string {
    const digest = new ContentDigest();
    const entry = new Int32Array(RECORD.words);
    for (let place = 0; place < this.claims.places; place++) {
      const generation = this.claims.generation(place);
      if (generation === 0) continue;
      entry[RECORD.at.place] = place;
      entry[RECORD.at.generation] = generation;
      entry[RECORD.at.key] = this.claims.key0(place);
      entry[RECORD.at.key + 1] = this.claims.key1(place);
      digest.add(entry);
    }
    return digest.toString();
  }

  describe(): Record<string, number> {
    return {
      places: this.claims.places,
      collisions: this.words[COUNTS.at.collisions],
      log_full: this.words[COUNTS.at.logFull],
      contended: this.words[COUNTS.at.contended],
      malformed: this.words[COUNTS.at.malformed],
    };
  }

  locksHeld(): number {
    return this.claims.locksHeld();
  }

  private get tx(): Transaction {
    if (this.transaction === null) throw new Error(`state object ${this.id} is open to read only in this thread`);
    return this.transaction;
  }

  private count(counter: number): void {
    Atomics.add(this.words, counter, 1);
  }
}
