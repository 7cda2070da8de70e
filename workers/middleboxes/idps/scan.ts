/**
 * Who scans: a sequential hypothesis test over first contacts (Jung, Paxson, Berger and Balakrishnan, "Fast portscan detection
 * using sequential hypothesis testing", 2004), and distinct counts, shared by all sites.
 *
 * A *contact* is a source with a destination address, port and protocol. The test walks up by one for each that fails and down by
 * one for each that succeeds; a source whose walk comes `excess` high is a scanner. Here the walk is not kept but read off sets,
 * each a small HyperLogLog of all sites together: so the order of packets, by which site an answer comes, and how often it is seen
 * do not matter, and what two sites saw of one source adds up.
 *
 *     ATTEMPTED   contacts that were tried
 *     ANSWERED    those from which something came back
 *     REFUSED     those that said no: reset, unreachable, or nothing that a connection begins with was sent
 *     PORTS, ADDRESSES   destination ports and addresses of what was tried
 *
 *     failed = attempted - answered, after `answer` seconds to answer in;  walk = failed - answered
 *     at once: walk = refused - answered, where of what was refused only so many count as were tried
 *
 * With the paper's θ0 = 0.8 and θ1 = 0.2 (chances that a contact succeeds, of an honest source and of a scanner) either step is ln 4,
 * and by Wald's bound an honest source is taken for a scanner with a chance of 4^-excess.
 *
 * A source that reaches so many `ports`, sixteen times as many as addresses, is a scanner whatever it is answered; and one whose walk by
 * such ports comes four times as high, before there was time to answer: nobody honest tries so many of a host at once.
 */

import { type Batch, type KeyedHyperLogLogs, NONE } from '../../api.js';
import { type Alerts, Signature } from './alert.js';
import { putMask } from './allow-list.js';
import type { Blocks } from './blocks.js';
import { ADDRESS_WORDS, isIpv4, isMulticast, SOURCE } from './ends.js';

export const SKETCHES = 5;
export const ATTEMPTED = 0;
export const ANSWERED = 1;
export const REFUSED = 2;
const PORTS = 3;
const ADDRESSES = 4;

/** Ports of this many times as many addresses are a scan of them. */
const CONCENTRATED = 16;
/** Ports of few addresses need not be waited for when the walk by them is so many times as high as it has to be. */
const UNANSWERED = 4;
/** Below this many, ports or addresses are one. */
const ONE = 2.5;
/** Raised registers, in all sketches, below which no estimate reaches `excess` contacts, whose ports and addresses raise some too. */
const LITTLE = 12;
/** Sources that are waited for at a time. */
const SUSPECTS = 1024;
/** What is known of the last contact of each slot: who was tried, port pair, protocol. */
const LAST_WORDS = ADDRESS_WORDS + 2;

export interface ScanOptions {
  readonly excess: number;
  readonly answer_seconds: number;
  readonly ports: number;
  readonly block_seconds: number;
  readonly ipv6_prefix: number;
}

export interface ScanDetector {
  /**
   * In one sense (`ATTEMPTED`, `ANSWERED`, `REFUSED`): the source at `ends[who …]` and the contact at `ends[whom …]`, a raw port
   * and a protocol. `ports`: the packet's, for an alert.
   */
  contact(
    sketch: number,
    ends: Int32Array,
    who: number,
    whom: number,
    port: number,
    protocol: number,
    ports: number,
    now: number,
  ): void;
  /** Looks again at those who were waited for. */
  tick(now: number): void;
  /** Looks at `slots` sources in turn, also such as only other sites see. */
  walk(now: number, slots: number): void;
}

