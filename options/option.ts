/**
 * The declaration of an option: once, as data. Schema, error messages, help, documents and use are
 * derived from it.
 *
 * The folder `options/` is a leaf: it imports nothing from other folders, and all of them may
 * import it. `conf/` makes the schema from a declaration, `daemon/` compares and applies values,
 * and middleboxes declare their options through workers/api/api.ts.
 */

import type { RulesCompiler, RulesText } from './rules.js';
import type { Unit } from './units.js';

/**
 * How a changed value takes effect.
 *
 * - `hot`: `constellation reload` applies it at once, and nothing is lost.
 * - `rolling`: at the next start of the instance. The sites can restart one after another.
 * - `all-sites`: at the next start, and members with different values do not work together.
 *   `reason` says why.
 */
export type ChangeKind = 'hot' | 'rolling' | 'all-sites';

interface Change {
  readonly kind: ChangeKind;
  /** Only for `all-sites`. */
  readonly reason?: string;
  /**
   * Only for `rolling`: what is lost if the value is lowered, or an entry is removed from a list.
   * An operator has to confirm the change.
   */
  readonly loses?: string;
}

export const HOT: Change = { kind: 'hot' };
export const ROLLING: Change = { kind: 'rolling' };
export const rollingLosing = (loses: string): Change => ({ kind: 'rolling', loses });
export const allSites = (reason: string): Change => ({ kind: 'all-sites', reason });

/** An IPv4 network: `(raw address & mask) === address`, raw words. */
export interface Prefix {
  readonly address: number;
  readonly mask: number;
}

/**
 * A static mapping of a NAT. Addresses are raw, ports in host order. Protocol 0: the whole address
 * is mapped, and the ports are 0.
 */
export interface StaticMapping {
  readonly protocol: number;
  readonly externalAddress: number;
  readonly externalPort: number;
  readonly internalAddress: number;
  readonly internalPort: number;
}

/** The type of an option's value in a program, by kind. */
interface OptionTypes {
  /** Name of a port of the configuration, resolved to its index. */
  port: number;
  /**
   * IPv4 addresses, networks and ranges, resolved to raw words (workers/packet/batch.ts), one per
   * address.
   */
  addresses: readonly number[];
  /** IPv4 networks such as `10.0.0.0/8`, ranges, or addresses. */
  prefixes: readonly Prefix[];
  /** `tcp 203.0.113.1:80 -> 10.0.0.5:8080`, or `203.0.113.2 -> 10.0.0.6`. */
  mappings: readonly StaticMapping[];
  /** A whole number, with a unit or without. */
  count: number;
  /** Several whole numbers. */
  counts: readonly number[];
  /** Whole seconds. */
  seconds: number;
  /** A number from 0 to 1. */
  share: number;
  flag: boolean;
  /** `true`, `false`, or a whole number instead of `true`. */
  'flag-or-count': boolean | number;
  /** One of a few words. */
  choice: string;
  text: string;
  /** Text of a form: an address, a name, a path. */
  form: string;
  /** A program and its arguments. */
  program: readonly string[];
  /**
   * Text that is compiled, and can be replaced while the instance runs. Threads use `open`'s
   * `rules`.
   */
  rules: RulesText;
  /** A list or mapping with options of its own. */
  structure: unknown;
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
  'share',
  'flag',
  'flag-or-count',
  'choice',
  'text',
  'form',
  'program',
  'rules',
  'structure',
] satisfies readonly OptionKind[];

/** The forms that a text can have. conf/values.ts defines their patterns. */
export type Form = 'ipv4' | 'mac' | 'next-hop' | 'next-hop6' | 'name' | 'interface' | 'path' | 'secret' | 'etcd-prefix';

export interface Option<K extends OptionKind = OptionKind, V = OptionTypes[K]> {
  readonly kind: K;
  /** One line, shown in the schema, in errors and in the documents. */
  readonly help: string;
  /**
   * As written in YAML. The default of rules is an empty text: no rules. Absent: the operator must
   * give a value, unless the option is `optional`.
   */
  readonly default?: V;
  /** It may be left out, and then has no value. */
  readonly optional?: boolean;
  readonly min?: number;
  readonly max?: number;
  readonly unit?: Unit;
  readonly powerOfTwo?: boolean;
  /** For a list: maximum number of entries. */
  readonly entries?: number;
  readonly choices?: readonly string[];
  readonly form?: Form;
  /** Only for `rules`. */
  readonly compile?: RulesCompiler;
  /** How a changed value takes effect. Absent: `rolling`. */
  readonly change?: Change;
}

export type Options = Readonly<Record<string, Option<OptionKind, unknown>>>;

