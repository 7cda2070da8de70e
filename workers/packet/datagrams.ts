/**
 * The fragmented datagrams a worker knows of: what is there of each, and the ports that its first
 * fragment showed.
 *
 * A datagram's key is what its fragments have in common (RFC 791 §3.2, RFC 8200 §4.5), and the port
 * and the link that they came in by:
 *
 *     source 4, destination 4 (IPv4: 1 word, the rest zero), identification, version and protocol and port, link
 *
 * Of each datagram there is a bit for every 8 bytes, so that no byte is ever passed twice: whatever
 * reassembles it gets the same, in whatever order it came (teardrop, RFC 1858, RFC 5722).
 *
 * **Nobody starves others.** A source has its datagrams in one of `GROUPS` groups of places, told
 * by a secret hash; where there is no room the oldest there gives way. So whoever sends fragments
 * of datagrams without end puts out his own, and hardly anybody else's.
 */

import { NONE } from '../../shm/none.js';
import type { Batch } from '../batch.js';
import { upperNumber } from './ipv4.js';
import { IPV6_BYTES, Ipv6At } from './ipv6.js';
import { Ipv6Chain } from './ipv6-chain.js';

const KEY_WORDS = 11;
/** A power of two each. */
export const GROUPS = 128;
const SETS_PER_GROUP = 8;
const WAYS = 4;
/** Datagrams of one group. */
export const GROUP_DATAGRAMS = SETS_PER_GROUP * WAYS;
export const DATAGRAMS = GROUPS * GROUP_DATAGRAMS;
/** Of 65,535 bytes, in units of 8. */
const BITMAP_WORDS = 8192 / 32;

/** A datagram is forgotten so long after its first sign: what comes later is not of it. */
export const DATAGRAM_MS = 5000;
/**
 * From then on what overlaps is of another datagram, to which the sender gave the same
 * identification (RFC 6864).
 */
export const REUSED_MS = 1000;

// What is known of a datagram.
const NOTHING = 0;
/** Not its first fragment. */
const HEADLESS = 1;
const HEADED = 2;
/** Its first fragment ends within the transport header. */
const SPLIT = 3;

/**
 * Column of a fragment's flags: RFC 791's field is the offset in units of 8 bytes, RFC 8200's has
 * it above three bits.
 */
const MORE_IPV4 = 0x2000;
const OFFSET_IPV4 = 0x1fff;

export interface Datagrams {
  /**
   * The datagram that fragment `i` is of, noted as there; made if there is none. `NONE`: it
   * overlaps what is there. The datagram that gave way for it, if any, is in `displaced`.
   */
  note(i: number, nowMs: number): number;
  /**
   * After `note`: the datagram that had to go, or that was over; `NONE` if none. Whoever keeps
   * something of it lets it go.
   */
  readonly displaced: number;
  /** Whether the first fragment was there. */
  isHeaded(datagram: number): boolean;
  /** The first fragment is `i`. */
  setHead(datagram: number, i: number): void;
  /**
   * The first fragment ends within the transport header: no fragment goes on before all are there.
   */
  setSplit(datagram: number): void;
  isSplit(datagram: number): boolean;
  /** Whether every byte of it was there. */
  isComplete(datagram: number): boolean;
  /** Its length in units of 8 bytes, once its last fragment was there; 0 before. */
  unitsOf(datagram: number): number;
  /** Gives fragment `i` what the first one showed. */
  showHead(datagram: number, i: number): void;
  /** All of it was there: it is forgotten, now that it is of no more use. */
  forgetIfComplete(datagram: number): void;
  /** Forgets a datagram. */
  forget(datagram: number): void;
  /** The group the datagram's source is in. */
  groupOf(datagram: number): number;
  readonly ports: Int32Array;
  readonly protocols: Int32Array;
  readonly flags: Int32Array;
}

