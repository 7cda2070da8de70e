/**
 * The options that must be the same at all sites, with the values from this configuration, as text.
 */

import { createHash } from 'node:crypto';
import { changeOf, type Option, type OptionKind, type Options } from '../options/option.js';
import { ALL_SECTIONS } from '../options/sections.js';
import { CHAIN_REASON, nameOfEntry, shownValue, valueAt } from './changes.js';
import type { Config } from './config.js';
import { middleboxKeys } from './middleboxes.js';
import { type Path, pathText } from './problem.js';

type Declared = Option<OptionKind, unknown>;

const FINGERPRINT_DIGITS = 16;

export interface AgreedOption {
  /** Its path: `transport.mtu_bytes`, `middleboxes[0].nat.first_port`. */
  readonly name: string;
  readonly value: string;
  /** Why members have to agree on it. */
  readonly reason: string;
}

/**
 * Returns the options in the order of the declarations. `optionsAt`: the declared options of the
 * middlebox at this index of the chain. Options without effect under the present configuration are
 * left out, such as a multicast group with unicast.
 */
export function agreedOptions(config: Config, optionsAt: (index: number) => Options): AgreedOption[] {
  const { written, cluster } = config;
  const agreed: AgreedOption[] = [];
  const add = (path: Path, option: Declared): void => {
    const { kind, reason = '' } = changeOf(option);
    const name = pathText(path);
    if (kind !== 'all-sites' || !hasEffect(name, config)) return;
    // An option that was left out has a value nevertheless.
    if (name === 'cluster.slots') agreed.push({ name, value: String(cluster.slots), reason });
    else if (name === 'cluster.membership')
      agreed.push({ name: `${name}.kind`, value: cluster.membership.kind, reason });
    else agreed.push({ name, value: textOf(option, valueAt(written, path)), reason });
  };
  for (const { path, when, options } of ALL_SECTIONS) {
    if (path.includes('*') || (when !== undefined && !isInUse(when, config))) continue;
    for (const [name, option] of Object.entries(options)) add([...path, name], option);
  }
  const chain = written.middleboxes.map(nameOfEntry).join(', ');
  agreed.push({ name: 'middleboxes', value: chain, reason: CHAIN_REASON });
  for (const [i, entry] of written.middleboxes.entries()) {
    const [key] = middleboxKeys(entry);
    for (const [name, option] of Object.entries(optionsAt(i))) add(['middleboxes', i, key, name], option);
  }
  return agreed;
}

function hasEffect(name: string, { cluster, transport }: Config): boolean {
  if (name === 'transport.group') return transport.kind === 'multicast';
  return name !== 'cluster.insecure' || cluster.keyFile === null;
}

function isInUse(when: string, { cluster, packet_io }: Config): boolean {
  return when === `kind: ${cluster.membership.kind}` || when === `driver: ${packet_io.driver}`;
}

/** The text of a value. A secret is shown by its fingerprint. */
function textOf(option: Declared, value: unknown): string {
  if (option.form !== 'secret') return shownValue(option, value, Number.POSITIVE_INFINITY);
  if (value === '' || value === undefined) return 'none';
  const digest = createHash('sha256')
    .update(`agreed fingerprint ${String(value)}`)
    .digest('hex');
  return `secret ${digest.slice(0, FINGERPRINT_DIGITS)}`;
}
