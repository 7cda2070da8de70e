/**
 * Detects SYN floods: a service receives far more SYNs than connections to it are completed. All
 * sites count together. A service's address, port and link select the counters. A connection is
 * completed if its client shows that it knows the server's sequence number, or if the server goes
 * on (evidence.ts). So an attacker with forged sources cannot balance the SYNs with other packets.
 * A FIN or a reset does not count.
 *
 * Sources of such a flood are mostly forged, so none is blocked. During the flood, and for
 * `LASTS_S` after it, a SYN to that service is dropped unless the same SYN came before. A client
 * repeats its SYN after a second. A forged SYN does not come twice. Existing connections continue.
 * A service that shares a counter with a flooded one is guarded with it.
 *
 * **The filter of first SYNs** is a Bloom filter in two generations. It is this worker's own. At a
 * million SYNs a second, about one in ten is taken for a repeated one and passes. Beyond that the
 * filter is full. Then the SYNs that pass are counted, and an alarm is logged.
 */

import { type Batch, type CounterVector, destinationPort, Protocol, TcpFlag } from '../../api/api.js';
import type { Alerts } from './alert.js';
import { Signature } from './alert.js';
import { ADDRESS_WORDS, DESTINATION, END_WORDS, type Ends, LINK } from './ends.js';

const CELLS = 4096;
/** Number of counters: those of SYNs, then those of completed connections. */
export const SYN_COUNTERS = 2 * CELLS;
/** More SYNs than this per completed connection are a flood, and not a crowd of clients. */
const RATIO = 3;
const LASTS_S = 10;
const LAST_WORDS = ADDRESS_WORDS + 2;
/**
 * A SYN is remembered for between one and two of these periods, in seconds. Clients repeat a SYN
 * first after 1 and 3 s (RFC 6298).
 */
const REMEMBER_S = 5;
/** Bits of a generation: 4 MB. */
const BITS = 1 << 25;
/**
 * SYNs in a generation at which, with two bits for each, one in ten is taken for a repeated one.
 */
const FULL = 5_000_000;
const { SYN, ACK, FIN, RST } = TcpFlag;

interface SynFloods {
  /** Counts TCP packet `i`, whose ends are loaded. Returns true if it is a SYN to drop. */
  take(i: number, now: number): boolean;
  /**
   * Counts a completed connection. The server is at `words[at …]` with this raw port, on the link
   * of these ends.
   */
  completed(words: Int32Array, at: number, port: number): void;
  /** Call it once a second. */
  tick(now: number): void;
}

