/**
 * Detects scanners by a sequential hypothesis test over first contacts (Jung, Paxson, Berger and
 * Balakrishnan, "Fast portscan detection using sequential hypothesis testing", 2004), and by
 * distinct counts. All sites share both.
 *
 * A *contact* is a source with a destination address, port and protocol. The test walks up by one
 * for each contact that fails, and down by one for each that succeeds. A source whose walk reaches
 * `excess` is a scanner. Here the walk is not stored. It is computed from sets, each a small
 * HyperLogLog that all sites share. So it does not matter in which order packets come, through
 * which site an answer comes, or how often it is seen. What two sites saw of one source adds up.
 *
 *     ATTEMPTED   contacts that X tried
 *     ANSWERED    contacts that answered
 *     REFUSED     contacts that refused X (reset, unreachable), or to which X sent a segment that begins no connection
 *     PORTS, ADDRESSES   destination ports and addresses that X tried
 *     PROBED, PROBED_ADDRESSES   contacts that reset a bare ACK of X that belongs to no known connection; their addresses
 *
 *     failed = attempted - answered, once there were `answer_seconds` to answer;  walk = failed - answered
 *     at once: walk = |refused ∪ answered| - answered - answered
 *
 * Answers and refusals count only as far as they can be part of ATTEMPTED, register by register. So
 * without a packet of X every walk is 0. Replies, even forged ones, never count for more than X
 * tried. An answered contact cannot become a refusal. Some honest sources send bare ACKs that are
 * reset: a laptop that wakes up, and is reset by the servers of its old connections, has probed as
 * many addresses as ports. A scanner that uses ACKs probes many ports of an address. So `PROBED`
 * counts only if there are `CONCENTRATED_PROBES` times as many ports as addresses.
 *
 * The paper's θ0 = 0.8 and θ1 = 0.2 are the chances that a contact of an honest source and of a
 * scanner succeeds. With these, either step is ln 4. By Wald's bound, an honest source is taken for
 * a scanner with a chance of 4^-excess.
 *
 * A source that reaches at least `ports` ports, and `CONCENTRATED` times as many ports as
 * addresses, is a scanner whatever the answers. The same holds, without time to answer, if ports
 * less twice the answers are `UNANSWERED` times `excess`: no honest source tries that many ports of
 * a host at once.
 */

import { type Batch, type KeyedHyperLogLogs, NONE } from '../../api/api.js';
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

/**
 * This many times as many ports as addresses are a scan of ports. The same for `PROBED` contacts.
 */
const CONCENTRATED = 16;
const CONCENTRATED_PROBES = 8;
/**
 * If a source has this many more attempts than twice its answers, its attempts are replicated one
 * by one.
 */
const SUSPICIOUS = 3;
/** Most registers that one contact raises. If more are raised, some are from earlier contacts. */
const OF_ONE_CONTACT = 3;
/**
 * If the walk by the ports of few addresses reaches this many times `excess`, answers are not
 * waited for.
 */
const UNANSWERED = 4;
/** An estimate below this, of ports or addresses, counts as one. */
const ONE = 2.5;
/**
 * With fewer raised registers, over all sketches, no estimate reaches `excess` contacts. Their
 * ports and addresses raise some too.
 */
const LITTLE = 12;
/** Most sources that are waited for at a time. */
const SUSPECTS = 1024;
/**
 * Notes of a worker for each slot. They fill one cache line, because a packet of a new source
 * touches all of them.
 *
 *     owner       hash of the key that the notes belong to
 *     looked      raised registers when the source was last judged
 *     since       start of the waiting for answers, 0: not waiting
 *     discarded   generation of silence up to which unanswered contacts were discarded
 *     tried       attempts when the waiting began (a float, like the next two)
 *     excess      attempts less twice the answers, when last judged
 *     forgiven    unanswered contacts that are not judged
 *     last        the last contact: address that was tried, port pair, protocol
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
 * With fewer raised registers, no source has `SUSPICIOUS` attempts: one register for each, one for
 * a port, one for an address.
 */
const UNSUSPICIOUS = SUSPICIOUS + 2;

interface ScanOptions {
  readonly excess: number;
  readonly answer_seconds: number;
  readonly ports: number;
  readonly block_seconds: number;
  readonly ipv6_prefix: number;
}