/** Made once per data plane: see the head of batch.ts. */
export function createDatagrams(batch: Batch, secret: Int32Array): Datagrams {
  const { l3, l4, version, protocol, port, link, ports, flags } = batch;
  const { i32 } = batch.memory;
  const chain = new Ipv6Chain(batch.memory.u8);
  const keys = new Int32Array(DATAGRAMS * KEY_WORDS);
  const states = new Uint8Array(DATAGRAMS);
  const since = new Float64Array(DATAGRAMS);
  const bitmaps = new Int32Array(DATAGRAMS * BITMAP_WORDS);
  /**
   * In units of 8 bytes: how many are there, the end of the last of them, and the end of the
   * datagram, 0 while it is not known.
   */
  const units = new Int32Array(DATAGRAMS);
  const highest = new Int32Array(DATAGRAMS);
  const ends = new Int32Array(DATAGRAMS);
  const headPorts = new Int32Array(DATAGRAMS);
  const headProtocols = new Int32Array(DATAGRAMS);
  const headFlags = new Int32Array(DATAGRAMS);

  // The fragment at hand.
  const key = new Int32Array(KEY_WORDS);
  let from = 0;
  let to = 0;
  let isLast = false;
  let displaced = NONE;

  function note(i: number, nowMs: number): number {
    if (version[i] === 4) readIpv4(i);
    else readIpv6(i);
    key[9] = (version[i] << 24) | (version[i] === 4 ? protocol[i] << 8 : 0) | port[i];
    key[10] = link[i];
    displaced = NONE;
    const datagram = find(nowMs);
    if (claim(datagram)) return datagram;
    if (nowMs - since[datagram] < REUSED_MS) return NONE;
    displaced = datagram;
    begin(datagram, nowMs);
    claim(datagram);
    return datagram;
  }

  function readIpv4(i: number): void {
    const header = l3[i] >> 2;
    const second = i32[header + 1];
    const field = upperNumber(second);
    key.fill(0);
    key[0] = i32[header + 3];
    key[4] = i32[header + 4];
    key[8] = second & 0xffff;
    from = field & OFFSET_IPV4;
    to = from + ((l3[i] + upperNumber(i32[header]) - l4[i] + 7) >> 3);
    isLast = (field & MORE_IPV4) === 0;
  }

  function readIpv6(i: number): void {
    const header = l3[i] >> 2;
    for (let word = 0; word < 8; word++) key[word] = i32[header + (Ipv6At.source >> 2) + word];
    const end = l3[i] + IPV6_BYTES + upperNumber(i32[(l3[i] + Ipv6At.payloadLength) >> 2] << 16);
    // Parsed before, so there is a fragment header.
    chain.walk(l3[i], end);
    const at = chain.fragmentAt;
    key[8] = i32[(at + 4) >> 2];
    const field = upperNumber(i32[at >> 2]);
    from = field >>> 3;
    to = from + ((end - at - 8 + 7) >> 3);
    isLast = (field & 1) === 0;
  }

  function mix(hash: number, word: number): number {
    const mixed = Math.imul(hash ^ word, 0x9e3779b1);
    return mixed ^ (mixed >>> 15);
  }

  /** The datagram with this key, or a new one in the place of what is over, or of the oldest. */
  function find(nowMs: number): number {
    let source = secret[0];
    for (let word = 0; word < 4; word++) source = mix(source, key[word]);
    let hash = source ^ secret[1];
    for (let word = 4; word < KEY_WORDS; word++) hash = mix(hash, key[word]);
    const set = (source & (GROUPS - 1)) * SETS_PER_GROUP + ((hash >>> 8) & (SETS_PER_GROUP - 1));
    let place = set * WAYS;
    for (let datagram = set * WAYS; datagram < (set + 1) * WAYS; datagram++) {
      if (states[datagram] !== NOTHING && nowMs - since[datagram] < DATAGRAM_MS && hasKey(datagram)) return datagram;
      if (states[datagram] === NOTHING) place = datagram;
      else if (states[place] !== NOTHING && since[datagram] < since[place]) place = datagram;
    }
    if (states[place] !== NOTHING) displaced = place;
    begin(place, nowMs);
    return place;
  }

  function hasKey(datagram: number): boolean {
    const at = datagram * KEY_WORDS;
    for (let word = KEY_WORDS - 1; word >= 0; word--) if (keys[at + word] !== key[word]) return false;
    return true;
  }

  function begin(datagram: number, nowMs: number): void {
    keys.set(key, datagram * KEY_WORDS);
    states[datagram] = HEADLESS;
    since[datagram] = nowMs;
    units[datagram] = highest[datagram] = ends[datagram] = 0;
    bitmaps.fill(0, datagram * BITMAP_WORDS, (datagram + 1) * BITMAP_WORDS);
  }

  /**
   * Marks the units of the fragment at hand. False, and nothing is marked, where some are, or the
   * datagram ends before.
   */
  function claim(datagram: number): boolean {
    const end = ends[datagram];
    if (end !== 0 && (to > end || (isLast && to !== end))) return false;
    if (isLast && highest[datagram] > to) return false;
    const bitmap = datagram * BITMAP_WORDS;
    for (let word = from >> 5; word << 5 < to; word++) if ((bitmaps[bitmap + word] & maskOf(word)) !== 0) return false;
    for (let word = from >> 5; word << 5 < to; word++) bitmaps[bitmap + word] |= maskOf(word);
    units[datagram] += to - from;
    if (to > highest[datagram]) highest[datagram] = to;
    if (isLast) ends[datagram] = to;
    return true;
  }

  /** The bits of a word that the fragment at hand covers. */
  function maskOf(word: number): number {
    const first = from > word << 5 ? from & 31 : 0;
    const past = to - (word << 5);
    const upTo = past >= 32 ? -1 : (1 << past) - 1;
    return upTo & (-1 << first);
  }

  function isComplete(datagram: number): boolean {
    return ends[datagram] !== 0 && units[datagram] === ends[datagram];
  }

  return {
    note,
    get displaced() {
      return displaced;
    },
    isHeaded: (datagram) => states[datagram] === HEADED,
    setHead(datagram, i) {
      states[datagram] = HEADED;
      headPorts[datagram] = ports[i];
      headProtocols[datagram] = protocol[i];
      // Of TCP flags only the first fragment speaks.
      headFlags[datagram] = protocol[i] === TCP ? 0 : flags[i];
    },
    setSplit(datagram) {
      states[datagram] = SPLIT;
    },
    isSplit: (datagram) => states[datagram] === SPLIT,
    isComplete,
    unitsOf: (datagram) => ends[datagram],
    showHead(datagram, i) {
      ports[i] = headPorts[datagram];
      protocol[i] = headProtocols[datagram];
      flags[i] = headFlags[datagram];
    },
    forgetIfComplete(datagram) {
      if (isComplete(datagram)) states[datagram] = NOTHING;
    },
    forget(datagram) {
      states[datagram] = NOTHING;
    },
    groupOf: (datagram) => Math.trunc(datagram / GROUP_DATAGRAMS),
    ports: headPorts,
    protocols: headProtocols,
    flags: headFlags,
  };
}

const TCP = 6;
