/** Reads the text of rules, and words what is wrong with it. */

import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import type { OptionDeclaration, ResolvedRules, RuleProblem } from '../conf/middleboxes.js';
import { suggestion } from '../conf/suggest.js';
import type { CompiledRules, RuleEntry } from '../workers/rules.js';

/** Mistakes of a text that an error lists. */
const PROBLEMS_SHOWN = 20;
/** Rules of the greatest number are smaller. */
const FILE_BYTES_MAX = 16 * 1024 * 1024;

/** The text of rules. Throws with why a file cannot be read. */
export function readRules({ file, text }: ResolvedRules): string {
  if (file === null) return text;
  const bytes = readFile(file);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new Error(`${file} is not UTF-8 text`);
  }
}

/**
 * `NONBLOCK`: opening a FIFO must not wait for a writer. A thread that waits in a system call cannot
 * be ended, so the instance could not stop either.
 */
function readFile(file: string): Buffer {
  const fd = openFile(file);
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw new Error(`${file} is not a regular file`);
    if (stat.size > FILE_BYTES_MAX)
      throw new Error(`${file} has ${stat.size} bytes, and rules may have ${FILE_BYTES_MAX} at most`);
    return readFileSync(fd);
  } finally {
    closeSync(fd);
  }
}

function openFile(file: string): number {
  try {
    return openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new Error(`there is no file ${file}; several lines, after a "|", would be the text itself`);
  }
}

export function problemText({ message, word, candidates }: RuleProblem): string {
  return word === undefined || candidates === undefined ? message : `${message}${suggestion(word, candidates)}`;
}

/** What is wrong with a text, or an empty list. */
export function problemsOf(
  compile: NonNullable<OptionDeclaration['compile']>,
  rules: ResolvedRules,
): readonly RuleProblem[] {
  return compile(readRules(rules), rules).problems ?? [];
}

/** What was compiled. Throws with all that is wrong with the text. */
export function compiledOrThrow(
  source: ResolvedRules,
  name: string,
  { words, entries, problems }: CompiledRules,
): { words: Int32Array; entries: readonly RuleEntry[] } {
  if (problems === undefined) return { words, entries };
  const shown = problems.slice(0, PROBLEMS_SHOWN).map((problem) => placedProblem(source, name, problem));
  if (problems.length > shown.length) shown.push(`and ${problems.length - shown.length} more`);
  throw new Error(shown.join('; '));
}

/** `file:line:col: message`; of what is in the configuration itself, by the lines of that text. */
export function placedProblem(source: ResolvedRules, name: string, problem: RuleProblem): string {
  const place = `${problem.line}:${problem.column}: ${problemText(problem)}`;
  return source.file === null ? `${name}: line ${place}` : `${source.file}:${place}`;
}
