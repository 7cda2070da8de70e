/**
 * The differences between two configurations, option by option: the running one, and the present
 * file.
 */

import type { Option, OptionKind, Options } from '../options/option.js';
import { allSites, ROLLING } from '../options/option.js';
import { ALL_SECTIONS, type Section } from '../options/sections.js';
import { showNumber } from '../options/units.js';
import { givenName, middleboxKeys } from './middleboxes.js';
import { type Path, pathText } from './problem.js';
import type { WrittenConfig } from './schema.js';

type Declared = Option<OptionKind, unknown>;

/** Why members have to agree on the chain. */
export const CHAIN_REASON = 'members have the same middleboxes, in the same order';

export interface OptionChange {
  readonly path: Path;
  readonly option: Declared;
  readonly from: unknown;
  readonly to: unknown;
}

interface Changes {
  readonly changes: readonly OptionChange[];
  /** Number of options that are the same. */
  readonly unchanged: number;
}

/** `optionsAt`: the declared options of the middlebox at this index of the chain. */
export function changesBetween(
  before: WrittenConfig,
  after: WrittenConfig,
  optionsAt: (index: number) => Options,
): Changes {
  const found: OptionChange[] = [];
  let unchanged = 0;
  const compare = (path: Path, option: Declared): void => {
    const [from, to] = [valueAt(before, path), valueAt(after, path)];
    if (same(from, to)) unchanged++;
    else found.push({ path, option, from, to });
  };
  for (const section of ALL_SECTIONS)
    for (const place of placesOf(section, before, after))
      for (const [name, option] of Object.entries(section.options)) compare([...place, name], option);
  compare(['packet_io', 'driver'], { kind: 'structure', help: '', change: ROLLING });
  const ports = [before, after].map((config) => Object.keys(config.ports));
  if (!same(ports[0], ports[1]))
    found.push({
      path: ['ports'],
      option: { kind: 'structure', help: '', change: ROLLING },
      from: ports[0],
      to: ports[1],
    });
  const chains = [before, after].map(({ middleboxes }) => middleboxes.map(nameOfEntry));
  if (!same(chains[0], chains[1])) {
    const change = allSites(CHAIN_REASON);
    found.push({
      path: ['middleboxes'],
      option: { kind: 'structure', help: '', change },
      from: chains[0],
      to: chains[1],
    });
    return { changes: found, unchanged };
  }
  for (const [i, entry] of after.middleboxes.entries()) {
    const [key] = middleboxKeys(entry);
    for (const [name, option] of Object.entries(optionsAt(i))) compare(['middleboxes', i, key, name], option);
  }
  return { changes: found, unchanged };
}

/** The paths of a section's options: one, or one for each port that both configurations have. */
function placesOf({ path, when }: Section, before: WrittenConfig, after: WrittenConfig): Path[] {
  const { driver } = after.packet_io;
  if (when?.startsWith('driver: ') && (when !== `driver: ${driver}` || before.packet_io.driver !== driver)) return [];
  if (path[0] === 'ports')
    return Object.keys(after.ports)
      .filter((name) => Object.hasOwn(before.ports, name))
      .map((name) => ['ports', name]);
  // The list of members, membership and faults are compared as a whole, as options of their parent
  // sections.
  return path.length > 1 ? [] : [path];
}

/** A middlebox of the chain, for people: its key, and its given name if it has one. */
export function nameOfEntry(entry: WrittenConfig['middleboxes'][number]): string {
  const [key] = middleboxKeys(entry);
  const given = givenName(entry);
  return given === undefined ? key : `${key} (${given})`;
}

export function valueAt(config: WrittenConfig, path: Path): unknown {
  return path.reduce<unknown>((value, step) => (value as Record<PropertyKey, unknown> | undefined)?.[step], config);
}

/** A copy of the configuration with another value at a path. */
export function withValue(config: WrittenConfig, path: Path, value: unknown): WrittenConfig {
  const copy = structuredClone(config);
  const last = path[path.length - 1];
  const parent = valueAt(copy, path.slice(0, -1)) as Record<PropertyKey, unknown>;
  parent[last] = value;
  return copy;
}

function same(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

/** The option's path as in messages: `replication.keepalive_ms`, `middleboxes[0].nat.udp`. */
export function nameOfChange({ path }: OptionChange): string {
  return pathText(path);
}

const SHOWN_CHARACTERS = 120;

/**
 * A value as an answer shows it. Never shows a secret. Text is cut after `charactersMax`
 * characters.
 */
export function shownValue(
  { form, unit, kind }: Declared,
  value: unknown,
  charactersMax: number = SHOWN_CHARACTERS,
): string {
  if (form === 'secret') return '(secret)';
  if (value === undefined) return 'none';
  if (typeof value === 'number') return showNumber(unit, value);
  if (Array.isArray(value) && kind !== 'structure') return `[${value.join(', ')}]`.slice(0, charactersMax);
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  return text.replace(/\s+/g, ' ').slice(0, charactersMax);
}
