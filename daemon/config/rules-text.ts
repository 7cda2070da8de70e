/** Reads the text of rules, and words its errors. */

import { suggestion } from '../../conf/suggest.js';
import type { CompiledRules, RuleEntry, RuleProblem, RulesCompiler, RulesText } from '../../options/rules.js';
import { type FileLimits, readFileInTime, readRegularFile } from '../base/read-file.js';

/** Number of errors of a text that a message lists. */
const PROBLEMS_SHOWN = 20;
/** The largest number of rules takes less. */
const FILE_BYTES_MAX = 16 * 1024 * 1024;

/**
 * Returns the text of rules. Throws with the reason if a file cannot be read. Blocks on its file
 * system.
 */
function readRules({ file, text }: RulesText): string {
  if (file === null) return text;
  try {
    return textOf(file, readRegularFile(file, limitsOf(file)));
  } catch (error) {
    throw explained(file, error);
  }
}

/** Like `readRules`, but rejects if the file system does not answer in time. */
export async function readRulesInTime({ file, text }: RulesText, signal: AbortSignal): Promise<string> {
  if (file === null) return text;
  try {
    return textOf(file, await readFileInTime(file, limitsOf(file), signal));
  } catch (error) {
    throw explained(file, error);
  }
}

function limitsOf(file: string): FileLimits {
  return { name: file, bytesMax: FILE_BYTES_MAX };
}

function textOf(file: string, bytes: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new Error(`${file} is not UTF-8 text`);
  }
}

function explained(file: string, error: unknown): unknown {
  if ((error as NodeJS.ErrnoException).code !== 'ENOENT') return error;
  return new Error(`there is no file ${file}; several lines, after a "|", would be the text itself`);
}

export function problemText({ message, word, candidates }: RuleProblem): string {
  return word === undefined || candidates === undefined ? message : `${message}${suggestion(word, candidates)}`;
}

/** Returns the errors in a text, and notes on what may not be intended. */
export function findingsOf(
  compile: RulesCompiler,
  rules: RulesText,
): { readonly problems: readonly RuleProblem[]; readonly notes: readonly RuleProblem[] } {
  const { problems = [], notes = [] } = compile(readRules(rules), rules);
  return { problems, notes };
}

/** Returns the compiled rules. Throws with all errors in the text. */
export function compiledOrThrow(
  source: RulesText,
  name: string,
  { words, entries, problems }: CompiledRules,
): { words: Int32Array; entries: readonly RuleEntry[] } {
  if (problems === undefined) return { words, entries };
  const shown = problems.slice(0, PROBLEMS_SHOWN).map((problem) => placedProblem(source, name, problem));
  if (problems.length > shown.length) shown.push(`and ${problems.length - shown.length} more`);
  throw new Error(shown.join('; '));
}

/**
 * `file:line:col: message`. For rules in the configuration, the line counts from the start of their
 * text.
 */
export function placedProblem(source: RulesText, name: string, problem: RuleProblem): string {
  const place = `${problem.line}:${problem.column}: ${problemText(problem)}`;
  return source.file === null ? `${name}: line ${place}` : `${source.file}:${place}`;
}