export function createScanDetector(
  sources: KeyedHyperLogLogs,
  blocks: Blocks,
  alerts: Alerts,
  isAllowed: (ends: Int32Array, at: number) => boolean,
  options: ScanOptions,
  batch: Batch,
  found: number,
): ScanDetector {
  const { excess, answer_seconds, block_seconds } = options;
  const enough = Math.min(excess, LITTLE);
  const key = new Int32Array(ADDRESS_WORDS);
  const mask = new Int32Array(ADDRESS_WORDS);
  putMask(mask, 0, options.ipv6_prefix);
  /** Address, then port and protocol in one word. */
  const thing = new Int32Array(ADDRESS_WORDS + 1);
  /** Of each slot, and whose they are: raised registers when it was last looked at; since when it is waited for, and what it had tried. */
  const looked = new Int32Array(sources.slots);
  const since = new Int32Array(sources.slots);
  const tried = new Float64Array(sources.slots);
  const owner = new Int32Array(sources.slots);
  const last = new Int32Array(sources.slots * LAST_WORDS);
  const waiting = new Int32Array(SUSPECTS);
  let waitingCount = 0;
  let cursor = 0;
  /** Source and destination of an alert. */
  const ends2 = new Int32Array(2 * ADDRESS_WORDS);

  function contact(
    sketch: number,
    ends: Int32Array,
    who: number,
    whom: number,
    port: number,
    protocol: number,
    ports: number,
    now: number,
  ): void {
    if (isMulticast(ends, whom) || isMulticast(ends, who)) return;
    const is4 = isIpv4(ends, who);
    for (let i = 0; i < ADDRESS_WORDS; i++) {
      key[i] = is4 ? ends[who + i] : ends[who + i] & mask[i];
      thing[i] = ends[whom + i];
    }
    if (isAllowed(ends, who)) return;
    thing[ADDRESS_WORDS] = port | (protocol << 16);
    const hash = sources.hash(key, 0);
    sources.note(sketch, thing, 0, ADDRESS_WORDS + 1);
    if (sketch === ATTEMPTED) {
      sources.note(PORTS, thing, ADDRESS_WORDS, 1);
      sources.note(ADDRESSES, thing, 0, ADDRESS_WORDS);
    }
    const slot = sources.addNoted(hash, key, 0, now);
    if (slot === NONE) return;
    own(slot, hash);
    if (sketch === ANSWERED) return;
    const weight = sources.weight(slot);
    if (weight === looked[slot]) return;
    looked[slot] = weight;
    if (weight >= enough) lookAt(slot, ports, protocol, who, now);
  }

  /** Its last contact is in `thing`. */
  function lookAt(slot: number, ports: number, protocol: number, who: number, now: number): void {
    const at = slot * LAST_WORDS;
    for (let i = 0; i < ADDRESS_WORDS; i++) last[at + i] = thing[i];
    // As the source has them, also where it is an answer that tells.
    last[at + ADDRESS_WORDS] = who === SOURCE ? ports : (ports << 16) | (ports >>> 16);
    last[at + ADDRESS_WORDS + 1] = protocol;
    look(slot, now);
  }

  /** What was noted of a slot is of the key that has it now. */
  function own(slot: number, hash: number): void {
    if (owner[slot] === hash) return;
    owner[slot] = hash;
    looked[slot] = 0;
    since[slot] = 0;
    last.fill(0, slot * LAST_WORDS, (slot + 1) * LAST_WORDS);
  }

  /** `key` is the slot's. */
  function look(slot: number, now: number): void {
    const attempted = sources.estimate(slot, ATTEMPTED, now);
    const answered = sources.estimate(slot, ANSWERED, now);
    const refused = Math.min(sources.estimate(slot, REFUSED, now), attempted);
    if (refused - answered >= excess) return scanner(slot, attempted, answered, refused, now);
    const ports = sources.estimate(slot, PORTS, now);
    const many = Math.min(options.ports, UNANSWERED * excess + 2 * answered);
    if (ports >= many && ports >= CONCENTRATED * sources.estimate(slot, ADDRESSES, now))
      return scanner(slot, attempted, answered, refused, now);
    // Of what was tried when the waiting began nothing can still be under way.
    if (since[slot] !== 0 && now - since[slot] > answer_seconds) {
      since[slot] = 0;
      // What was forgotten since is not held against it.
      if (Math.min(tried[slot], attempted) - 2 * answered >= excess)
        return scanner(slot, attempted, answered, refused, now);
    }
    if (since[slot] !== 0 || attempted - 2 * answered < excess) return;
    since[slot] = now;
    tried[slot] = attempted;
    if (waitingCount < SUSPECTS) waiting[waitingCount++] = slot;
  }

  function scanner(slot: number, attempted: number, answered: number, refused: number, now: number): void {
    const ports = sources.estimate(slot, PORTS, now);
    const addresses = sources.estimate(slot, ADDRESSES, now);
    since[slot] = 0;
    const signature = addresses < ONE ? Signature.PORT_SCAN : ports < ONE ? Signature.SWEEP : Signature.SCAN;
    const until = blocks.blockSource(key, 0, signature, now, block_seconds);
    if (until === NONE) return;
    batch.count1(found);
    const { figures } = alerts;
    figures[0] = Math.round(attempted);
    figures[1] = Math.round(answered);
    figures[2] = Math.round(refused);
    figures[3] = Math.round(ports);
    figures[4] = Math.round(addresses);
    const at = slot * LAST_WORDS;
    for (let i = 0; i < ADDRESS_WORDS; i++) {
      ends2[i] = key[i];
      ends2[ADDRESS_WORDS + i] = last[at + i];
    }
    alerts.raise(signature, ends2, 0, last[at + ADDRESS_WORDS], last[at + ADDRESS_WORDS + 1], until, now);
  }

  function tick(now: number): void {
    let left = 0;
    const count = waitingCount;
    // Those looked at may be put in line again, behind.
    waitingCount = 0;
    for (let n = 0; n < count; n++) {
      const slot = waiting[n];
      if (since[slot] === 0) continue;
      if (now - since[slot] <= answer_seconds) waiting[left++] = slot;
      else if (sources.read(slot, key, 0, now)) {
        waitingCount = left;
        own(slot, sources.hash(key, 0));
        look(slot, now);
        left = waitingCount;
      }
    }
    waitingCount = left;
  }

  function walk(now: number, slots: number): void {
    for (let n = 0; n < slots; n++) {
      cursor = cursor + 1 < sources.slots ? cursor + 1 : 0;
      if (!sources.read(cursor, key, 0, now)) continue;
      own(cursor, sources.hash(key, 0));
      look(cursor, now);
    }
  }

  return { contact, tick, walk };
}
