/**
 * Table of services: an address, port and link that accepted a connection whose beginning was seen.
 * If a service sends on a connection that is older than the table of attempts remembers, it is not
 * probing. A service closes idle connections and acknowledges packets after a pause, and if its
 * client is gone, the client's host resets these.
 *
 *     entry   tag (0: free), since (coarse seconds)
 *
 * The memory is the instance's own and fixed. Each accepted connection notes its service again. A
 * new service replaces the one in its bucket that has accepted none for the longest time. Stores
 * are plain: if two workers write one entry at once, one of two services is forgotten until its
 * next connection.
 */

import type { SketchHash } from '../../api/api.js';
import { ADDRESS_WORDS, LINK } from './ends.js';

const BUCKETS = 1 << 15;
const WAYS = 4;
const ENTRY_WORDS = 2;
export const SERVICE_WORDS = BUCKETS * WAYS * ENTRY_WORDS;
/** A service that accepted nothing for this many seconds is forgotten. */
const SERVICE_S = 86_400;

export class Services {
  private readonly table: Int32Array;
  private readonly hasher: SketchHash;
  private readonly key = new Int32Array(ADDRESS_WORDS + 2);

  constructor(table: Int32Array, hasher: SketchHash) {
    this.table = table;
    this.hasher = hasher;
  }

  /** Notes that the end at `ends[who …]` with a raw port accepted a connection. */
  note(ends: Int32Array, who: number, port: number, now: number): void {
    const { table } = this;
    const tag = this.load(ends, who, port);
    const bucket = this.bucket();
    let place = bucket;
    for (let entry = bucket; entry < bucket + WAYS * ENTRY_WORDS; entry += ENTRY_WORDS) {
      if (table[entry] === tag) {
        table[entry + 1] = now;
        return;
      }
      if (table[entry + 1] < table[place + 1]) place = entry;
    }
    table[place] = 0;
    table[place + 1] = now;
    table[place] = tag;
  }

  /** Returns true if that end is known to accept connections. */
  has(ends: Int32Array, who: number, port: number, now: number): boolean {
    const { table } = this;
    const tag = this.load(ends, who, port);
    const bucket = this.bucket();
    for (let entry = bucket; entry < bucket + WAYS * ENTRY_WORDS; entry += ENTRY_WORDS)
      if (table[entry] === tag) return now - table[entry + 1] <= SERVICE_S;
    return false;
  }

  private load(ends: Int32Array, who: number, port: number): number {
    const { key, hasher } = this;
    for (let i = 0; i < ADDRESS_WORDS; i++) key[i] = ends[who + i];
    key[ADDRESS_WORDS] = port;
    key[ADDRESS_WORDS + 1] = ends[LINK];
    hasher.hash(key, 0, key.length);
    return hasher.second || 1;
  }

  private bucket(): number {
    return (this.hasher.first & (BUCKETS - 1)) * WAYS * ENTRY_WORDS;
  }
}
