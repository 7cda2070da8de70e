/**
 * Who scans: a sequential hypothesis test over first contacts (Jung, Paxson, Berger and
 * Balakrishnan, "Fast portscan detection using sequential hypothesis testing", 2004), and distinct
 * counts, shared by all sites.
 *
 * A *contact* is a source with a destination address, port and protocol. The test walks up by one
 * for each that fails and down by one for each that succeeds; a source whose walk comes `excess`
 * high is a scanner. Here the walk is not kept but read off sets, each a small HyperLogLog of all
 * sites together: so the order of packets, by which site an answer comes, and how often it is seen
 * do not matter, and what two sites saw of one source adds up.
 *
 *     ATTEMPTED   contacts that X tried
 *     ANSWERED    contacts from which something came back
 *     REFUSED     contacts that X tried and that said no (reset, unreachable), or to which X sent what begins no connection
 *     PORTS, ADDRESSES   destination ports and addresses of what X tried
 *     PROBED, PROBED_ADDRESSES   contacts to which X sent a bare ACK of no known connection and that reset it, and their addresses
 *
 *     failed = attempted - answered, after `answer` seconds to answer in;  walk = failed - answered
 *     at once: walk = |refused ∪ answered| - answered - answered
 *
 * Of what was answered and refused only what can be part of ATTEMPTED counts, register by register.
 * So without a packet of X every walk is 0; replies, forged ones included, never count for more
 * than what X tried; and what was answered once cannot be made a refusal. (The laptop that wakes up
 * and is reset by the servers of its old connections probed as many addresses as ports; who scans
 * by ACKs probes many ports of an address: `PROBED` counts only where ports are
 * `CONCENTRATED_PROBES` times as many.)
 *
 * With the paper's θ0 = 0.8 and θ1 = 0.2 (chances that a contact succeeds, of an honest source and
 * of a scanner) either step is ln 4, and by Wald's bound an honest source is taken for a scanner
 * with a chance of 4^-excess.
 *
 * A source that reaches so many `ports`, sixteen times as many as addresses, is a scanner whatever
 * it is answered; and one whose walk by such ports comes four times as high, before there was time
 * to answer: nobody honest tries so many of a host at once.
 */

import { type Batch, type KeyedHyperLogLogs, NONE } from '../../api.js';
import { type Alerts, Signature } from './alert.js';
import { putMask } from './allow-list.js';
import type { Blocks } from './blocks.js';
import { ADDRESS_WORDS, END_WORDS, isIpv4, isMulticast, LINK, SOURCE, SOURCE_WORDS } from './ends.js';
import type { Silence } from './silence.js';

export const SKETCHES = 7;
export const ATTEMPTED = 0;
export const ANSWERED = 1;
export const REFUSED = 2;
const PORTS = 3;
const ADDRESSES = 4;
export const PROBED = 5;
const PROBED_ADDRESSES = 6;
const ANSWERS = 1 << ANSWERED;
const ANSWERS_AND_REFUSALS = ANSWERS | (1 << REFUSED);

/** Ports of this many times as many addresses are a scan of them. */
const CONCENTRATED = 16;
const CONCENTRATED_PROBES = 8;
/**
 * A source with so many more attempts than twice its answers has its attempts replicated one by
 * one.
 */
const SUSPICIOUS = 3;
/** Registers that one contact raises at most: more are of earlier ones. */
const OF_ONE_CONTACT = 3;
/**
 * Ports of few addresses need not be waited for when the walk by them is so many times as high as
 * it has to be.
 */
const UNANSWERED = 4;
/** Below this many, ports or addresses are one. */
const ONE = 2.5;
/**
 * Raised registers, in all sketches, below which no estimate reaches `excess` contacts, whose ports
 * and addresses raise some too.
 */
const LITTLE = 12;
/** Sources that are waited for at a time. */
const SUSPECTS = 1024;
/**
 * What a worker notes of each slot, together in one cache line: a packet of a new source touches
 * all of it.
 *
 *     owner       hash of the key that the notes are of
 *     looked      raised registers when it was last looked at
 *     since       since when it is waited for
 *     discarded   up to which generation of silence its contacts without an answer were discarded
 *     tried       what it had tried when the waiting began (a float, like the next two)
 *     excess      attempts less twice the answers, when last looked at
 *     forgiven    contacts without an answer that are not judged
 *     last        the last contact: who was tried, port pair, protocol
 */
const OWNER = 0;
const LOOKED = 1;
const SINCE = 2;
const DISCARDED = 3;
const TRIED = 4;
const EXCESS = 5;
const FORGIVEN = 6;
const LAST = 7;
const LAST_PORTS = LAST + 4;
const LAST_PROTOCOL = LAST + 5;
const NOTE_WORDS = 16;
/**
 * Raised registers below which no source has `SUSPICIOUS` attempts: one for each, one for a port
 * and one for an address.
 */
const UNSUSPICIOUS = SUSPICIOUS + 2;

export interface ScanOptions {
  readonly excess: number;
  readonly answer_seconds: number;
  readonly ports: number;
  readonly block_seconds: number;
  readonly ipv6_prefix: number;
}

