/**
 * Imports middleboxes, the bundled ones and a user's own, and combines their declarations. Main
 * does this, and every other thread does it again.
 */

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { OPTION_KINDS } from '../../options/option.js';
import type { Middlebox, SharedState } from '../api/middlebox.js';
import { failure } from '../base/failure.js';
import { type Declaration, declareChain, type Link, WORD } from './chain.js';
import { directImports } from './own-api.js';

export interface PlannedMiddlebox {
  /** URL of its module. */
  readonly module: string;
  /** Its name in this chain. Default: its own name. */
  readonly name?: string;
  /** Resolved options. */
  readonly options: Readonly<Record<string, unknown>>;
}

/**
 * Longest time that the import of a module may take, in milliseconds. A module may wait for
 * something while it is imported.
 */
const IMPORT_MS_MAX = 60_000;

/** Loads a chain. If a middlebox is wrong, throws an error that names it. */
export async function loadChain(middleboxes: readonly PlannedMiddlebox[], shared: SharedState): Promise<Declaration> {
  const links: Link[] = [];
  for (const { module, ...link } of middleboxes) links.push({ middlebox: await loadMiddlebox(module), ...link });
  return declareChain(links, shared);
}

/**
 * Returns a module's default export, if it is a middlebox. Otherwise throws an error that says why
 * it is not.
 */
export async function loadMiddlebox(module: string): Promise<Middlebox> {
  const file = fileURLToPath(module);
  if (!existsSync(file)) throw new Error(`there is no file ${file}`);
  directImports(module);
  let exported: { readonly default?: unknown };
  try {
    exported = await inTime(import(module));
  } catch (error) {
    throw failure(`${file} cannot be loaded`, placed(error, file));
  }
  const wrong = flawOf(exported.default);
  if (wrong !== null) throw new Error(`${file} exports no middlebox as default: ${wrong}`);
  return exported.default as Middlebox;
}

async function inTime<T>(loading: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`it took more than ${IMPORT_MS_MAX / 1000} s`)), IMPORT_MS_MAX);
  });
  try {
    return await Promise.race([loading, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Adds the place to an error of an import. For the most common error, adds the remedy. */
function placed(error: unknown, file: string): unknown {
  if (!(error instanceof Error)) return error;
  const { message, stack = '' } = error;
  if (message.startsWith("Cannot find package 'constellation'"))
    return new Error(
      `${message}; link this installation there: mkdir -p node_modules && ln -s ${ROOT} node_modules/constellation`,
    );
  if (error instanceof SyntaxError) return new Error(syntaxError(file) ?? message);
  const [place] = /file:\/\/[^\s)]+:\d+/.exec(stack) ?? [];
  return place === undefined ? error : failure(`${fileURLToPath(place)}: ${error.name}`, error);
}

/**
 * Returns the place of a syntax error, which Node reports only when it runs the file. Returns null
 * if it finds none.
 */
function syntaxError(file: string): string | null {
  const { stderr } = spawnSync(process.execPath, ['--check', file], { encoding: 'utf8', timeout: IMPORT_MS_MAX });
  const [, place] = /^(?:file:\/\/)?(\/.*:\d+)$/m.exec(stderr ?? '') ?? [];
  const [, what] = /^(SyntaxError: .*)$/m.exec(stderr ?? '') ?? [];
  return place === undefined || what === undefined ? null : `${place}: ${what}`;
}

/** The folder of the package `constellation`, seen from `dist/workers/`. */
const ROOT = fileURLToPath(new URL('../../..', import.meta.url)).replace(/\/$/, '');

/**
 * Why a value is not a middlebox; `null` if it is one. Results of its functions are checked when
 * they are called.
 */
function flawOf(value: unknown): string | null {
  if (value === undefined) return 'there is no default export';
  if (typeof value !== 'object' || value === null) return `it is ${value === null ? 'null' : `a ${typeof value}`}`;
  const { name, help, options, modes, ipv6, addresses, sides, counters, records, state, open } = value as Partial<
    Record<keyof Middlebox, unknown>
  >;
  if (typeof name !== 'string' || !WORD.test(name)) return `its name ${JSON.stringify(name)} is not a lower-case word`;
  if (typeof help !== 'string') return 'its help is no text';
  if (!isMapping(options)) return 'its options are no mapping';
  for (const [key, option] of Object.entries(options))
    if (!isMapping(option) || !OPTION_KINDS.includes(option['kind'] as string))
      return `its option ${key} is none of option.${OPTION_KINDS.join(', option.')}`;
  if (modes !== undefined && !(Array.isArray(modes) && modes.length > 0 && modes.every(isMode)))
    return 'its modes are no list of route and wire';
  if (ipv6 !== undefined && typeof ipv6 !== 'boolean') return 'its ipv6 is neither true nor false';
  if (addresses !== undefined && addresses !== 'rewrites' && addresses !== 'watches')
    return 'its addresses are neither rewrites nor watches';
  if (sides !== undefined && typeof sides !== 'function') return 'its sides are no function';
  if (sides !== undefined && addresses !== 'rewrites') return "it has sides, and not addresses: 'rewrites'";
  if (!isMapping(counters)) return 'its counters are no mapping';
  for (const [key, text] of Object.entries(counters)) {
    if (!WORD.test(key)) return `its counter ${JSON.stringify(key)} is not a lower-case word`;
    if (typeof text !== 'string') return `its counter ${key} has no help`;
  }
  if (records !== undefined && (!isMapping(records) || !Object.values(records).every(isMapping)))
    return 'its records are no mapping of names to kinds of record';
  if (typeof state !== 'function') return 'its state is no function';
  return typeof open === 'function' ? null : 'its open is no function';
}

function isMode(value: unknown): boolean {
  return value === 'route' || value === 'wire';
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
