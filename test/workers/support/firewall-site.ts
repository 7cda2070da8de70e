/** A site with a firewall. */

import type { FlowTable } from '../../../shm/objects/flow/flow-table.js';
import { compileRules } from '../../../workers/middleboxes/firewall/compile.js';
import firewall from '../../../workers/middleboxes/firewall/index.js';
import type { PlaneOptions } from './plane.js';
import { publishRules, Site } from './site.js';

const PORTS = ['inside', 'outside'];

export interface FirewallSiteOptions {
  readonly rules: string;
  readonly member?: number;
  readonly members?: number;
  readonly options?: Readonly<Record<string, unknown>>;
  readonly plane?: PlaneOptions;
  readonly workers?: number;
  /** Their names; default inside and outside. */
  readonly ports?: readonly string[];
}

/** A wire, unless told otherwise. */
export class FirewallSite extends Site {
  readonly ipv4: FlowTable;
  readonly ipv6: FlowTable;

  private readonly ports: readonly string[];

  constructor({ rules, options = {}, plane, ports = PORTS, ...site }: FirewallSiteOptions) {
    const source = { file: null, text: rules, ports };
    super({
      ...site,
      plane: { route: null, ...plane },
      chain: [
        {
          middlebox: firewall as never,
          options: { rules: source, connections: 1024, connections_ipv6: 256, ...options },
        },
      ],
    });
    this.ports = ports;
    this.ipv4 = this.objects[0] as FlowTable;
    this.ipv6 = this.objects[1] as FlowTable;
  }

  load(rules: string): void {
    publishRules(this.boards[0], compileRules, rules, this.ports);
  }

  /**
   * Exchanges all records, once now and once after the time in which an answer to a handshake is
   * replicated and used.
   */
  static settle(...sites: FirewallSite[]): void {
    const share = (): void => {
      for (const site of sites) site.replicateTo(...sites.filter((other) => other !== site));
    };
    for (const ms of [0, 700, 200]) {
      for (const { plane } of sites) plane.idle(ms, 100);
      share();
    }
  }

  /** What was counted, but the names' common beginning. */
  counts(): Record<string, number> {
    return Object.fromEntries(
      Object.entries(this.plane.counts()).map(([name, count]) => [name.replace(/^firewall_/, ''), count]),
    );
  }
}
