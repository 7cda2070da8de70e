/**
 * A name given by `define`, `set` or `map`. It holds the tokens of a value. When a rule uses the
 * name, the tokens are read as the kind that the rule needs.
 */

import type { RuleProblem } from '../../api/api.js';
import { Mistake, Problems } from './cursor.js';
import { quote, type Token } from './tokens.js';
import type { Kind } from './values.js';

/** The values, or the problems found. */
export type Reading<T> =
  | { readonly values: readonly T[]; readonly problems?: undefined }
  | { readonly problems: readonly RuleProblem[]; readonly values?: undefined };

export class Defined {
  readonly name: Token;
  readonly tokens: readonly Token[];
  /** True if the elements have verdicts (`map`). */
  readonly isMap: boolean;
  isUsed = false;
  private readonly readings = new Map<Kind<unknown>, Reading<unknown>>();

  /** An empty list of tokens is a set without elements. */
  constructor(name: Token, tokens: readonly Token[], isMap: boolean) {
    this.name = name;
    this.tokens = tokens;
    this.isMap = isMap;
  }

  /** Reads the value as a kind. The result is cached for each kind. */
  as<T>(kind: Kind<T>, read: (problems: Problems) => readonly T[]): Reading<T> {
    const known = this.readings.get(kind);
    if (known !== undefined) return known as Reading<T>;
    const problems = new Problems();
    // Marks the name as being read. If reading comes back to it, the name is defined by itself.
    const { line, column, text } = this.name;
    this.readings.set(kind, { problems: [{ line, column, message: `${quote(text)} is defined by itself` }] });
    let reading: Reading<T>;
    try {
      const values = kind.join(read(problems));
      reading = problems.any ? { problems: problems.all() } : { values };
    } catch (error) {
      if (!(error instanceof Mistake)) throw error;
      reading = { problems: problems.all() };
    }
    this.readings.set(kind, reading);
    return reading;
  }
}
