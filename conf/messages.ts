/**
 * The messages that an operator reads about a wrong value: plain English, with the expected and the
 * found value.
 */

import type { z } from 'zod';

type RawIssue = z.core.$ZodRawIssue;

/** For the `error` of one schema: "expected WHAT, not VALUE", or that the value is required. */
export function expected(what: string): (issue: RawIssue) => string {
  return (issue) => (issue.input === undefined ? `is required: ${what}` : `expected ${what}, not ${show(issue.input)}`);
}

/** The messages of all schemas without their own. Passed to `safeParse`. */
export function explain(issue: RawIssue): string {
  switch (issue.code) {
    case 'invalid_type':
      return expected(TYPE_NAMES[issue.expected] ?? issue.expected)(issue);
    case 'invalid_value':
      return expected(oneOf(issue.values.map(String)))(issue);
    case 'too_small':
      return `must ${bound(issue.origin, 'at least', issue.minimum)}${found(issue)}`;
    case 'too_big':
      return `must ${bound(issue.origin, 'at most', issue.maximum)}${found(issue)}`;
    case 'invalid_union':
      return expected(oneOf(((issue.options ?? []) as unknown[]).map(String)))({
        ...issue,
        input: discriminatorOf(issue),
      });
    default:
      return issue.message ?? 'is not valid';
  }
}

/** A value as it is shown in an error: short, on one line, without control characters. */
export function show(value: unknown): string {
  if (value === null) return 'nothing';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'a mapping';
  if (typeof value !== 'string') return String(value);
  return JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}...` : value);
}

/** `a`, `a or b`, `a, b or c`. */
export function oneOf(words: readonly string[]): string {
  if (words.length < 2) return words.join();
  return `${words.slice(0, -1).join(', ')} or ${words[words.length - 1]}`;
}

const TYPE_NAMES: Readonly<Record<string, string>> = {
  number: 'a number',
  string: 'text (put it in quotes)',
  boolean: 'true or false',
  object: 'a mapping',
  record: 'a mapping',
  array: 'a list',
};

/**
 * The input of a discriminated union's issue is the whole mapping. Only its discriminator is wrong.
 */
function discriminatorOf(issue: RawIssue & { discriminator?: string | undefined }): unknown {
  const { input, discriminator } = issue;
  if (typeof input !== 'object' || input === null || discriminator === undefined) return input;
  return (input as Record<string, unknown>)[discriminator];
}

function bound(origin: string, how: string, limit: number | bigint): string {
  if (origin === 'array' || origin === 'set') return `have ${how} ${limit} ${limit === 1 ? 'entry' : 'entries'}`;
  if (origin === 'string') return `have ${how} ${limit} ${limit === 1 ? 'character' : 'characters'}`;
  return `be ${how} ${limit}`;
}

function found(issue: RawIssue): string {
  return typeof issue.input === 'number' ? `, not ${issue.input}` : '';
}
