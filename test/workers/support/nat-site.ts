/** A site with a NAT. */

import type { NatBinding } from '../../../shm/objects/nat/nat-binding.js';
import nat from '../../../workers/middleboxes/nat/index.js';
import { parseIpv4 } from '../../../workers/packet/ipv4.js';
import { on, type PlaneOptions } from './plane.js';
import { INSIDE, OUTSIDE, Site } from './site.js';

export { INSIDE, OUTSIDE };

type Packet = Parameters<Site['pass']>[0];

export interface NatSiteOptions {
  readonly member?: number;
  readonly members?: number;
  readonly options?: Readonly<Record<string, unknown>>;
  readonly plane?: PlaneOptions;
  readonly workers?: number;
  readonly clusterSecret?: Int32Array;
}

export class NatSite extends Site {
  readonly bindings: NatBinding;

  constructor({ options = {}, ...site }: NatSiteOptions = {}) {
    const external = [parseIpv4('203.0.113.1')];
    super({
      ...site,
      chain: [
        { middlebox: nat as never, options: { inside: INSIDE, outside: OUTSIDE, external, flows: 1024, ...options } },
      ],
    });
    this.bindings = this.objects[0] as NatBinding;
  }

  /**
   * Sends a packet from inside, and then the outside's answer to what came out. Returns what came
   * out of the first.
   */
  exchange(packet: Packet): string[] {
    const out = this.pass(packet);
    const [, protocol, external, remote, rest = ''] = /^1: (\w+) (\S+) > (\S+)( S)? ttl/.exec(out[0] ?? '') ?? [];
    if (protocol !== undefined)
      this.pass(on(OUTSIDE, `${protocol} ${remote} > ${external}${rest === ' S' ? ' SA' : ''}`));
    return out;
  }

  /**
   * Establishes `udp INSIDE > REMOTE` or `tcp INSIDE > REMOTE`: there, back, there. Returns the
   * external port.
   */
  establish(endpoints: string): string {
    const isTcp = endpoints.startsWith('tcp');
    const [out] = this.exchange(on(INSIDE, isTcp ? `${endpoints} S` : endpoints));
    this.pass(on(INSIDE, isTcp ? `${endpoints} A` : endpoints));
    return out.split(/[: ]/)[4];
  }
}