/** How a changed value of an option takes effect. */
export function changeOf({ change = ROLLING }: Option<OptionKind, unknown>): Change {
  return change;
}

/**
 * `state` throws it to report an error in one option. The operator is shown the line of that
 * option. `index`: the entry, if the option is a list.
 */
export class OptionError extends RangeError {
  readonly option: string;
  readonly index: number | undefined;

  constructor(option: string, message: string, index?: number) {
    super(message);
    this.option = option;
    this.index = index;
  }
}

/** The values of declared options, as a program reads them. */
export type Resolved<O extends Options> = {
  readonly [Name in keyof O]: O[Name] extends Option<OptionKind, infer V> ? V : never;
};

interface Effect {
  readonly change?: Change;
}

/** Limits beside the default, and how a change takes effect. */
interface Limits extends Effect {
  readonly min?: number;
  readonly max?: number;
  readonly unit?: Unit;
  readonly powerOfTwo?: boolean;
}

export const option = {
  port: (help: string, effect: Effect = {}): Option<'port'> => ({ kind: 'port', help, ...effect }),
  addresses: (help: string, effect: Effect = {}): Option<'addresses'> => ({ kind: 'addresses', help, ...effect }),
  prefixes: (help: string, effect: Effect = {}): Option<'prefixes'> => ({
    kind: 'prefixes',
    help,
    default: [],
    ...effect,
  }),
  mappings: (help: string, effect: Effect = {}): Option<'mappings'> => ({
    kind: 'mappings',
    help,
    default: [],
    ...effect,
  }),
  count: (help: string, preset: number, limits: Limits = {}): Option<'count'> & { readonly default: number } => ({
    kind: 'count',
    help,
    default: preset,
    min: 1,
    ...limits,
  }),
  /** The operator must give a value. */
  number: (help: string, limits: Limits = {}): Option<'count'> => ({ kind: 'count', help, min: 1, ...limits }),
  /** May be left out. */
  someCount: (help: string, limits: Limits = {}): Option<'count', number | undefined> => ({
    kind: 'count',
    help,
    optional: true,
    min: 1,
    ...limits,
  }),
  counts: (
    help: string,
    preset: readonly number[],
    limits: Limits & { readonly entries?: number } = {},
  ): Option<'counts'> => ({
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
    unit: 's',
    ...limits,
  }),
  share: (help: string, preset: number, effect: Effect = {}): Option<'share'> => ({
    kind: 'share',
    help,
    default: preset,
    min: 0,
    max: 1,
    ...effect,
  }),
  flag: (help: string, preset: boolean, effect: Effect = {}): Option<'flag'> => ({
    kind: 'flag',
    help,
    default: preset,
    ...effect,
  }),
  flagOrCount: (help: string, preset: boolean | number, limits: Limits = {}): Option<'flag-or-count'> => ({
    kind: 'flag-or-count',
    help,
    default: preset,
    min: 1,
    ...limits,
  }),
  /** `min` and `max` count characters. */
  text: (help: string, preset?: string, limits: Limits = {}): Option<'text'> =>
    preset === undefined ? { kind: 'text', help, ...limits } : { kind: 'text', help, default: preset, ...limits },
  /** If `preset` is absent, the operator must give a value. */
  form: (form: Form, help: string, preset?: string, effect: Effect = {}): Option<'form'> => ({
    kind: 'form',
    form,
    help,
    ...(preset !== undefined && { default: preset }),
    ...effect,
  }),
  /** May be left out. */
  someForm: (form: Form, help: string, effect: Effect = {}): Option<'form', string | undefined> => ({
    kind: 'form',
    form,
    help,
    optional: true,
    ...effect,
  }),
  /** May be left out. */
  program: (help: string, effect: Effect = {}): Option<'program', readonly string[] | undefined> => ({
    kind: 'program',
    help,
    optional: true,
    ...effect,
  }),
  /**
   * `optional`: if the operator writes no rules, an empty text is compiled. Rules are always hot:
   * `reload` reads them again.
   */
  rules: (
    help: string,
    { compile, optional = false }: { readonly compile: RulesCompiler; readonly optional?: boolean },
  ): Option<'rules'> => ({
    kind: 'rules',
    help,
    compile,
    change: HOT,
    ...(optional && { default: '' as never }),
  }),
  choice: <const C extends readonly string[]>(
    help: string,
    choices: C,
    preset: C[number],
    effect: Effect = {},
  ): Option<'choice', C[number]> => ({
    kind: 'choice',
    help,
    choices,
    default: preset,
    ...effect,
  }),
  /** A list or mapping. `V` is the type of its value in a program. */
  structure: <V>(help: string, effect: Effect = {}): Option<'structure', V> => ({ kind: 'structure', help, ...effect }),
};
