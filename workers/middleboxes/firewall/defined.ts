/**
 * What `define`, `set` and `map` name: the tokens of a value, which are read as what a rule needs
 * when it uses them.
 */

import type { RuleProblem } from '../../api.js';
import { Mistake, Problems } from './cursor.js';
import { quote, type Token } from './tokens.js';
import type { Kind } from './values.js';

/** The values, or what is wrong. */
export type Reading<T> =
  | { readonly values: readonly T[]; readonly problems?: undefined }
  | { readonly problems: readonly RuleProblem[]; readonly values?: undefined };

export class Defined {
  readonly name: Token;
  readonly tokens: readonly Token[];
  /** `map`: elements have verdicts. */
  readonly isMap: boolean;
  isUsed = false;
  private readonly readings = new Map<Kind<unknown>, Reading<unknown>>();

  /** No tokens: a set that has no elements. */
  constructor(name: Token, tokens: readonly Token[], isMap: boolean) {
    this.name = name;
    this.tokens = tokens;
    this.isMap = isMap;
  }

  /** Read once for each kind. */
  as<T>(kind: Kind<T>, read: (problems: Problems) => readonly T[]): Reading<T> {
    const known = this.readings.get(kind);
    if (known !== undefined) return known as Reading<T>;
    const problems = new Problems();
    // Being read: what comes back to it while it is read is defined by itself.
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
