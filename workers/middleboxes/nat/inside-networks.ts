/**
 * Validation of the sources of packets from inside. If `inside_networks` is set, the source must be
 * in it. If not, and the inside port has no next hop, all inside hosts are on the link, so the
 * source must be in the port's current subnets. Hosts named in `static` and networks in `bypass`
 * are then inside too. If the port has a next hop, or no address, the networks are unknown, and
 * every source is accepted.
 */

import { formatIpv4, type OnLink, OptionError, type Prefix, type StaticMapping } from '../../api/api.js';
import { createMatcher } from './bypass.js';

interface InsideOptions {
  readonly inside: number;
  readonly inside_networks: readonly Prefix[];
  readonly static: readonly StaticMapping[];
  readonly bypass: readonly Prefix[];
}

/**
 * Throws if an inside network contains an external address. 0.0.0.0/0 turns validation off, so it
 * may contain them.
 */
export function checkInside({
  inside_networks,
  external,
  static: mappings,
}: Pick<InsideOptions, 'inside_networks' | 'static'> & { readonly external: readonly number[] }): void {
  const outer = [...external, ...mappings.map(({ externalAddress }) => externalAddress)];
  for (const [index, { address, mask }] of inside_networks.entries()) {
    const within = mask === 0 ? undefined : outer.find((own) => ((own ^ address) & mask) === 0);
    if (within === undefined) continue;
    const network = `${formatIpv4(address)}/${bitsOf(mask)}`;
    const message = `${network} contains ${formatIpv4(within)}, an external address of this NAT; name networks that contain none`;
    throw new OptionError('inside_networks', message, index);
  }
}

/** Returns a function that tests whether a raw source address is inside. Made once per worker. */
export function createInsideTest(
  { inside, inside_networks, static: mappings, bypass }: InsideOptions,
  onLink: OnLink,
): (address: number) => boolean {
  const isListed = createMatcher(inside_networks);
  if (inside_networks.length > 0) return isListed;
  const isNamed = createMatcher([
    ...mappings.map((mapping) => ({ address: mapping.internalAddress, mask: -1 })),
    ...bypass,
  ]);
  return (address) => onLink.has(inside, address) || !onLink.knows(inside) || isNamed(address);
}

/** Returns a function that logs which sources are validated, first and after each change. */
export function createInsideReport(
  options: InsideOptions,
  onLink: OnLink,
  log: { info(text: string): void },
): () => void {
  let said: string | null = null;
  return () => {
    const text = report();
    if (text !== said) log.info(text);
    said = text;
  };

  function report(): string {
    const { inside, inside_networks } = options;
    const listed = inside_networks.map(({ address, mask }) => `${formatIpv4(address)}/${bitsOf(mask)}`).join(', ');
    if (inside_networks.some(({ mask }) => mask === 0))
      return `sources from inside are not validated (inside_networks)`;
    if (listed !== '') return `sources from inside are validated: ${listed}`;
    if (onLink.knows(inside))
      return 'sources from inside are validated: the subnets of the inside port, which has no next_hop; set inside_networks if hosts inside have others';
    return 'sources from inside are not validated, since the networks behind the inside port are not known: set inside_networks';
  }
}

function bitsOf(mask: number): number {
  let bits = 0;
  for (let left = mask; left !== 0; left &= left - 1) bits++;
  return bits;
}
