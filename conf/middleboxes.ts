/**
 * The `middleboxes` section: its schema is made from what each middlebox declares of its options
 * (options/option.ts), which the daemon passes in, and what the operator wrote is resolved to what
 * the middlebox reads.
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
 * What of a middlebox its configuration is made from; every `Middlebox` of workers/middlebox.ts is
 * one.
 */
export interface MiddleboxDeclaration {
  readonly name: string;
  readonly help: string;
  readonly options: Options;
  /** The ways it can stand in the network; absent: in any. */
  readonly modes?: readonly Mode[];
  /**
   * Of a chain none may rewrite addresses that another watches, unless it says on which side of it
   * which port is.
   */
  readonly addresses?: 'rewrites' | 'watches';
  /** Ports by index. */
  sides?(options: ResolvedMiddlebox['options']): { readonly near: readonly number[]; readonly far: readonly number[] };
  /** Fixes the layout of its state; throws when the options contradict each other. */
  state?(options: ResolvedMiddlebox['options'], shared: SharedState): unknown;
  /**
   * A user's own: the key it has in the configuration, which is its path as written, and the
   * address of its module.
   */
  readonly own?: { readonly key: string; readonly module: string };
}

/**
 * A middlebox to run, its options resolved: ready to be sent to threads and given to `state` and
 * `open`.
 */
export interface ResolvedMiddlebox {
  readonly name: string;
  /** What this one of it is called, where that is another name. */
  readonly as?: string;
  /** Of a user's own. */
  readonly module?: string;
  readonly options: Readonly<Record<string, ResolvedOption>>;
}

/**
 * port: its index; addresses, prefixes and mappings: raw words; rules: where they are; the other
 * kinds as written.
 */
export type ResolvedOption =
  | number
  | string
  | boolean
  | readonly number[]
  | readonly Readonly<Record<string, number>>[]
  | RulesText;

/**
 * As written and checked: one entry per middlebox, a mapping with the middlebox's key and, beside
 * it, perhaps another `name` for it.
 */
export type WrittenMiddleboxes = readonly Readonly<Record<string, Readonly<Record<string, unknown>>>>[];

/** Beside a middlebox's key in its entry: what this one of it is called. */
const NAME_KEY = 'name';

/** The keys of an entry that are middleboxes: one, where it is right. */
export function middleboxKeys(entry: Readonly<Record<string, unknown>> | undefined): string[] {
  return Object.keys(entry ?? {}).filter((key) => key !== NAME_KEY);
}

/** What the operator calls the middlebox of an entry, if anything. */
export function givenName(entry: Readonly<Record<string, unknown>> | undefined): string | undefined {
  const name = entry?.[NAME_KEY];
  return typeof name === 'string' ? name : undefined;
}

/** Paths of files, against names. */
const OWN = '^(\\.{1,2})?/';

export function isOwnMiddlebox(key: string): boolean {
  return new RegExp(OWN).test(key);
}

/** Its key in the configuration. */
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
  // That an entry has exactly one of them is checked in cross-checks.ts, where unknown keys count
  // too.
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

/** For editors, which do not know what a user's own middlebox declares. */
const OWN_ENTRY = { type: 'object', description: 'A middlebox of your own, with the options it declares.' };

function optionsSchema({ options }: MiddleboxDeclaration) {
  return z.strictObject(shapeOf(options));
}

/** What options are resolved in. */
export interface OptionContext {
  /** The ports' names, in the order of their indices. */
  readonly ports: readonly string[];
  /** Other members there can be at present. */
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

/** Several lines are the rules themselves, and so is nothing. */
function resolveRules(written: string, { ports, others, folder }: OptionContext): RulesText {
  if (written === '' || written.includes('\n')) return { file: null, text: written, ports, others };
  return { file: resolve(folder, written), text: '', ports, others };
}

/**
 * What middleboxes themselves have against options that are right one by one, such as a range that
 * ends before it begins, and what is wrong with the state they declare.
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
 * In one chain a port is on the same side of all that have sides: else packets could not pass it
 * from one end to the other.
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