export interface ScanDetector {
  /**
   * In one sense (`ATTEMPTED`, `ANSWERED`, `REFUSED`, `PROBED`): the source at `ends[who …]` and
   * the contact at `ends[whom …]`, a raw port and a protocol. `ports`: the packet's, for an alert.
   * Returns whether the source looks suspicious, so that what it attempts is to be replicated.
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
  ): boolean;
  /** Whether anything is known of the source at `ends[who …]`. */
  knows(ends: Int32Array, who: number): boolean;
  /** Looks again at those who were waited for. */
  tick(now: number): void;
  /** Looks at `slots` sources in turn, also such as only other sites see. */
  walk(now: number, slots: number): void;
}

/** Finds nothing: scans are not looked for. */
export const NO_SCANS: ScanDetector = {
  contact: () => false,
  knows: () => false,
  tick: () => {},
  walk: () => {},
};

export function createScanDetector(
  sources: KeyedHyperLogLogs,
  blocks: Blocks,
  alerts: Alerts,
  isAllowed: (ends: Int32Array, at: number) => boolean,
  options: ScanOptions,
  batch: Batch,
  found: number,
  silence: Silence,
): ScanDetector {
  /** Address and link. */
  const key = new Int32Array(SOURCE_WORDS);
  const mask = new Int32Array(ADDRESS_WORDS);
  putMask(mask, 0, options.ipv6_prefix);
  /** Address, then port and protocol in one word. */
  const thing = new Int32Array(ADDRESS_WORDS + 1);
  const notes = new Int32Array(sources.slots * NOTE_WORDS);
  const floats = new Float32Array(notes.buffer);
  const waiting = new Int32Array(SUSPECTS);
  let waitingCount = 0;
  let cursor = 0;
  /** Source and destination of an alert. */
  const ends2 = new Int32Array(END_WORDS);

  function contact(
    sketch: number,
    ends: Int32Array,
    who: number,
    whom: number,
    port: number,
    protocol: number,
    ports: number,
    now: number,
  ): boolean {
    if (isMulticast(ends, whom) || isMulticast(ends, who)) return false;
    loadKey(ends, who);
    for (let i = 0; i < ADDRESS_WORDS; i++) thing[i] = ends[whom + i];
    if (isAllowed(ends, who)) return false;
    thing[ADDRESS_WORDS] = port | (protocol << 16);
    const hash = sources.hash(key, 0);
    sources.note(sketch, thing, 0, ADDRESS_WORDS + 1);
    if (sketch === ATTEMPTED) {
      sources.note(PORTS, thing, ADDRESS_WORDS, 1);
      sources.note(ADDRESSES, thing, 0, ADDRESS_WORDS);
    } else if (sketch === PROBED) sources.note(PROBED_ADDRESSES, thing, 0, ADDRESS_WORDS);
    const slot = sources.addNoted(hash, key, 0, now);
    if (slot === NONE) return false;
    own(slot, hash);
    if (sketch === ANSWERED) return false;
    const note = slot * NOTE_WORDS;
    const weight = sources.weight(slot);
    if (weight !== notes[note + LOOKED]) {
      notes[note + LOOKED] = weight;
      if (weight >= Math.min(options.excess, LITTLE)) lookAt(slot, ports, protocol, who, now);
    }
    return floats[note + EXCESS] >= SUSPICIOUS;
  }

  /** The source that an end belongs to: an IPv4 address, a prefix of IPv6. */
  function loadKey(ends: Int32Array, who: number): void {
    const is4 = isIpv4(ends, who);
    for (let i = 0; i < ADDRESS_WORDS; i++) key[i] = is4 ? ends[who + i] : ends[who + i] & mask[i];
    key[ADDRESS_WORDS] = ends[LINK];
  }

  function knows(ends: Int32Array, who: number): boolean {
    loadKey(ends, who);
    return sources.find(sources.hash(key, 0), key, 0) !== NONE;
  }

  /** Its last contact is in `thing`. */
  function lookAt(slot: number, ports: number, protocol: number, who: number, now: number): void {
    const note = slot * NOTE_WORDS;
    for (let i = 0; i < ADDRESS_WORDS; i++) notes[note + LAST + i] = thing[i];
    // As the source has them, also where it is an answer that tells.
    notes[note + LAST_PORTS] = who === SOURCE ? ports : (ports << 16) | (ports >>> 16);
    notes[note + LAST_PROTOCOL] = protocol;
    look(slot, now);
  }

  /** What was noted of a slot is of the key that has it now. */
  function own(slot: number, hash: number): void {
    const note = slot * NOTE_WORDS;
    if (notes[note + OWNER] === hash) return;
    // A worker that has just started did not see what a slot knows already: whether that was
    // answered it cannot tell.
    const isInherited = notes[note + OWNER] === 0 && sources.weight(slot) > OF_ONE_CONTACT;
    for (let i = 0; i < NOTE_WORDS; i++) notes[note + i] = 0;
    notes[note + OWNER] = hash;
    notes[note + DISCARDED] = isInherited ? silence.generation - 1 : silence.generation;
  }

  /** `key` is the slot's. */
  function look(slot: number, now: number): void {
    const attempted = sources.estimate(slot, ATTEMPTED, now);
    const answered = sources.estimateWithin(slot, ANSWERS, ATTEMPTED, now);
    const refused = sources.estimateWithin(slot, ANSWERS_AND_REFUSALS, ATTEMPTED, now) - answered;
    floats[slot * NOTE_WORDS + EXCESS] = attempted - 2 * answered;
    if (refused - answered >= options.excess || probes(slot, answered, now) >= options.excess)
      return scanner(slot, attempted, answered, refused, now);
    const ports = sources.estimate(slot, PORTS, now);
    // Where silence is not judged, only what is many whatever is answered.
    const many = silence.isJudged ? Math.min(options.ports, UNANSWERED * options.excess + 2 * answered) : options.ports;
    if (ports >= many && ports >= CONCENTRATED * sources.estimate(slot, ADDRESSES, now))
      return scanner(slot, attempted, answered, refused, now);
    judgeSilence(slot, attempted, answered, refused, now);
  }

  /** Ports that reset bare ACKs, where they are of few addresses. */
  function probes(slot: number, answered: number, now: number): number {
    const probed = sources.estimate(slot, PROBED, now);
    if (probed < options.excess || probed < CONCENTRATED_PROBES * sources.estimate(slot, PROBED_ADDRESSES, now))
      return 0;
    return probed - answered;
  }

  function judgeSilence(slot: number, attempted: number, answered: number, refused: number, now: number): void {
    const note = slot * NOTE_WORDS;
    const unanswered = Math.max(0, attempted - answered);
    if (!silence.isJudged || notes[note + DISCARDED] !== silence.generation) {
      notes[note + DISCARDED] = silence.generation;
      floats[note + FORGIVEN] = unanswered;
      notes[note + SINCE] = 0;
      return;
    }
    // Answers that came late are those of what was discarded first.
    floats[note + FORGIVEN] = Math.min(floats[note + FORGIVEN], unanswered);
    // Of what was tried when the waiting began nothing can still be under way.
    if (notes[note + SINCE] !== 0 && now - notes[note + SINCE] > options.answer_seconds + silence.behindSeconds) {
      notes[note + SINCE] = 0;
      // What was forgotten since is not held against it.
      if (Math.min(floats[note + TRIED], attempted) - 2 * answered - floats[note + FORGIVEN] >= options.excess)
        return scanner(slot, attempted, answered, refused, now);
    }
    if (notes[note + SINCE] !== 0 || attempted - 2 * answered - floats[note + FORGIVEN] < options.excess) return;
    notes[note + SINCE] = now;
    floats[note + TRIED] = attempted;
    if (waitingCount < SUSPECTS) waiting[waitingCount++] = slot;
  }

  function scanner(slot: number, attempted: number, answered: number, refused: number, now: number): void {
    const probed = sources.estimate(slot, PROBED, now);
    const ports = sources.estimate(slot, PORTS, now) + probed;
    const addresses = sources.estimate(slot, ADDRESSES, now) + sources.estimate(slot, PROBED_ADDRESSES, now);
    const note = slot * NOTE_WORDS;
    notes[note + SINCE] = 0;
    const signature = addresses < ONE ? Signature.PORT_SCAN : ports < ONE ? Signature.SWEEP : Signature.SCAN;
    const until = blocks.blockSource(key, 0, signature, now, options.block_seconds);
    if (until === NONE) return;
    batch.count1(found);
    const { figures } = alerts;
    figures[0] = Math.round(attempted + probed);
    figures[1] = Math.round(answered);
    figures[2] = Math.round(refused + probed);
    figures[3] = Math.round(ports);
    figures[4] = Math.round(addresses);
    for (let i = 0; i < ADDRESS_WORDS; i++) {
      ends2[i] = key[i];
      ends2[ADDRESS_WORDS + i] = notes[note + LAST + i];
    }
    ends2[LINK] = key[ADDRESS_WORDS];
    alerts.raise(signature, ends2, 0, notes[note + LAST_PORTS], notes[note + LAST_PROTOCOL], until, now);
  }

  function tick(now: number): void {
    let left = 0;
    const count = waitingCount;
    // Those looked at may be put in line again, behind.
    waitingCount = 0;
    for (let n = 0; n < count; n++) {
      const slot = waiting[n];
      const since = notes[slot * NOTE_WORDS + SINCE];
      if (since === 0) continue;
      if (now - since <= options.answer_seconds + silence.behindSeconds) waiting[left++] = slot;
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
      if (!isIdle(cursor)) look(cursor, now);
    }
  }

  /** Whether a look at the slot would find and change nothing. */
  function isIdle(slot: number): boolean {
    const note = slot * NOTE_WORDS;
    return (
      sources.weight(slot) < UNSUSPICIOUS &&
      notes[note + DISCARDED] === silence.generation &&
      notes[note + SINCE] === 0 &&
      floats[note + EXCESS] === 0 &&
      floats[note + FORGIVEN] === 0
    );
  }

  return { contact, knows, tick, walk };
}
