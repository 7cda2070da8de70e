/** A site with a NAT. */

import type { NatBinding } from '../../../shm/objects/nat-binding.js';
import nat from '../../../workers/middleboxes/nat.js';
import { parseIpv4 } from '../../../workers/packet/ipv4.js';
import type { PlaneOptions } from './plane.js';
import { INSIDE, OUTSIDE, Site } from './site.js';

export { INSIDE, OUTSIDE };

export interface NatSiteOptions {
  readonly member?: number;
  readonly members?: number;
  readonly options?: Readonly<Record<string, unknown>>;
  readonly plane?: PlaneOptions;
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
}
