/**
 * Detects texts that are not rules at all. Errors quote words of the text. A path in `rules` can
 * lead by mistake to a file with a secret, such as the cluster's key. So a text that does not look
 * like rules is not quoted.
 */

import type { RuleProblem } from '../../api/api.js';
import type { Token } from './tokens.js';

/**
 * Returns the one problem of a text that is not rules, or null if it is rules. A text is rules if
 * at least half of its statements begin with a word for which `isKnown` returns true. Text in
 * braces is part of the statement around it.
 */
export function foreign(tokens: readonly Token[], isKnown: (word: string) => boolean): RuleProblem | null {
  let statements = 0;
  let recognized = 0;
  let depth = 0;
  let isFirst = true;
  for (const { kind, text } of tokens) {
    if (kind === 'end') {
      if (depth === 0) isFirst = true;
      continue;
    }
    if (isFirst) {
      statements++;
      if (kind === 'word' && isKnown(text)) recognized++;
      isFirst = false;
    }
    if (kind === 'mark' && text === '{') depth++;
    if (kind === 'mark' && text === '}' && depth > 0) depth--;
  }
  if (recognized > 0 && 2 * recognized >= statements) return null;
  const message = `this does not look like rules: ${recognized} of ${statements} statements begin as a rule does. Its content is not shown; check the path, or the first word of each line`;
  return { line: 1, column: 1, message };
}

/**
 * Returns true if `a` becomes `b` by one inserted, removed or changed letter, or by swapping two
 * neighbours.
 */
export function differsByOne(a: string, b: string): boolean {
  let from = 0;
  while (from < a.length && a[from] === b[from]) from++;
  let [endA, endB] = [a.length, b.length];
  while (endA > from && endB > from && a[endA - 1] === b[endB - 1]) {
    endA--;
    endB--;
  }
  const [restA, restB] = [a.slice(from, endA), b.slice(from, endB)];
  if (restA.length <= 1 && restB.length <= 1) return true;
  return restA.length === 2 && restB === restA[1] + restA[0];
}
