/**
 * The NAT binding's only log record: "internal endpoint k has this external address and port until
 * then". It contains these and not the place, which is a number of one instance, because instances
 * may have other lists of addresses.
 *
 *     address             internal address, raw
 *     portAndProtocol     internal port, raw (16) | IP protocol (8) from bit 16
 *     externalAddress     raw
 *     externalPort        host order (16)
 *     generation          of the flow entry, coarse seconds at least of its creation
 *     claim               generation of the claim on the place (24) | rank (8)
 *     expires             coarse seconds
 *
 * Every record is complete, so it is idempotent, and a refresh is the same record as that of a new
 * binding.
 */

import { struct } from '../../struct.js';

const RECORD = struct({
  address: 1,
  portAndProtocol: 1,
  externalAddress: 1,
  externalPort: 1,
  generation: 1,
  claim: 1,
  expires: 1,
});
const {
  address: ADDRESS,
  portAndProtocol: PORT,
  externalAddress: EXTERNAL_ADDRESS,
  externalPort: EXTERNAL_PORT,
  generation: GENERATION,
  claim: CLAIM,
  expires: EXPIRES,
} = RECORD.at;

export const NAT_RECORD_WORDS = RECORD.words;

/**
 * A record in memory: fields to read after `load`, or to fill before `store`. `place` is the local
 * place of the external address and port. The caller of `load` finds it. The caller of `store` sets
 * the external address and port.
 */
export class NatRecord {
  address = 0;
  portAndProtocol = 0;
  externalAddress = 0;
  externalPort = 0;
  place = 0;
  generation = 0;
  claimGeneration = 0;
  rank = 0;
  expires = 0;

  load(words: Int32Array, at: number): void {
    this.address = words[at + ADDRESS];
    this.portAndProtocol = words[at + PORT];
    this.externalAddress = words[at + EXTERNAL_ADDRESS];
    this.externalPort = words[at + EXTERNAL_PORT];
    this.generation = words[at + GENERATION];
    this.claimGeneration = words[at + CLAIM] >>> 8;
    this.rank = words[at + CLAIM] & 0xff;
    this.expires = words[at + EXPIRES];
  }

  store(words: Int32Array, at: number): void {
    words[at + ADDRESS] = this.address;
    words[at + PORT] = this.portAndProtocol;
    words[at + EXTERNAL_ADDRESS] = this.externalAddress;
    words[at + EXTERNAL_PORT] = this.externalPort;
    words[at + GENERATION] = this.generation;
    words[at + CLAIM] = (this.claimGeneration << 8) | this.rank;
    words[at + EXPIRES] = this.expires;
  }
}

const one = new NatRecord();
const other = new NatRecord();

/**
 * Joins the record at `later` into the one at `earlier`. Returns false unless both have one key
 * *and one external address and port*. A record carries a claim as well as a flow. If a claim were
 * left out, instances would end with different places.
 */
export function coalesceNatRecords(words: Int32Array, earlier: number, later: number): boolean {
  one.load(words, earlier);
  other.load(words, later);
  if (one.address !== other.address || one.portAndProtocol !== other.portAndProtocol) return false;
  if (one.externalAddress !== other.externalAddress || one.externalPort !== other.externalPort) return false;
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
