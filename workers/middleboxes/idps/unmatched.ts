/**
 * Refusals whose attempt was not seen here. The attempt may have passed another site, whose record
 * of it has not arrived. These refusals are checked again for a few seconds, several times a second
 * and when the next ones come. If the attempt is known by then, the refusal counts. Otherwise it is
 * forgotten.
 *
 * Only refusals of known sources are stored, so refusals sent to random hosts take no room. The
 * memory is a ring of this worker. If it is full, the oldest refusal is forgotten. Then the scan is
 * found some seconds later, by the silence of the hosts that it tried.
 */

import { destinationPort, NONE, Protocol, sourcePort } from '../../api/api.js';
import { type Attempts, Did } from './attempts.js';
import { DESTINATION, END_WORDS, SOURCE } from './ends.js';
import { REFUSED, type ScanDetector } from './scan.js';

const PLACES = 512;
const KEEP_S = 4;
/** How many of the last refusals are checked again when another one comes. */
const AGAIN = 2;
/**
 * Layout: ends with their link, port pair, protocol, offset of the refused source in the ends, and
 * time. A time of 0 marks a free place.
 */
const AT = { ends: 0, ports: END_WORDS, protocol: 10, who: 11, since: 12 } as const;
const WORDS = 13;

interface Unmatched {
  /**
   * Stores that the source at `ends[who …]` was refused. `ports` is the pair of the packet with
   * these ends.
   */
  wait(ends: Int32Array, who: number, ports: number, protocol: number, now: number): void;
  tick(now: number): void;
}

export function createUnmatched(attempts: Attempts, scans: ScanDetector): Unmatched {
  const ring = new Int32Array(PLACES * WORDS);
  const ends = new Int32Array(END_WORDS);
  let next = 0;
  let waiting = 0;

  /** Returns true if the refusal was counted, was no refusal, or has waited long enough. */
  function isSettled(at: number, now: number): boolean {
    for (let i = 0; i < ends.length; i++) ends[i] = ring[at + AT.ends + i];
    const ports = ring[at + AT.ports];
    const protocol = ring[at + AT.protocol];
    const who = ring[at + AT.who];
    const isOther = who === DESTINATION;
    const entry = attempts.find(ends, ports, protocol, now);
    if (entry === NONE || !attempts.did(entry, Did.BEGIN, isOther)) return now - ring[at + AT.since] > KEEP_S;
    if (attempts.did(entry, Did.GET_ANSWER, isOther)) return true;
    const port =
      protocol === Protocol.ICMP || protocol === Protocol.ICMPV6
        ? 0
        : isOther
          ? sourcePort(ports)
          : destinationPort(ports);
    scans.contact(REFUSED, ends, who, isOther ? SOURCE : DESTINATION, port, protocol, ports, now);
    return true;
  }

  function lookAt(at: number, now: number): void {
    if (ring[at + AT.since] === 0 || !isSettled(at, now)) return;
    ring[at + AT.since] = 0;
    waiting--;
  }

  return {
    wait(from, who, ports, protocol, now) {
      for (let n = 1; waiting > 0 && n <= AGAIN; n++) lookAt(((next - n + PLACES) % PLACES) * WORDS, now);
      if (!scans.knows(from, who)) return;
      const at = next * WORDS;
      next = (next + 1) % PLACES;
      if (ring[at + AT.since] === 0) waiting++;
      for (let i = 0; i < END_WORDS; i++) ring[at + AT.ends + i] = from[i];
      ring[at + AT.ports] = ports;
      ring[at + AT.protocol] = protocol;
      ring[at + AT.who] = who;
      ring[at + AT.since] = now;
    },
    tick(now) {
      if (waiting === 0) return;
      for (let at = 0; at < ring.length; at += WORDS) lookAt(at, now);
    },
  };
}