export function createSynFloods(
  counts: CounterVector,
  alerts: Alerts,
  options: { readonly syn_flood_rate: number; readonly dry_run: boolean },
  batch: Batch,
  ends: Ends,
  found: number,
  full: () => void,
): SynFloods {
  const { flags, ports } = batch;
  const before = new Float64Array(SYN_COUNTERS);
  /** By cell: the time until which its services are guarded, in coarse seconds. */
  const guarded = new Int32Array(CELLS);
  /** By cell: the destination of its last SYN, its port pair, and its link. */
  const last = new Int32Array(CELLS * LAST_WORDS);
  const said = new Int32Array(END_WORDS);
  let lately = new Int32Array(BITS / 32);
  let earlier = new Int32Array(BITS / 32);
  let turned = 0;
  /** Number of SYNs in `lately`. `notedEarlier` is that of `earlier`. */
  let noted = 0;
  let notedEarlier = 0;
  let lookedAt = 0;
  const salt = (Math.random() * 2 ** 32) | 0;

  /**
   * Returns the cell of the service at `words[at …]` with a raw port. It is the same at all sites.
   */
  function cellOf(words: Int32Array, at: number, port: number): number {
    return mix(words, port ^ Math.imul(words[LINK], 0x9e37_79b1), at, ADDRESS_WORDS) & (CELLS - 1);
  }

  function mix(words: Int32Array, seed: number, at: number, count: number): number {
    let mixed = seed;
    for (let n = 0; n < count; n++) {
      mixed = Math.imul(mixed ^ words[at + n], 0x85eb_ca6b);
      mixed ^= mixed >>> 13;
    }
    mixed = Math.imul(mixed, 0xc2b2_ae35);
    return mixed ^ (mixed >>> 16);
  }

  function take(i: number, now: number): boolean {
    if ((flags[i] & (SYN | ACK | FIN | RST)) !== SYN) return false;
    const { words } = ends;
    const cell = cellOf(words, DESTINATION, destinationPort(ports[i]));
    counts.add(cell, 1);
    const at = cell * LAST_WORDS;
    for (let n = 0; n < ADDRESS_WORDS; n++) last[at + n] = words[DESTINATION + n];
    last[at + ADDRESS_WORDS] = ports[i];
    last[at + ADDRESS_WORDS + 1] = words[LINK];
    return guarded[cell] > now && isFirst(i);
  }

  function completed(words: Int32Array, at: number, port: number): void {
    counts.add(CELLS + cellOf(words, at, port), 1);
  }

  function isFirst(i: number): boolean {
    const { words } = ends;
    const mixed = mix(words, salt ^ ports[i] ^ Math.imul(words[LINK], 0x9e37_79b1), 0, 2 * ADDRESS_WORDS);
    const a = mixed & (BITS - 1);
    const b = Math.imul(mixed ^ salt, 0x85eb_ca6b) >>> 7;
    const wasThere = has(lately, a, b) || has(earlier, a, b);
    lately[a >> 5] |= 1 << (a & 31);
    lately[b >> 5] |= 1 << (b & 31);
    if (++noted > FULL && wasThere) full();
    return !wasThere;
  }

  function has(generation: Int32Array, a: number, b: number): boolean {
    return (generation[a >> 5] & (1 << (a & 31))) !== 0 && (generation[b >> 5] & (1 << (b & 31))) !== 0;
  }

  function tick(now: number): void {
    if (now - turned >= REMEMBER_S) {
      turn();
      turned = now;
    }
    // The first look, and one after a pause, only reads what was counted before.
    const seconds = now - lookedAt;
    const isSteady = lookedAt !== 0 && seconds >= 1 && seconds <= LASTS_S;
    if (seconds < 1) return;
    lookedAt = now;
    for (let cell = 0; cell < CELLS; cell++) {
      const syns = grown(cell);
      const done = grown(CELLS + cell);
      if (isSteady && syns >= options.syn_flood_rate * seconds && syns > RATIO * done)
        flood(cell, syns, done, seconds, now);
    }
  }

  /** Starts a new generation. Usually no SYN was noted, and nothing must be cleared. */
  function turn(): void {
    const emptied = earlier;
    earlier = lately;
    lately = emptied;
    if (notedEarlier > 0) lately.fill(0);
    notedEarlier = noted;
    noted = 0;
  }

  /** Returns the growth of a counter since the last look. */
  function grown(counter: number): number {
    const value = counts.value(counter);
    const more = value - before[counter];
    before[counter] = value;
    return more;
  }

  function flood(cell: number, syns: number, done: number, seconds: number, now: number): void {
    const at = cell * LAST_WORDS;
    // If no packet of the flood was seen here, the service is unknown. Sites that saw packets raise
    // the alert.
    const wasSeen = last[at + ADDRESS_WORDS] !== 0;
    const isNew = wasSeen && guarded[cell] <= now && (!options.dry_run || -guarded[cell] <= now);
    // In a dry run, the negative value only records that the alert was raised.
    guarded[cell] = options.dry_run ? -(now + LASTS_S) : now + LASTS_S;
    if (!isNew) return;
    batch.count1(found);
    for (let n = 0; n < ADDRESS_WORDS; n++) said[ADDRESS_WORDS + n] = last[at + n];
    said[LINK] = last[at + ADDRESS_WORDS + 1];
    alerts.figures[0] = syns;
    alerts.figures[1] = done;
    alerts.figures[2] = seconds;
    const to = last[at + ADDRESS_WORDS] & ~0xffff;
    alerts.raise(Signature.SYN_FLOOD, said, 0, to, Protocol.TCP, options.dry_run ? 0 : now + LASTS_S, now);
  }

  return { take, completed, tick };
}
