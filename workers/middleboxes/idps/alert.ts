/**
 * Alerts: records of fixed layout, rendered as lines of JSON with the field names of EVE (the
 * format of Suricata's log). There is one alert per event, not per packet. Anyone who sends packets
 * can cause alerts, so each worker limits their rate.
 */

import { type MiddleboxLog, portNumber, type Recorder, type RecordFields, recordKind, unixMs } from '../../api/api.js';
import { ADDRESS_WORDS, DESTINATION, END_WORDS, formatEnd, LINK, SOURCE, vlansOf } from './ends.js';

export interface Signature {
  readonly text: string;
  readonly category: string;
  /** 1 is the most severe. */
  readonly severity: number;
}

const RECONNAISSANCE = 'Attempted Information Leak';
const DENIAL = 'Attempted Denial of Service';

/** The key is the `signature_id`. A number keeps its meaning for ever. */
export const SIGNATURES: Readonly<Record<number, Signature>> = {
  1001: { text: 'IDPS port scan of a host', category: RECONNAISSANCE, severity: 2 },
  1002: { text: 'IDPS sweep of hosts', category: RECONNAISSANCE, severity: 2 },
  1003: { text: 'IDPS scan of ports of several hosts', category: RECONNAISSANCE, severity: 2 },
  2001: { text: 'IDPS flood of a destination port', category: DENIAL, severity: 1 },
  2002: { text: 'IDPS SYN flood', category: DENIAL, severity: 1 },
};

export const Signature = {
  PORT_SCAN: 1001,
  SWEEP: 1002,
  SCAN: 1003,
  PORT_FLOOD: 2001,
  SYN_FLOOD: 2002,
} as const;

const FIGURES = 5;
const SCAN_FIGURES = ['attempted', 'answered', 'refused', 'ports', 'addresses'];
const PORT_FLOOD_FIGURES = ['mbit', 'seconds'];
const SYN_FLOOD_FIGURES = ['syns', 'completed', 'seconds'];
const FIGURE_NAMES: Readonly<Record<number, readonly string[]>> = {
  1001: SCAN_FIGURES,
  1002: SCAN_FIGURES,
  1003: SCAN_FIGURES,
  2001: PORT_FLOOD_FIGURES,
  2002: SYN_FLOOD_FIGURES,
};

const At = {
  signature: 0,
  blocked: 1,
  protocol: 2,
  ports: 3,
  until: 4,
  ends: 5,
  figures: 5 + END_WORDS,
} as const;
const WORDS = At.figures + FIGURES;
const PROTOCOLS: Readonly<Record<number, string>> = { 1: 'ICMP', 6: 'TCP', 17: 'UDP', 58: 'IPv6-ICMP' };

export const alertKind = recordKind('what was found, as an EVE alert', WORDS, render);

function render(words: Int32Array): RecordFields {
  const id = words[At.signature];
  const { text, category, severity } = SIGNATURES[id];
  const from = portNumber(words[At.ports] & 0xffff);
  const to = portNumber(words[At.ports] >>> 16);
  const names = FIGURE_NAMES[id];
  const figures = Object.fromEntries(names.map((name, i) => [name, words[At.figures + i]]));
  const has = (end: number): boolean =>
    words.slice(At.ends + end, At.ends + end + ADDRESS_WORDS).some((word) => word !== 0);
  return {
    ...(has(SOURCE) && { src_ip: formatEnd(words, At.ends + SOURCE) }),
    ...(from !== 0 && { src_port: from }),
    ...(has(DESTINATION) && { dest_ip: formatEnd(words, At.ends + DESTINATION) }),
    ...(to !== 0 && { dest_port: to }),
    ...(words[At.ends + LINK] !== 0 && { vlan: vlansOf(words[At.ends + LINK]) }),
    proto: PROTOCOLS[words[At.protocol]] ?? String(words[At.protocol]),
    alert: {
      action: words[At.blocked] !== 0 ? 'blocked' : 'allowed',
      gid: 1,
      signature_id: id,
      rev: 1,
      signature: text,
      category,
      severity,
    },
    idps: {
      ...figures,
      ...(words[At.until] > 0 && { blocked_until: new Date(unixMs(words[At.until])).toISOString() }),
    },
  };
}

const PER_SECOND = 50;
const AT_ONCE = 500;

export interface Alerts {
  /** Figures of the next alert. Set them before `raise`. */
  readonly figures: Int32Array;
  /**
   * Raises an alert. `ends[at …]` holds source and destination, four words each, and their link.
   * Unknown ones are zeros. `until` is in coarse seconds, 0 if nothing is blocked.
   */
  raise(
    signature: number,
    ends: Int32Array,
    at: number,
    ports: number,
    protocol: number,
    until: number,
    now: number,
  ): void;
}

/** Calls `suppressed` for each alert over the rate. */
export function createAlerts(recorder: Recorder, log: MiddleboxLog, suppressed: () => void): Alerts {
  const figures = new Int32Array(FIGURES);
  const { words } = recorder;
  let tokens = AT_ONCE;
  let refilled = 0;

  return {
    figures,
    raise(signature, ends, at, ports, protocol, until, now) {
      if (now > refilled) {
        tokens = Math.min(AT_ONCE, tokens + PER_SECOND * (now - refilled));
        refilled = now;
      }
      if (tokens < 1) return suppressed();
      tokens--;
      words[At.signature] = signature;
      words[At.blocked] = until > 0 ? 1 : 0;
      words[At.protocol] = protocol;
      words[At.ports] = ports;
      words[At.until] = until;
      for (let i = 0; i < END_WORDS; i++) words[At.ends + i] = ends[at + i];
      for (let i = 0; i < FIGURES; i++) words[At.figures + i] = figures[i];
      recorder.write();
      log.warn(SIGNATURES[signature].text, render(words) as never);
    },
  };
}
