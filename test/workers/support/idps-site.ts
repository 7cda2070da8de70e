/** A site with an IDPS in a wire, and packets as scanners and their targets send them. */

import { timestampOf } from '../../../daemon/watch/record-log.js';
import type { KeyedHyperLogLogs } from '../../../workers/api/api.js';
import type { RecordFields } from '../../../workers/api/records.js';
import { alertKind } from '../../../workers/middleboxes/idps/alert.js';
import { compileAllowList, parsePrefix } from '../../../workers/middleboxes/idps/allow-list.js';
import { parseBlocked } from '../../../workers/middleboxes/idps/blocks.js';
import idps from '../../../workers/middleboxes/idps/index.js';
import { ANSWERED, ATTEMPTED, PROBED, REFUSED } from '../../../workers/middleboxes/idps/scan.js';
import { frame, seal } from './frames.js';
import { MemberBoards } from './member-boards.js';
import type { PlaneOptions } from './plane.js';
import { INSIDE, OUTSIDE, publishRules, Site } from './site.js';

export { INSIDE, OUTSIDE };

/** State objects of an IDPS: sources, volumes, SYNs, blocks, blocked ports, attempts. */
const IDPS_OBJECTS = 6;

export interface Alert {
  readonly timestamp: string;
  readonly src_ip?: string;
  readonly src_port?: number;
  readonly dest_ip?: string;
  readonly dest_port?: number;
  readonly proto: string;
  readonly alert: { readonly signature_id: number; readonly action: string; readonly [name: string]: unknown };
  readonly idps: Readonly<Record<string, number | string>>;
}

export interface IdpsSiteOptions {
  readonly member?: number;
  readonly members?: number;
  readonly options?: Readonly<Record<string, unknown>>;
  /** Text of the allow-list. */
  readonly allow?: string;
  readonly plane?: PlaneOptions;
}

export class IdpsSite extends Site {
  constructor({ options = {}, allow = '', plane = {}, ...site }: IdpsSiteOptions = {}) {
    const rules = { allow: { file: null, text: allow, ports: [] } };
    const { member = 0, members = 1 } = site;
    super({
      ...site,
      ...(members > 1 && { others: new MemberBoards(member, members, IDPS_OBJECTS) }),
      shared: { form: 'totals', members: site.members ?? 1, seed: 'a test' },
      plane: { route: null, ...plane },
      chain: [{ middlebox: idps as never, options: { sources: 4096, blocks: 1024, ...rules, ...options } }],
    });
  }

  /** Alerts since the last time. */
  alerts(): Alert[] {
    const alerts: Alert[] = [];
    this.plane.recorded.read(10_000, (_kind, unixMs, words) =>
      alerts.push({ timestamp: timestampOf(unixMs), ...alertKind.render(words) } as unknown as Alert),
    );
    return alerts;
  }

  /** What `show blocks` shows. */
  blocks(): RecordFields[] {
    const [, , , blocked, ports] = this.receiver;
    const views = idps.views?.({ blocked, blocked_ports: ports } as never, this.now);
    return [...(views?.['blocks']() ?? [])];
  }

  /** What `reload rules` does with another allow-list. */
  allow(text: string): void {
    publishRules(this.boards[0], compileAllowList, text, []);
    this.plane.idle(300);
  }

  /** What `unblock` does. */
  unblock(text: string): void {
    this.plane.orders.write(0, this.plane.nowMs, parseBlocked(text));
    this.plane.idle(300);
  }

  /**
   * Estimates of what is known of a source: contacts that it attempted, and of these answered,
   * refused and so on.
   */
  known(source: string): { attempted: number; answered: number; refused: number; probed: number } {
    const sources = this.objects[0] as KeyedHyperLogLogs;
    const key = Int32Array.of(...parsePrefix(source).subarray(0, 4), 0);
    const slot = sources.find(sources.hash(key, 0), key, 0);
    const of = (sketch: number) => (slot < 0 ? 0 : Math.round(sources.estimate(slot, sketch, this.now)));
    return { attempted: of(ATTEMPTED), answered: of(ANSWERED), refused: of(REFUSED), probed: of(PROBED) };
  }

  signatures(): number[] {
    return this.alerts().map(({ alert }) => alert.signature_id);
  }

  /** Lets packets pass from outside, or as answers from inside; returns how many came through. */
  fromOutside(...texts: string[]): number {
    return this.pass(...texts.map((text) => ({ port: OUTSIDE, frame: frame(text) }))).length;
  }

  fromInside(...texts: string[]): number {
    return this.pass(...texts.map((text) => ({ port: INSIDE, frame: frame(text) }))).length;
  }
}

/** How a target answers a probe. */
export const tcpAnswers = {
  open: (from: string, to: string) => `tcp ${to} > ${from} SA`,
  closed: (from: string, to: string) => `tcp ${to} > ${from} RA seq 0`,
} as const;

/** An ICMP error of `from` about a packet. */
export function unreachable(from: string, about: Uint8Array, code = 3): Uint8Array {
  const bytes = Buffer.from(about);
  const source = `${bytes[26]}.${bytes[27]}.${bytes[28]}.${bytes[29]}`;
  const error = frame(`icmp ${from} > ${source} type 3 len 28`);
  error[14 + 20 + 1] = code;
  error.set(about.subarray(14, 14 + 28), 14 + 20 + 8);
  return seal(error);
}

/** Every site sends every other what it has logged, and is heard by them. */
export function exchange(...sites: IdpsSite[]): void {
  for (const site of sites) {
    const others = sites.filter((other) => other !== site);
    site.replicateTo(...others);
    for (const other of others) other.others?.hear(site.member, other.plane.monotonicMs);
  }
}

/** Lets time pass at all sites, which exchange what they have logged meanwhile. */
export function idleTogether(ms: number, ...sites: IdpsSite[]): void {
  for (let passed = 0; passed < ms; passed += 100) {
    for (const site of sites) site.plane.idle(100);
    exchange(...sites);
  }
}
