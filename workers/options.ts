/**
 * A middlebox's options, declared as data: from them come the YAML schema, its errors and help, and the types the
 * middlebox reads. `conf/` turns a declaration into its schema, the daemon resolves what the operator wrote.
 */

import type { StaticMapping } from '../shm/objects/static-mappings.js';
import type { RulesCompiler, RulesText } from './rules.js';

/** An IPv4 network: `(raw address & mask) === address`, raw words. */
export interface Prefix {
  readonly address: number;
  readonly mask: number;
}

export interface OptionTypes {
  /** Name of a port of the configuration; resolved to its index. */
  port: number;
  /** IPv4 addresses, dotted; resolved to raw words (see batch.ts). */
  addresses: readonly number[];
  /** IPv4 networks as `10.0.0.0/8`, or addresses. */
  prefixes: readonly Prefix[];
  /** `tcp 203.0.113.1:80 -> 10.0.0.5:8080`, or `203.0.113.2 -> 10.0.0.6`. */
  mappings: readonly StaticMapping[];
  /** A positive whole number. */
  count: number;
  /** Several. */
  counts: readonly number[];
  /** Whole seconds. */
  seconds: number;
  flag: boolean;
  /** `true`, `false`, or a whole number instead of `true`. */
  'flag-or-count': boolean | number;
  /** One of a few words. */
  choice: string;
  text: string;
  /** Text that is compiled, and can be replaced while the instance runs: rules.ts. What a thread works with is `open`'s `rules`. */
  rules: RulesText;
}

export type OptionKind = keyof OptionTypes;

export const OPTION_KINDS: readonly string[] = [
  'port',
  'addresses',
  'prefixes',
  'mappings',
  'count',
  'counts',
  'seconds',
  'flag',
  'flag-or-count',
  'choice',
  'text',
  'rules',
] satisfies readonly OptionKind[];

export interface Option<K extends OptionKind = OptionKind, V = OptionTypes[K]> {
  readonly kind: K;
  /** One line, shown in the schema and in errors. */
  readonly help: string;
  /** As written in YAML (rules: an empty text, which is none); absent: the operator must give it. */
  readonly default?: V;
  readonly min?: number;
  readonly max?: number;
  readonly choices?: readonly string[];
  /** Of `rules`. */
  readonly compile?: RulesCompiler;
}

export type Options = Readonly<Record<string, Option<OptionKind, unknown>>>;

/** Thrown by `state` about one option: the operator is shown that line. `index`: of which entry of a list. */
export class OptionError extends RangeError {
  readonly option: string;
  readonly index: number | undefined;

  constructor(option: string, message: string, index?: number) {
    super(message);
    this.option = option;
    this.index = index;
  }
}

/** What a middlebox reads of its declared options. */
export type Resolved<O extends Options> = {
  readonly [Name in keyof O]: O[Name] extends Option<OptionKind, infer V> ? V : never;
};

/** Numeric limits beside the default. */
interface Limits {
  readonly min?: number;
  readonly max?: number;
}

export const option = {
  port: (help: string): Option<'port'> => ({ kind: 'port', help }),
  addresses: (help: string): Option<'addresses'> => ({ kind: 'addresses', help }),
  prefixes: (help: string): Option<'prefixes'> => ({ kind: 'prefixes', help, default: [] }),
  mappings: (help: string): Option<'mappings'> => ({ kind: 'mappings', help, default: [] }),
  count: (help: string, preset: number, limits: Limits = {}): Option<'count'> => ({
    kind: 'count',
    help,
    default: preset,
    min: 1,
    ...limits,
  }),
  counts: (help: string, preset: readonly number[], limits: Limits = {}): Option<'counts'> => ({
    kind: 'counts',
    help,
    default: preset,
    min: 1,
    ...limits,
  }),
  seconds: (help: string, preset: number, limits: Limits = {}): Option<'seconds'> => ({
    kind: 'seconds',
    help,
    default: preset,
    min: 1,
    ...limits,
  }),
  flag: (help: string, preset: boolean): Option<'flag'> => ({ kind: 'flag', help, default: preset }),
  flagOrCount: (help: string, preset: boolean | number, limits: Limits = {}): Option<'flag-or-count'> => ({
    kind: 'flag-or-count',
    help,
    default: preset,
    min: 1,
    ...limits,
  }),
  text: (help: string, preset?: string): Option<'text'> =>
    preset === undefined ? { kind: 'text', help } : { kind: 'text', help, default: preset },
  /** `optional`: where the operator writes none, an empty text is compiled. */
  rules: (
    help: string,
    { compile, optional = false }: { readonly compile: RulesCompiler; readonly optional?: boolean },
  ): Option<'rules'> => ({ kind: 'rules', help, compile, ...(optional && { default: '' as never }) }),
  choice: <const C extends readonly string[]>(
    help: string,
    choices: C,
    preset: C[number],
  ): Option<'choice', C[number]> => ({
    kind: 'choice',
    help,
    choices,
    default: preset,
  }),
};
