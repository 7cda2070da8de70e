/**
 * The fragmented datagrams that a worker knows: the parts of each that have arrived, and the ports
 * in its first fragment.
 *
 * A datagram's key is what its fragments have in common (RFC 791 §3.2, RFC 8200 §4.5), with the
 * port and the link they arrived by:
 *
 *     source 4, destination 4 (IPv4: 1 word, the rest zero), identification 1,
 *     version and protocol and port 1, link 1
 *
 * Each datagram has one bit for every 8 bytes, so no byte passes twice. Every receiver then
 * reassembles the same datagram, in whatever order the fragments arrive (teardrop, RFC 1858, RFC
 * 5722).
 *
 * **Fair shares.** A secret hash assigns each source to one of `GROUPS` groups of places. If there
 * is no room, the oldest datagram of the set is evicted. So a source that sends fragments of
 * endless datagrams evicts mostly its own.
 */

import { NONE } from '../../shm/none.js';
import type { Batch } from './batch.js';
import { upperNumber } from './ipv4.js';
import { IPV6_BYTES, Ipv6At } from './ipv6.js';
import { Ipv6Chain } from './ipv6-chain.js';

const KEY_WORDS = 11;
/** Both are powers of two. */
export const GROUPS = 128;
const SETS_PER_GROUP = 8;
const WAYS = 4;
/** Datagrams of one group. */
const GROUP_DATAGRAMS = SETS_PER_GROUP * WAYS;
export const DATAGRAMS = GROUPS * GROUP_DATAGRAMS;
/** Words for 65,536 bytes, one bit per 8 bytes. */
const BITMAP_WORDS = 8192 / 32;

/**
 * A datagram is forgotten this long after its first arrival, in milliseconds. Later fragments
 * belong to another datagram.
 */
export const DATAGRAM_MS = 5000;
/**
 * After this time, in milliseconds, a fragment that overlaps belongs to a new datagram: the sender
 * has reused the identification (RFC 6864).
 */
export const REUSED_MS = 1000;

// State of a datagram.
const NOTHING = 0;
/** The first fragment has not arrived. */
const HEADLESS = 1;
const HEADED = 2;
/** Its first fragment ends within the transport header. */
const SPLIT = 3;

/**
 * The fragment field in host order. RFC 791 has the offset in the low 13 bits, in units of 8 bytes.
 * RFC 8200 has it above three bits.
 */
const MORE_IPV4 = 0x2000;
const OFFSET_IPV4 = 0x1fff;

interface Datagrams {
  /**
   * Marks the bytes of fragment `i` in its datagram, and returns the datagram. Adds the datagram if
   * it is new. Returns `NONE` if the fragment overlaps or contradicts the datagram's end. If
   * another datagram was evicted, `displaced` names it.
   */
  note(i: number, nowMs: number): number;
  /**
   * After `note`: the datagram that was evicted or has ended, or `NONE`. The caller must drop what
   * it keeps for it.
   */
  readonly displaced: number;
  /** Whether the first fragment has arrived. */
  isHeaded(datagram: number): boolean;
  /** Records `i` as the first fragment. */
  setHead(datagram: number, i: number): void;
  /**
   * Records that the first fragment ends within the transport header. No fragment then goes on
   * before all have arrived.
   */
  setSplit(datagram: number): void;
  isSplit(datagram: number): boolean;
  /** Whether every byte of it has arrived. */
  isComplete(datagram: number): boolean;
  /** Its length in units of 8 bytes. 0 until its last fragment has arrived. */
  unitsOf(datagram: number): number;
  /** Gives fragment `i` the ports, protocol and flags of the first fragment. */
  showHead(datagram: number, i: number): void;
  /** Forgets a datagram of which everything has arrived. */
  forgetIfComplete(datagram: number): void;
  /** Forgets a datagram. */
  forget(datagram: number): void;
  /** The group of the datagram's source. */
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
   * In units of 8 bytes: how many have arrived, the end of the last of them, and the end of the
   * datagram (0 until it is known).
   */
  const units = new Int32Array(DATAGRAMS);
  const highest = new Int32Array(DATAGRAMS);
  const ends = new Int32Array(DATAGRAMS);
  const headPorts = new Int32Array(DATAGRAMS);
  const headProtocols = new Int32Array(DATAGRAMS);
  const headFlags = new Int32Array(DATAGRAMS);

  // The current fragment.
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
    // The parser has checked that there is a fragment header.
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

  /**
   * Returns the datagram with this key. If there is none, makes one in a free place, or evicts the
   * oldest of the set.
   */
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
   * Marks the units of the current fragment. Returns false, and marks nothing, if some are marked,
   * or if the fragment contradicts the datagram's end.
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

  /** The bits of a bitmap word that the current fragment covers. */
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
      // TCP flags are valid only for the first fragment.
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
