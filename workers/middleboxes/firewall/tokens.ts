/** Splits a rule file into tokens with their positions. */

import type { RuleProblem } from '../../api/api.js';

export interface Token {
  readonly kind: 'word' | 'name' | 'string' | 'mark' | 'end';
  /** A name is without its `$` or `@`, a string without its quotes. */
  readonly text: string;
  readonly line: number;
  readonly column: number;
  /** Offsets in the text: the first character, and the one after the last. */
  readonly from: number;
  readonly to: number;
}

/** White space other than a line end. A backslash before a line end continues the line. */
const SPACE = /(?:[^\S\n]|\\\r?\n)+/y;
/** A comment extends to the end of the line. */
const COMMENT = /#[^\n]*/y;
const PATTERNS: readonly [Token['kind'], RegExp][] = [
  ['string', /"[^"\n]*"/y],
  ['name', /[$@][A-Za-z_][A-Za-z0-9_-]*/y],
  ['word', /[A-Za-z0-9_.:-]+(?:\/[0-9]+)?/y],
  ['mark', /!=|==|<=|>=|[{}(),=&|/<>*]/y],
  ['end', /[;\n]/y],
];

/** Text from the `#` to the end of the line. */
export interface Comment {
  readonly text: string;
  readonly line: number;
  readonly from: number;
}

/** Longer words are quoted in part. */
const QUOTED_MAX = 40;

export function quote(text: string): string {
  const short = text.length > QUOTED_MAX ? `${text.slice(0, QUOTED_MAX - 3)}...` : text;
  return JSON.stringify(short);
}

interface Tokenized {
  readonly tokens: Token[];
  readonly comments: Comment[];
  readonly problems: RuleProblem[];
}

/**
 * Returns all tokens, with an `end` for each line end or semicolon and after the last token, all
 * comments, and problems for what could not be read.
 */
export function tokenize(text: string): Tokenized {
  const tokens: Token[] = [];
  const comments: Comment[] = [];
  const problems: RuleProblem[] = [];
  let at = 0;
  let line = 1;
  let lineAt = 0;

  function advance(to: number): void {
    for (let i = text.indexOf('\n', at); i !== -1 && i < to; i = text.indexOf('\n', i + 1)) {
      line++;
      lineAt = i + 1;
    }
    at = to;
  }

  while (at < text.length) {
    SPACE.lastIndex = at;
    if (SPACE.test(text)) {
      advance(SPACE.lastIndex);
      continue;
    }
    COMMENT.lastIndex = at;
    if (COMMENT.test(text)) {
      comments.push({ text: text.slice(at, COMMENT.lastIndex), line, from: at });
      advance(COMMENT.lastIndex);
      continue;
    }
    const place = { line, column: at - lineAt + 1 };
    const [kind, to] = match(text, at);
    if (kind === null) problems.push({ ...place, message: unreadable(text, at) });
    else {
      const whole = text.slice(at, to);
      const written = kind === 'string' ? whole.slice(1, -1) : kind === 'name' ? whole.slice(1) : whole;
      tokens.push({ kind, text: written, ...place, from: at, to });
    }
    advance(to);
  }
  tokens.push({ kind: 'end', text: '', line, column: at - lineAt + 1, from: at, to: at });
  return { tokens, comments, problems };
}

function match(text: string, at: number): [Token['kind'] | null, number] {
  for (const [kind, pattern] of PATTERNS) {
    pattern.lastIndex = at;
    if (pattern.test(text)) return [kind, pattern.lastIndex];
  }
  // Report a run of unreadable characters once.
  let to = at + 1;
  if (text[at] === '"') while (to < text.length && text[to] !== '\n') to++;
  else while (to < text.length && /[^\sA-Za-z0-9_"$@{}(),=&|/<>*;#]/.test(text[to])) to++;
  return [null, to];
}

function unreadable(text: string, at: number): string {
  if (text[at] === '"') return 'a text that is not closed on its line';
  if (text[at] === '$' || text[at] === '@') return `${quote(text[at])} is not followed by a name`;
  if (text[at] === '!') return '"!" stands only in "!="';
  return `${quote(text[at])} has no meaning here`;
}
