/**
 * Blocks: sources and destination ports whose packets are dropped at all sites until the block
 * expires. They are entries of flow tables, so every site forgets them without further messages.
 *
 *     sources   key: an address (IPv6: its prefix), its link  value: signature << 1 | 1 if only an alert
 *     ports     key: raw port, protocol                       value: likewise
 *
 * In a dry run, an entry stands for an alert that was raised. The alert is not raised again before
 * the entry expires. Rank LIFTED ends a block early, and prevents a new one until the entry
 * expires.
 */

import {
  expiryAfter,
  type FlowTable,
  flowTable,
  NONE,
  Protocol,
  portNumber,
  type RecordFields,
  rawPort,
} from '../../api/api.js';
import { SIGNATURES } from './alert.js';
import { parsePrefix, putMask } from './allow-list.js';
import { ADDRESS_WORDS, formatEnd, isIpv4, LINK, parseLink, SOURCE_WORDS, vlansOf } from './ends.js';

const BLOCKED = 1;
const LIFTED = 2;
/** Capacity for blocked ports, which are few. While any exists, each packet's port is looked up. */
const PORTS = 1024;

export function blockTables(capacity: number) {
  return {
    blocked: flowTable({ capacity, keyWords: SOURCE_WORDS, valueWords: 1 }),
    blocked_ports: flowTable({ capacity: PORTS, keyWords: 2, valueWords: 1 }),
  };
}

export interface Blocks {
  /** Returns true if the source at `ends[at …]`, with the link of these ends, is blocked. */
  source(ends: Int32Array, at: number, now: number): boolean;
  port(port: number, protocol: number, now: number): boolean;
  /**
   * Blocks a source or a port. A source is an address (for IPv6 a prefix) followed by its link.
   * Returns the end of the block in coarse seconds. Returns 0 if there was only an alert (dry run,
   * or no room), and `NONE` if an entry already exists.
   */
  blockSource(words: Int32Array, at: number, signature: number, now: number, seconds: number): number;
  blockPort(port: number, protocol: number, signature: number, now: number, seconds: number): number;
  /** Lifts the block that `parseBlocked` named. */
  lift(words: Int32Array, now: number): void;
}

interface BlockOptions {
  readonly dry_run: boolean;
  readonly ipv6_prefix: number;
}

export function createBlocks(sources: FlowTable, ports: FlowTable, options: BlockOptions, full: () => void): Blocks {
  const mask = new Int32Array(ADDRESS_WORDS);
  putMask(mask, 0, options.ipv6_prefix);
  const source = new Int32Array(SOURCE_WORDS);
  const value = new Int32Array(1);
  const portKey = new Int32Array(2);

  function isBlocked(table: FlowTable, key: Int32Array, at: number, now: number): boolean {
    const slot = table.find(table.hash(key, at), key, at, now);
    return slot !== NONE && table.rank(slot) === BLOCKED && (table.value(slot, 0) & 1) === 0;
  }

  function block(
    table: FlowTable,
    key: Int32Array,
    at: number,
    signature: number,
    now: number,
    seconds: number,
  ): number {
    const hash = table.hash(key, at);
    if (table.find(hash, key, at, now) !== NONE) return NONE;
    value[0] = (signature << 1) | (options.dry_run ? 1 : 0);
    const until = expiryAfter(now, seconds);
    const slot = table.add(hash, key, at, value, 0, BLOCKED, now, until);
    if (slot === NONE) full();
    return slot === NONE || options.dry_run ? 0 : until;
  }

  return {
    source(ends, at, now) {
      if (sources.size === 0) return false;
      const is4 = isIpv4(ends, at);
      for (let i = 0; i < ADDRESS_WORDS; i++) source[i] = is4 ? ends[at + i] : ends[at + i] & mask[i];
      source[ADDRESS_WORDS] = ends[LINK];
      return isBlocked(sources, source, 0, now);
    },
    port(port, protocol, now) {
      if (ports.size === 0) return false;
      portKey[0] = port;
      portKey[1] = protocol;
      return isBlocked(ports, portKey, 0, now);
    },
    lift(words, now) {
      const isPort = words[0] === PORT;
      const table = isPort ? ports : sources;
      const slot = table.find(table.hash(words, 1), words, 1, now);
      if (slot !== NONE) table.prolong(slot, LIFTED, now, 0);
    },
    blockSource: (words, at, signature, now, seconds) => block(sources, words, at, signature, now, seconds),
    blockPort(port, protocol, signature, now, seconds) {
      portKey[0] = port;
      portKey[1] = protocol;
      return block(ports, portKey, 0, signature, now, seconds);
    },
  };
}

/** Words of an order to lift a block: the table (`SOURCE` or `PORT`), then the key. */
const SOURCE = 0;
const PORT = 1;
const PROTOCOLS: Readonly<Record<string, number>> = { tcp: Protocol.TCP, udp: Protocol.UDP };

/**
 * Parses what is blocked, in the form of `blockRows`: an address, `192.0.2.66 vlan 10`, or
 * `4444/udp`. Throws a RangeError that quotes what is wrong.
 */
export function parseBlocked(text: string): Int32Array {
  const [, port, protocol] = /^(\d{1,5})\/(tcp|udp)$/.exec(text) ?? [];
  if (port !== undefined && Number(port) <= 0xffff)
    return Int32Array.of(PORT, rawPort(Number(port)), PROTOCOLS[protocol]);
  const [address, vlans] = text.split(/ vlan /);
  const link = vlans === undefined ? 0 : parseLink(vlans);
  if (link === NONE) throw new RangeError(`"${vlans}" is not a VLAN id such as 10, or two such as 10.20`);
  return Int32Array.of(SOURCE, ...parsePrefix(address.replace(/\/\d+$/, '')).subarray(0, ADDRESS_WORDS), link);
}

/** Rows of `show blocks`. */
export function* blockRows(sources: FlowTable, ports: FlowTable, now: number): Generator<RecordFields> {
  const rows: RecordFields[] = [];
  const note = (blocked: string, [, expires, rank]: Int32Array, value: number): void => {
    const state = rank === LIFTED ? 'lifted' : (value & 1) !== 0 ? 'dry' : 'blocked';
    rows.push({ blocked, state, expires_s: expires - now, signature: SIGNATURES[value >> 1]?.text ?? '' });
  };
  sources.forEach(now, (entry) => {
    const link = entry[KEY + ADDRESS_WORDS];
    const vlan = link === 0 ? '' : ` vlan ${vlansOf(link).join('.')}`;
    note(`${formatEnd(entry, KEY)}${vlan}`, entry, entry[KEY + SOURCE_WORDS]);
  });
  ports.forEach(now, (entry) => {
    const name = entry[KEY + 1] === Protocol.UDP ? 'udp' : 'tcp';
    note(`${portNumber(entry[KEY])}/${name}`, entry, entry[KEY + 2]);
  });
  yield* rows;
}

/** Offset of the key in an entry of `FlowTable.forEach`. */
const KEY = 3;
