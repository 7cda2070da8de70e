/**
 * The `middleboxes` section. Its schema is made from the options that each middlebox declares
 * (options/option.ts); the daemon passes the declarations in. This file also resolves what the
 * operator wrote to what the middlebox reads.
 */

import { resolve } from 'node:path';
import { z } from 'zod';
import { expandAddresses, expandPrefixes } from '../options/addresses.js';
import type { Mode, SharedState } from '../options/middlebox.js';
import type { OptionKind, Options } from '../options/option.js';
import type { RulesText } from '../options/rules.js';
import { expected } from './messages.js';
import { shapeOf } from './option-schema.js';
import type { Problem } from './problem.js';
import { rawIpv4, rawMapping, rawPrefix } from './values.js';

/**
 * The part of a middlebox that its configuration is made from. Every `Middlebox` of
 * workers/api/middlebox.ts is one.
 */
export interface MiddleboxDeclaration {
  readonly name: string;
  readonly help: string;
  readonly options: Options;
  /** The modes in which it works. Absent: all. */
  readonly modes?: readonly Mode[];
  /**
   * In a chain no middlebox may rewrite addresses that another watches, unless it declares `sides`.
   */
  readonly addresses?: 'rewrites' | 'watches';
  /** Which ports, by index, are on which side of it. */
  sides?(options: ResolvedMiddlebox['options']): { readonly near: readonly number[]; readonly far: readonly number[] };
  /** Fixes the layout of its state. Throws if the options contradict each other. */
  state?(options: ResolvedMiddlebox['options'], shared: SharedState): unknown;
  /**
   * For a user's own middlebox: its key in the configuration, which is its path as written, and the
   * address of its module.
   */
  readonly own?: { readonly key: string; readonly module: string };
}

/**
 * A middlebox to run, with its options resolved. It can be sent to threads and passed to `state`
 * and `open`.
 */
export interface ResolvedMiddlebox {
  readonly name: string;
  /** The name given to this instance of it, if it differs from `name`. */
  readonly as?: string;
  /** For a user's own middlebox: the address of its module. */
  readonly module?: string;
  readonly options: Readonly<Record<string, ResolvedOption>>;
}

/**
 * port: its index. addresses, prefixes and mappings: raw words. rules: their text or file. Other
 * kinds: as written.
 */
type ResolvedOption =
  | number
  | string
  | boolean
  | readonly number[]
  | readonly Readonly<Record<string, number>>[]
  | RulesText;

/**
 * As written and checked. Each entry is a mapping with the middlebox's key and optionally another
 * `name` for it.
 */
export type WrittenMiddleboxes = readonly Readonly<Record<string, Readonly<Record<string, unknown>>>>[];

/** The key in an entry, beside the middlebox's key, for its given name. */
const NAME_KEY = 'name';

/** The keys of an entry that are middleboxes. A valid entry has exactly one. */
export function middleboxKeys(entry: Readonly<Record<string, unknown>> | undefined): string[] {
  return Object.keys(entry ?? {}).filter((key) => key !== NAME_KEY);
}

/** The name that the operator gave to the middlebox of an entry, if any. */
export function givenName(entry: Readonly<Record<string, unknown>> | undefined): string | undefined {
  const name = entry?.[NAME_KEY];
  return typeof name === 'string' ? name : undefined;
}

/** Distinguishes paths of files from names of middleboxes. */
const OWN = '^(\\.{1,2})?/';

export function isOwnMiddlebox(key: string): boolean {
  return new RegExp(OWN).test(key);
}

/** The middlebox's key in the configuration. */
export function keyOf({ name, own }: MiddleboxDeclaration): string {
  return own?.key ?? name;
}

export function findMiddlebox(
  declarations: readonly MiddleboxDeclaration[],
  key: string,
): MiddleboxDeclaration | undefined {
  return declarations.find((declaration) => keyOf(declaration) === key);
}

export function middleboxesSchema(declarations: readonly MiddleboxDeclaration[]) {
  const entries: Record<string, z.ZodType> = {};
  for (const declaration of declarations) {
    entries[keyOf(declaration)] = optionsSchema(declaration).describe(declaration.help).optional();
  }
  // cross-checks.ts checks that an entry has exactly one middlebox, because there unknown keys
  // count too.
  const entry = z
    .strictObject({ ...entries, [NAME_KEY]: middleboxName() })
    .meta({ minProperties: 1, maxProperties: 2, patternProperties: { [OWN]: OWN_ENTRY } });
  return z
    .array(entry)
    .min(1)
    .describe(
      'The middleboxes every packet passes, in this order: by name, or, of your own, by the path of the file, which begins with / or ./ and starts from the folder of this file.',
    );
}

