/**
 * Which ends are services: an address, a port and a link that accepted a connection somebody was
 * seen to begin. What a service sends on a connection that is older than the table of attempts
 * remembers is no probe: it closes idle connections and acknowledges what comes after a pause, and
 * a client that is gone resets these.
 *
 *     entry   tag (0: free), since (coarse seconds)
 *
 * The memory is the instance's own and fixed. Each accepted connection notes its service again; a
 * new service replaces the one of its bucket that accepted none for the longest time. Plain stores:
 * if two workers write one entry at once, one of two services is forgotten until its next
 * connection.
 */

import type { SketchHash } from '../../api.js';
import { ADDRESS_WORDS, LINK } from './ends.js';

const BUCKETS = 1 << 15;
const WAYS = 4;
const ENTRY_WORDS = 2;
export const SERVICE_WORDS = BUCKETS * WAYS * ENTRY_WORDS;
/** A service that accepted nothing for so long is forgotten. */
const SERVICE_S = 86_400;

export class Services {
  private readonly table: Int32Array;
  private readonly hasher: SketchHash;
  private readonly key = new Int32Array(ADDRESS_WORDS + 2);

  constructor(table: Int32Array, hasher: SketchHash) {
    this.table = table;
    this.hasher = hasher;
  }

  /** The end at `ends[who …]` with a raw port accepted a connection. */
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

  /** Whether that end is known to accept connections. */
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
