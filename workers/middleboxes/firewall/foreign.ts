/**
 * Whether a text with mistakes is one of rules at all. Errors quote words of the text, and a path
 * in `rules` can lead to a file with a secret in it by mistake, such as the cluster's key. So of a
 * text that does not look like rules nothing is quoted.
 */

import type { RuleProblem } from '../../api.js';
import type { Token } from './tokens.js';

/**
 * The one problem of a text that is not of rules: most statements do not begin with a word of
 * `known`, or one that differs from it by a letter. Null: it is of rules. What is in braces is part
 * of the statement around them.
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

/** Whether one letter more, less or other, or two swapped, turn `a` into `b`. */
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