const middleboxName = () =>
  z
    .string({ error: expected('a lower-case word') })
    .regex(/^[a-z][a-z0-9_]{0,30}$/, { error: expected('a lower-case word of up to 31 letters, digits or "_"') })
    .optional()
    .describe(
      'What its state and its counters begin with; absent: the middlebox’s own name. One that stands in the list twice needs another name for each; all members of a cluster need the same.',
    );

/** For editors, which do not know the options that a user's own middlebox declares. */
const OWN_ENTRY = { type: 'object', description: 'A middlebox of your own, with the options it declares.' };

function optionsSchema({ options }: MiddleboxDeclaration) {
  return z.strictObject(shapeOf(options));
}

/** What the resolution of options depends on. */
interface OptionContext {
  /** The ports' names, in the order of their indices. */
  readonly ports: readonly string[];
  /** Maximum number of other members at present. */
  readonly others: number;
  /** Where relative paths start from. */
  readonly folder: string;
}

/** Resolves checked middleboxes. */
export function resolveMiddleboxes(
  written: WrittenMiddleboxes,
  declarations: readonly MiddleboxDeclaration[],
  context: OptionContext,
): ResolvedMiddlebox[] {
  return written.map((entry) => {
    const [key] = middleboxKeys(entry);
    const declaration = findMiddlebox(declarations, key);
    if (declaration === undefined) throw new Error(`middlebox ${key} is not declared`);
    const { name, own } = declaration;
    const resolved = Object.entries(declaration.options).map(([option, { kind }]) => [
      option,
      resolveOption(kind, entry[key][option], context),
    ]);
    const options = Object.fromEntries(resolved);
    const as = givenName(entry);
    return { name, ...(as !== undefined && { as }), ...(own !== undefined && { module: own.module }), options };
  });
}

function resolveOption(kind: OptionKind, written: unknown, context: OptionContext): ResolvedOption {
  if (kind === 'rules') return resolveRules(written as string, context);
  if (kind === 'port') return context.ports.indexOf(written as string);
  if (kind === 'addresses') return expandAddresses(written as string[]).map(rawIpv4);
  if (kind === 'prefixes') return expandPrefixes(written as string[]).map(rawPrefix);
  if (kind === 'mappings') return (written as string[]).map(rawMapping);
  return written as ResolvedOption;
}

/** An empty text and a text of several lines are the rules themselves. Anything else is a file. */
function resolveRules(written: string, { ports, others, folder }: OptionContext): RulesText {
  if (written === '' || written.includes('\n')) return { file: null, text: written, ports, others };
  return { file: resolve(folder, written), text: '', ports, others };
}

/**
 * Errors that middleboxes themselves report about options that are valid one by one, such as a
 * range that ends before it begins, and about the state they declare.
 */
export function contradictions(
  middleboxes: readonly ResolvedMiddlebox[],
  shared: SharedState,
  declarations: readonly MiddleboxDeclaration[],
): Problem[] {
  return middleboxes.flatMap(({ name, options }, i): Problem[] => {
    const declaration = declarations.find((candidate) => candidate.name === name);
    if (declaration === undefined) return [];
    try {
      declaration.state?.(options, shared);
      return [];
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      const { option, index } = error as { option?: string; index?: number };
      const path = ['middleboxes', i, keyOf(declaration)];
      if (option === undefined) return [{ path, at: 'key', message }];
      const place = index === undefined ? [option] : [option, index];
      return [{ path: [...path, ...place], at: 'value', message }];
    }
  });
}

/**
 * Reports ports that are not on the same side of all middleboxes of the chain that have sides.
 * Packets could not pass the chain from one end to the other.
 */
export function contrarySides(
  middleboxes: readonly ResolvedMiddlebox[],
  declarations: readonly MiddleboxDeclaration[],
  ports: readonly string[],
): Problem[] {
  const problems: Problem[] = [];
  const sides = middleboxes.flatMap(({ name, options }, i) => {
    const declaration = declarations.find((candidate) => candidate.name === name);
    if (declaration?.sides === undefined) return [];
    const key = keyOf(declaration);
    try {
      return [{ ...declaration.sides(options), key, i }];
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      problems.push({ path: ['middleboxes', i, key], at: 'key', message });
      return [];
    }
  });
  const contraries = sides.flatMap(({ near, far, key, i }, n): Problem[] => {
    const contrary = (earlier: (typeof sides)[number]) =>
      [...near.filter((port) => earlier.far.includes(port)), ...far.filter((port) => earlier.near.includes(port))].at(
        0,
      );
    const other = sides.slice(0, n).find((earlier) => contrary(earlier) !== undefined);
    if (other === undefined) return [];
    const port = ports[contrary(other) ?? 0];
    const message = `port ${port} is on the other side of ${key} than of ${other.key} before it: in one chain the same ports are inside of all`;
    return [{ path: ['middleboxes', i, key], at: 'key', message }];
  });
  return [...problems, ...contraries];
}
