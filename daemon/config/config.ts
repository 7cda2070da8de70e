/**
 * Reads a configuration file. A configuration is used only if all of it is valid. The reader finds
 * every error in one pass and reports each as `file:line:col: path: message`, in file order.
 */

import { dirname, resolve } from 'node:path';
import { type Config, resolveConfig } from '../../conf/config.js';
import { contradictions, contrarySides, keyOf, type MiddleboxDeclaration } from '../../conf/middleboxes.js';
import { type Problem, pathText } from '../../conf/problem.js';
import { ConfigSource } from '../../conf/source.js';
import { validate } from '../../conf/validate.js';
import type { RuleProblem, RulesText } from '../../options/rules.js';
import { readFileInTime } from '../base/read-file.js';
import { onlineCores } from '../lifecycle/cores.js';
import { hookProblems } from '../lifecycle/hook-programs.js';
import { builtInMiddleboxes, ownMiddleboxes } from './middleboxes.js';
import { findingsOf, placedProblem, problemText } from './rules-text.js';

export type { Config } from '../../conf/config.js';

type LoadedConfig =
  | { readonly config: Config; readonly notes: readonly string[]; readonly errors?: undefined }
  | { readonly errors: readonly string[]; readonly config?: undefined; readonly notes?: undefined };

/** What a configuration may refer to. */
interface Surroundings {
  readonly middleboxes: readonly MiddleboxDeclaration[];
  /** The cores that are online. */
  readonly cores: readonly number[];
}

/** This machine and the built-in middleboxes. */
async function surroundings(): Promise<Surroundings> {
  return { middleboxes: await builtInMiddleboxes(), cores: onlineCores() };
}

/**
 * Reads and checks a configuration file and the user's own middleboxes that it names. Returns
 * errors in the file; never throws for them.
 */
export async function loadConfig(file: string, known?: Surroundings): Promise<LoadedConfig> {
  let text: string;
  try {
    text = await readText(file);
  } catch (error) {
    return { errors: [`${file}: cannot be read: ${(error as Error).message}`] };
  }
  const { middleboxes, cores } = known ?? (await surroundings());
  const source = new ConfigSource(text);
  const own = await ownMiddleboxes(source.readable ? source.value : null, dirname(resolve(file)));
  return check(file, source, { middleboxes: [...middleboxes, ...own.declarations], cores }, own.problems);
}

/**
 * Like `loadConfig`, for a text in memory; `file` is its name in messages. Knows only the given
 * middleboxes.
 */
export function parseConfig(file: string, text: string, known: Surroundings): LoadedConfig {
  return check(file, new ConfigSource(text), known, []);
}

/**
 * `unloaded`: errors of middleboxes that could not be loaded. They replace other problems at the
 * same path.
 */
function check(file: string, source: ConfigSource, known: Surroundings, unloaded: readonly Problem[]): LoadedConfig {
  const found: Found[] = source.syntaxProblems.map(({ offset, message }) => ({ offset, text: message }));
  if (source.readable) {
    const absolute = resolve(file);
    const host = { cores: known.cores, folder: dirname(absolute) };
    const { written, problems = [] } = validate(source.value, known.middleboxes, host);
    if (written !== undefined && found.length === 0) {
      const config = resolveConfig(absolute, written, known.middleboxes);
      problems.push(...contradictions(config.middleboxes, config.shared, known.middleboxes));
      problems.push(...contrarySides(config.middleboxes, known.middleboxes, Object.keys(written.ports)));
      const { broken, notes } =
        problems.length === 0 ? checkRules(file, source, config, known.middleboxes) : { broken: [], notes: [] };
      if (problems.length === 0) problems.push(...checkAgainstHost(config));
      if (problems.length === 0 && broken.length === 0) return { config, notes };
      found.push(...broken);
    }
    const places = new Set(unloaded.map(({ path }) => pathText(path)));
    for (const problem of [...problems.filter(({ path }) => !places.has(pathText(path))), ...unloaded]) {
      const path = pathText(problem.path);
      const message = path === '' ? problem.message : `${path}: ${problem.message}`;
      found.push({ offset: source.locate(problem), text: message });
    }
  }
  found.sort((a, b) => a.offset - b.offset);
  return { errors: found.map((error) => error.whole ?? `${file}:${source.position(error.offset)}: ${error.text}`) };
}

interface Found {
  readonly offset: number;
  readonly text: string;
  /** The text with its place, if the place is not that of `offset`. */
  readonly whole?: string;
}

/** Errors that depend on this host or on the configuration as a whole. */
function checkAgainstHost({ cluster, middleboxes, hooks }: Config): Problem[] {
  const others = cluster.members.length - 1;
  const held = middleboxes.flatMap(({ name, options }, i): Problem[] => {
    const members = Number(options['hold_members'] ?? 0);
    if (cluster.membership.kind !== 'static' || members <= others) return [];
    const message = `${members} other members, and ${others} in cluster.members: every first packet would wait in vain`;
    return [{ path: ['middleboxes', i, name, 'hold_members'], at: 'value', message }];
  });
  const programs = hookProblems(hooks).map(
    ({ hook, message }): Problem => ({ path: ['hooks', hook, 0], at: 'value', message }),
  );
  return [...held, ...programs];
}

/** Errors and notes about the rules that the configuration contains or refers to. */
function checkRules(
  file: string,
  source: ConfigSource,
  { middleboxes }: Config,
  declarations: readonly MiddleboxDeclaration[],
): { readonly broken: readonly Found[]; readonly notes: readonly string[] } {
  const broken: Found[] = [];
  const notes: string[] = [];
  for (const [i, { name, options }] of middleboxes.entries()) {
    const declaration = declarations.find((candidate) => candidate.name === name);
    for (const [option, { compile }] of Object.entries(declaration?.options ?? {})) {
      if (compile === undefined || declaration === undefined) continue;
      const path = ['middleboxes', i, keyOf(declaration), option];
      const offset = source.locate({ path, at: 'value', message: '' });
      const rules = options[option] as RulesText;
      const placed = (problem: RuleProblem): Found => {
        const text = `${pathText(path)}: ${problemText(problem)}`;
        if (rules.file !== null) return { offset, text, whole: placedProblem(rules, option, problem) };
        const place = source.positionInBlock(offset, problem.line, problem.column);
        if (place !== null) return { offset, text, whole: `${file}:${place}: ${text}` };
        return { offset, text: placedProblem(rules, pathText(path), problem) };
      };
      try {
        const found = findingsOf(compile, rules);
        broken.push(...found.problems.map(placed));
        notes.push(...found.notes.map(placed).map(({ whole, text }) => whole ?? `${file}: ${text}`));
      } catch (error) {
        broken.push({ offset, text: `${pathText(path)}: ${(error as Error).message}` });
      }
    }
  }
  return { broken, notes };
}

/** A configuration is written by hand. A larger file is not a configuration. */
const FILE_BYTES_MAX = 1024 * 1024;

async function readText(file: string): Promise<string> {
  const bytes = await readFileInTime(file, { name: 'it', bytesMax: FILE_BYTES_MAX });
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new Error('it is not UTF-8 text');
  }
}
