/**
 * SYN floods: a service that is sent far more SYNs than connections end, by the pairs of SYN and FIN or RST of Wang, Zhang and Shin,
 * "Detecting SYN flooding attacks" (2002), counted by all sites together in counters that a service's address and port choose.
 *
 * Sources of such a flood are mostly forged, so none is blocked. While it lasts, and `LASTS_S` more, a SYN to that service is
 * dropped unless the same one came before: a client sends its SYN again after a second, a forged one does not come twice. What is
 * connected goes on. A service that falls to the same counter as one that is flooded is guarded with it.
 */

import { type Batch, type CounterVector, destinationPort, Protocol, TcpFlag } from '../../api.js';
import type { Alerts } from './alert.js';
import { Signature } from './alert.js';
import { ADDRESS_WORDS, DESTINATION, type Ends, SOURCE } from './ends.js';

const CELLS = 4096;
/** SYNs, then FINs and RSTs. */
export const SYN_COUNTERS = 2 * CELLS;
/** So many SYNs more than this for each connection that ends are no flash crowd. */
const RATIO = 3;
const LASTS_S = 10;
/** SYNs seen before are remembered for between one and two of these; the first repetitions come after 1 and 3 s (RFC 6298). */
const REMEMBER_S = 5;
const BITS = 1 << 22;
const { SYN, ACK, FIN, RST } = TcpFlag;

export interface SynFloods {
  /** Counts packet `i`, TCP, its ends loaded. True: it is a SYN to be dropped. */
  take(i: number, now: number): boolean;
  /** Once a second. */
  tick(now: number): void;
}

export function createSynFloods(
  counts: CounterVector,
  alerts: Alerts,
  perSecond: number,
  dryRun: boolean,
  batch: Batch,
  ends: Ends,
  found: number,
): SynFloods {
  const { flags, ports } = batch;
  const { words } = ends;
  const before = new Float64Array(SYN_COUNTERS);
  /** Until when a cell's services are guarded. */
  const guarded = new Int32Array(CELLS);
  /** Destination of a cell's last SYN, and its port pair. */
  const last = new Int32Array(CELLS * (ADDRESS_WORDS + 1));
  const said = new Int32Array(2 * ADDRESS_WORDS);
  let lately = new Int32Array(BITS / 32);
  let earlier = new Int32Array(BITS / 32);
  let turned = 0;
  let lookedAt = 0;
  const salt = (Math.random() * 2 ** 32) | 0;

  /** The cell of the service at `words[at …]` with a raw port; the same at all sites. */
  function cellOf(at: number, port: number): number {
    return mix(port, at, ADDRESS_WORDS) & (CELLS - 1);
  }

  function mix(seed: number, at: number, count: number): number {
    let mixed = seed;
    for (let n = 0; n < count; n++) {
      mixed = Math.imul(mixed ^ words[at + n], 0x85eb_ca6b);
      mixed ^= mixed >>> 13;
    }
    mixed = Math.imul(mixed, 0xc2b2_ae35);
    return mixed ^ (mixed >>> 16);
  }

  function take(i: number, now: number): boolean {
    const meaning = flags[i] & (SYN | ACK | FIN | RST);
    if (meaning === SYN) {
      const cell = cellOf(DESTINATION, destinationPort(ports[i]));
      counts.add(cell, 1);
      const at = cell * (ADDRESS_WORDS + 1);
      for (let n = 0; n < ADDRESS_WORDS; n++) last[at + n] = words[DESTINATION + n];
      last[at + ADDRESS_WORDS] = ports[i];
      return guarded[cell] > now && isFirst(i);
    }
    if ((meaning & (FIN | RST)) !== 0) {
      // Whichever end it comes from; the other one's counter is counted too much, which does no harm.
      counts.add(CELLS + cellOf(DESTINATION, destinationPort(ports[i])), 1);
      counts.add(CELLS + cellOf(SOURCE, ports[i] & 0xffff), 1);
    }
    return false;
  }

  function isFirst(i: number): boolean {
    const bit = mix(salt ^ ports[i], 0, 2 * ADDRESS_WORDS) & (BITS - 1);
    const mask = 1 << (bit & 31);
    const wasThere = ((lately[bit >> 5] | earlier[bit >> 5]) & mask) !== 0;
    lately[bit >> 5] |= mask;
    return !wasThere;
  }

  function tick(now: number): void {
    if (now - turned >= REMEMBER_S) {
      [lately, earlier] = [earlier, lately];
      lately.fill(0);
      turned = now;
    }
    // The first look, and one after a standstill, only learns what was counted before.
    const seconds = now - lookedAt;
    const isSteady = lookedAt !== 0 && seconds >= 1 && seconds <= LASTS_S;
    if (seconds < 1) return;
    lookedAt = now;
    for (let cell = 0; cell < CELLS; cell++) {
      const syns = grown(cell);
      const fins = grown(CELLS + cell);
      if (isSteady && syns >= perSecond * seconds && syns > RATIO * fins) flood(cell, syns, fins, seconds, now);
    }
  }

  /** By how much a counter grew since the last look. */
  function grown(counter: number): number {
    const value = counts.value(counter);
    const more = value - before[counter];
    before[counter] = value;
    return more;
  }

  function flood(cell: number, syns: number, fins: number, seconds: number, now: number): void {
    const at = cell * (ADDRESS_WORDS + 1);
    // Where nothing of it was seen, which service it is is not known: those who see it say so.
    const wasSeen = last[at + ADDRESS_WORDS] !== 0;
    const isNew = wasSeen && guarded[cell] <= now && (!dryRun || -guarded[cell] <= now);
    // In a dry run it is only noted that it was said.
    guarded[cell] = dryRun ? -(now + LASTS_S) : now + LASTS_S;
    if (!isNew) return;
    batch.count1(found);
    for (let n = 0; n < ADDRESS_WORDS; n++) said[ADDRESS_WORDS + n] = last[at + n];
    alerts.figures[0] = syns;
    alerts.figures[1] = fins;
    alerts.figures[2] = seconds;
    const to = last[at + ADDRESS_WORDS] & ~0xffff;
    alerts.raise(Signature.SYN_FLOOD, said, 0, to, Protocol.TCP, dryRun ? 0 : now + LASTS_S, now);
  }

  return { take, tick };
}
