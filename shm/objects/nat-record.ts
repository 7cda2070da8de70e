/**
 * The NAT binding's one log record: "internal endpoint k has external place p until then".
 *
 *     address             internal address, raw
 *     portAndProtocol     internal port, raw (16) | IP protocol (8) from bit 16
 *     place               external place, see port-claims.ts
 *     generation          of the flow entry, coarse seconds at least of its creation
 *     claim               generation of the claim on the place (24) | rank (8)
 *     expires             coarse seconds
 *
 * Every record says all there is, so it is idempotent, and a refresh is the same record as the binding itself.
 */

import { struct } from '../struct.js';

const RECORD = struct({ address: 1, portAndProtocol: 1, place: 1, generation: 1, claim: 1, expires: 1 });
const {
  address: ADDRESS,
  portAndProtocol: PORT,
  place: PLACE,
  generation: GENERATION,
  claim: CLAIM,
  expires: EXPIRES,
} = RECORD.at;

export const NAT_RECORD_WORDS = RECORD.words;

/** A record in the hand: fields to read after `load`, or to fill before `store`. */
export class NatRecord {
  address = 0;
  portAndProtocol = 0;
  place = 0;
  generation = 0;
  claimGeneration = 0;
  rank = 0;
  expires = 0;

  load(words: Int32Array, at: number): void {
    this.address = words[at + ADDRESS];
    this.portAndProtocol = words[at + PORT];
    this.place = words[at + PLACE];
    this.generation = words[at + GENERATION];
    this.claimGeneration = words[at + CLAIM] >>> 8;
    this.rank = words[at + CLAIM] & 0xff;
    this.expires = words[at + EXPIRES];
  }

  store(words: Int32Array, at: number): void {
    words[at + ADDRESS] = this.address;
    words[at + PORT] = this.portAndProtocol;
    words[at + PLACE] = this.place;
    words[at + GENERATION] = this.generation;
    words[at + CLAIM] = (this.claimGeneration << 8) | this.rank;
    words[at + EXPIRES] = this.expires;
  }
}

const one = new NatRecord();
const other = new NatRecord();

/**
 * Joins the record at `later` into the one at `earlier`. Only records of one key *and one place* are: a record carries a
 * claim as well as a flow, and a claim left out would leave the places different at different instances.
 */
export function coalesceNatRecords(words: Int32Array, earlier: number, later: number): boolean {
  one.load(words, earlier);
  other.load(words, later);
  if (one.address !== other.address || one.portAndProtocol !== other.portAndProtocol || one.place !== other.place)
    return false;
  const order = one.generation - other.generation || one.rank - other.rank;
  if (order < 0) {
    one.generation = other.generation;
    one.rank = other.rank;
    one.expires = other.expires;
  } else if (order === 0) one.expires = Math.max(one.expires, other.expires);
  one.claimGeneration = Math.max(one.claimGeneration, other.claimGeneration);
  one.store(words, earlier);
  return true;
}