export interface ScanDetector {
  /**
   * Notes a contact in one of the sketches `ATTEMPTED`, `ANSWERED`, `REFUSED` or `PROBED`. The
   * source is at `ends[who …]`, the destination at `ends[whom …]`, with a raw port and a protocol.
   * `ports` is the packet's port pair, for an alert. Returns true if the source looks suspicious,
   * so that its attempts must be replicated.
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
  /** Returns true if the source at `ends[who …]` is in the table. */
  knows(ends: Int32Array, who: number): boolean;
  /** Judges sources whose waiting time is over. */
  tick(now: number): void;
  /** Judges the next `slots` slots. This also covers sources that only other sites see. */
  walk(now: number, slots: number): void;
}

/** For `scans: false`: detects nothing. */
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

  /** Loads the source that an end belongs to: an IPv4 address, or an IPv6 prefix, and the link. */
  function loadKey(ends: Int32Array, who: number): void {
    const is4 = isIpv4(ends, who);
    for (let i = 0; i < ADDRESS_WORDS; i++) key[i] = is4 ? ends[who + i] : ends[who + i] & mask[i];
    key[ADDRESS_WORDS] = ends[LINK];
  }

  function knows(ends: Int32Array, who: number): boolean {
    loadKey(ends, who);
    return sources.find(sources.hash(key, 0), key, 0) !== NONE;
  }

  /** Notes the last contact, which is in `thing`, and judges the source. */
  function lookAt(slot: number, ports: number, protocol: number, who: number, now: number): void {
    const note = slot * NOTE_WORDS;
    for (let i = 0; i < ADDRESS_WORDS; i++) notes[note + LAST + i] = thing[i];
    // The port pair as in the source's packets, even if this packet is a refusal.
    notes[note + LAST_PORTS] = who === SOURCE ? ports : (ports << 16) | (ports >>> 16);
    notes[note + LAST_PROTOCOL] = protocol;
    look(slot, now);
  }

  /** Clears the notes of a slot if they are of another key than the slot's present one. */
  function own(slot: number, hash: number): void {
    const note = slot * NOTE_WORDS;
    if (notes[note + OWNER] === hash) return;
    // A worker that has just started did not see the slot's earlier contacts, so it cannot tell
    // whether they were answered.
    const isInherited = notes[note + OWNER] === 0 && sources.weight(slot) > OF_ONE_CONTACT;
    for (let i = 0; i < NOTE_WORDS; i++) notes[note + i] = 0;
    notes[note + OWNER] = hash;
    notes[note + DISCARDED] = isInherited ? silence.generation - 1 : silence.generation;
  }

  /** Judges the source in a slot. `key` must be the slot's. */
  function look(slot: number, now: number): void {
    const attempted = sources.estimate(slot, ATTEMPTED, now);
    const answered = sources.estimateWithin(slot, ANSWERS, ATTEMPTED, now);
    const refused = sources.estimateWithin(slot, ANSWERS_AND_REFUSALS, ATTEMPTED, now) - answered;
    floats[slot * NOTE_WORDS + EXCESS] = attempted - 2 * answered;
    if (refused - answered >= options.excess || probes(slot, answered, now) >= options.excess)
      return scanner(slot, attempted, answered, refused, now);
    const ports = sources.estimate(slot, PORTS, now);
    // If silence is not judged, only the count that holds whatever the answers applies.
    const many = silence.isJudged ? Math.min(options.ports, UNANSWERED * options.excess + 2 * answered) : options.ports;
    if (ports >= many && ports >= CONCENTRATED * sources.estimate(slot, ADDRESSES, now))
      return scanner(slot, attempted, answered, refused, now);
    judgeSilence(slot, attempted, answered, refused, now);
  }

  /**
   * Returns the excess of ports that reset bare ACKs, or 0 unless they are concentrated on few
   * addresses.
   */
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
    // Late answers are those of the discarded contacts first.
    floats[note + FORGIVEN] = Math.min(floats[note + FORGIVEN], unanswered);
    // Contacts from before the waiting began can no longer be under way.
    if (notes[note + SINCE] !== 0 && now - notes[note + SINCE] > options.answer_seconds + silence.behindSeconds) {
      notes[note + SINCE] = 0;
      // Contacts that were forgotten since do not count against it.
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
    // A source may be queued again while it is judged. It is then appended.
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

  /** Returns true if judging the slot would find and change nothing. */
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
