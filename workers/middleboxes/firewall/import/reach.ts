/** Finds the chains, sets and interfaces that the base chains of a listing reach. */

import type { Block, Chain, Listing, Table } from './listing.js';
import { interfacesIn, targetsIn } from './rewrite.js';

export const FAMILIES = ['ip', 'ip6', 'inet'];
export const INSIDE = 'inside';
export const VERSIONS = ['ipv4', 'ipv6'] as const;
export type Version = (typeof VERSIONS)[number];

export function isFilter({ base }: Chain): boolean {
  return base?.type === 'filter';
}

export function setKey(table: Table, name: string): string {
  return `${table.family} ${table.name} ${name}`;
}

/** Returns the base chains of an IP version, in the order in which packets pass them. */
export function sequence(bases: readonly Chain[], version: Version): Chain[] {
  const family = version === 'ipv4' ? 'ip' : 'ip6';
  return bases
    .filter(({ table }) => table.family === 'inet' || table.family === family)
    .toSorted((a, b) => (a.base?.priority ?? 0) - (b.base?.priority ?? 0));
}

/**
 * Returns the chain and those that it jumps to, directly or not, including by maps of its table.
 */
export function reachedBy(chain: Chain): Chain[] {
  const { table } = chain;
  const found = new Set<Chain>([chain]);
  for (const each of found) {
    const targets = [...each.rules, ...mapsOf([each])].flatMap(({ tokens }) => targetsIn(tokens));
    for (const target of table.chains) if (targets.includes(target.name)) found.add(target);
  }
  return [...found];
}

/** Returns the sets and maps that rules of the chains use. */
export function mapsOf(chains: readonly Chain[]): Block[] {
  const used = new Set(
    chains
      .flatMap(({ rules }) => rules.flatMap(({ tokens }) => tokens.filter(({ kind }) => kind === 'name')))
      .map(({ text }) => text),
  );
  return chains.length === 0 ? [] : chains[0].table.sets.filter(({ name }) => used.has(name));
}

/**
 * Returns a port name for each wildcard that no name matches. Rules with the wildcard need such a
 * port.
 */
export function examples(names: readonly string[], exact: readonly string[]): string[] {
  const starts = names.filter((name) => name.endsWith('*')).map((name) => name.slice(0, -1));
  const found = new Set<string>();
  for (const start of starts.toSorted((a, b) => b.length - a.length))
    if (![...exact, ...found].some((name) => name.startsWith(start))) found.add(start === '' ? INSIDE : `${start}0`);
  return [...found];
}

export function interfacesOf(base: Chain, { defines }: Listing): string[] {
  const sets = base.table.sets.filter(({ statements }) =>
    statements.some(({ tokens }) => tokens.some(({ text }) => /^(ifname|iface_index|[io]ifname)$/.test(text))),
  );
  const strings = [...sets, ...defines].flatMap(({ tokens }) =>
    tokens.filter(({ kind }) => kind === 'string').map(({ text }) => text),
  );
  return [...reachedBy(base).flatMap(({ rules }) => rules.flatMap(({ tokens }) => interfacesIn(tokens))), ...strings];
}

/**
 * Returns true if a packet can leave the rules of a base chain before the last one and still reach
 * the chain's end.
 */
export function canReturn(base: Chain): boolean {
  return [...base.rules, ...mapsOf([base])].some(({ tokens }) =>
    tokens.some(({ kind, text }) => kind === 'word' && (text === 'return' || text === 'goto')),
  );
}
