/** Packets that rules log, as records: one line of JSON each. */

import { formatIpv4, hasPorts, type Recorder, type RecordFields } from '../../api/api.js';
import { LEVEL_SHIFT, PACKET, PACKET_WORDS, RULE, VERDICT_SHIFT } from './program.js';
import { LOG_LEVELS } from './rule.js';

/**
 * Words of a record: line, verdict, version, level, the packet, then the prefix (its length, then
 * character codes).
 */
const LINE = 0;
const VERDICT = 1;
const VERSION = 2;
/** 0: the rule has no level. */
const LEVEL = 3;
const WORDS = 4;
const PREFIX = WORDS + PACKET_WORDS;
const PREFIX_MAX = 64;
export const LOGGED_WORDS = PREFIX + 1 + PREFIX_MAX;

const VERDICTS = ['none', 'accept', 'drop', 'reject', 'none'];
const STATES: Readonly<Record<number, string>> = {
  1: 'new',
  2: 'established',
  4: 'related',
  8: 'invalid',
  16: 'untracked',
};

/**
 * Writes the record of a packet that a rule logs. `words` and `base` are the program, `place` is
 * the rule's. Returns the result of `recorder.write`.
 */
export function writeLogged(
  recorder: Recorder,
  words: Int32Array,
  base: number,
  place: number,
  packet: Int32Array,
  version: number,
): boolean {
  const record = recorder.words;
  record[LINE] = words[place + RULE.line];
  record[VERDICT] = (words[place + RULE.what] >>> VERDICT_SHIFT) & 7;
  record[VERSION] = version;
  record[LEVEL] = (words[place + RULE.what] >>> LEVEL_SHIFT) & 15;
  for (let i = 0; i < PACKET_WORDS; i++) record[WORDS + i] = packet[i];
  const prefix = words[place + RULE.prefix];
  const length = prefix === 0 ? 0 : Math.min(PREFIX_MAX, words[base + prefix]);
  record[PREFIX] = length;
  for (let i = 0; i < length; i++) record[PREFIX + 1 + i] = words[base + prefix + 1 + i];
  return recorder.write();
}

/** Fields are named as in EVE, the JSON of intrusion detection systems. */
export function renderLogged(record: Int32Array): RecordFields {
  const packet = record.subarray(WORDS, PREFIX);
  const version = record[VERSION];
  const prefix = String.fromCodePoint(...record.subarray(PREFIX + 1, PREFIX + 1 + record[PREFIX]));
  const protocol = packet[PACKET.protocol];
  return {
    rule_line: record[LINE],
    verdict: VERDICTS[record[VERDICT]],
    state: STATES[packet[PACKET.state]],
    prefix: prefix === '' ? undefined : prefix,
    level: record[LEVEL] === 0 ? undefined : LOG_LEVELS[record[LEVEL] - 1],
    src_ip: addressText(packet, PACKET.source, version),
    src_port: hasPorts(protocol) ? packet[PACKET.sport] : undefined,
    dest_ip: addressText(packet, PACKET.destination, version),
    dest_port: hasPorts(protocol) ? packet[PACKET.dport] : undefined,
    proto: protocol,
    icmp_type: protocol === 1 || protocol === 58 ? packet[PACKET.icmpType] : undefined,
    icmp_code: protocol === 1 || protocol === 58 ? packet[PACKET.icmpCode] : undefined,
    in_port: packet[PACKET.inPort],
  };
}

function addressText(packet: Int32Array, at: number, version: number): string {
  const words = Array.from(packet.subarray(at, at + (version === 4 ? 1 : 4)), (word) => (word ^ 0x8000_0000) >>> 0);
  if (version === 4) {
    const [word] = words;
    return formatIpv4((word >>> 24) | ((word >>> 8) & 0xff00) | ((word & 0xff00) << 8) | (word << 24));
  }
  return words.flatMap((word) => [word >>> 16, word & 0xffff].map((group) => group.toString(16))).join(':');
}
