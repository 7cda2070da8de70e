/**
 * The middleboxes of Constellation, each with options under which it has work to do. `bench --
 * middleboxes` measures them and `fuzz:packets` feeds them. Add a new one here.
 */

import type { Middlebox } from '../../workers/api/middlebox.js';
import firewall from '../../workers/middleboxes/firewall/index.js';
import idps from '../../workers/middleboxes/idps/index.js';
import nat from '../../workers/middleboxes/nat/index.js';
import { parseIpv4 } from '../../workers/packet/ipv4.js';
import type { Mode } from '../../workers/packet/parse.js';
import type { Link } from '../../workers/plane/chain.js';

export const INSIDE = 0;
export const OUTSIDE = 1;
export const PORT_NAMES = ['inside', 'outside'];

/** External addresses of the NAT. */
export const EXTERNAL = Array.from({ length: 8 }, (_, i) => parseIpv4(`203.0.113.${i + 1}`));

/** A rule for each kind of answer, and one that accepts the rest. */
const FIREWALL_RULES = `
zone lan = { port inside }
zone internet = { port outside }
policy drop
from internet tcp dport 22 reject
from internet udp dport 123 accept
from lan accept
`;

const OPTIONS: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  nat: { inside: INSIDE, outside: OUTSIDE, external: EXTERNAL },
  firewall: { rules: { file: null, text: FIREWALL_RULES, ports: PORT_NAMES } },
  idps: {},
};

const ALL: readonly Middlebox[] = [nat, firewall, idps].map((middlebox) => middlebox as never);

/** All middleboxes with the modes that they support. */
export const SHIPPED: readonly { readonly link: Link; readonly modes: readonly Mode[] }[] = ALL.map((middlebox) => ({
  link: { middlebox, options: OPTIONS[middlebox.name] ?? {} },
  modes: middlebox.modes ?? ['route', 'wire'],
}));

/** The entry of a middlebox, with additional options. */
export function shipped(name: string, more: Readonly<Record<string, unknown>> = {}): Link {
  const found = SHIPPED.find(({ link }) => link.middlebox.name === name);
  if (found === undefined) throw new Error(`no middlebox is called ${name}`);
  const { middlebox, options } = found.link;
  return { middlebox, options: { ...options, ...more } };
}
