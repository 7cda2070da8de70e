/** Reads tokens in order and collects problems, at most one for each place. */

import type { RuleProblem } from '../../api/api.js';
import { quote, type Token } from './tokens.js';

/** Ends the current statement. The problem was already noted. */
export class Mistake extends Error {}

/** Limit on the problems reported for one text. More of them suggest the wrong file. */
const PROBLEMS_MAX = 100;

export class Problems {
  readonly list: RuleProblem[];
  private readonly places = new Set<string>();
  private more = 0;

  constructor(list: readonly RuleProblem[] = []) {
    this.list = [];
    for (const problem of list) this.add(problem);
  }

  add(problem: RuleProblem): void {
    this.count++;
    const place = `${problem.line}:${problem.column}`;
    if (this.places.has(place)) return;
    this.places.add(place);
    if (this.list.length < PROBLEMS_MAX) this.list.push(problem);
    else this.more++;
  }

  /** Number of problems found, including repeated and unreported ones. */
  count = 0;

  get any(): boolean {
    return this.list.length > 0;
  }

  /** Returns the problems in the order of the text. */
  all(): RuleProblem[] {
    const sorted = [...this.list].sort((a, b) => a.line - b.line || a.column - b.column);
    const last = sorted.at(-1);
    if (this.more > 0 && last !== undefined)
      sorted.push({ ...last, message: `and ${this.more} more mistake${this.more === 1 ? '' : 's'}` });
    return sorted;
  }
}

export class Cursor {
  at = 0;
  private readonly tokens: readonly Token[];
  readonly problems: Problems;

  constructor(tokens: readonly Token[], problems: Problems) {
    this.tokens = tokens;
    this.problems = problems;
  }

  get next(): Token {
    return this.tokens[Math.min(this.at, this.tokens.length - 1)];
  }

  /** The last token taken. */
  get last(): Token {
    return this.tokens[Math.max(0, this.at - 1)];
  }

  get isOver(): boolean {
    return this.at >= this.tokens.length;
  }

  take(): Token {
    const token = this.next;
    this.at++;
    return token;
  }

  is(text: string): boolean {
    const { next } = this;
    return !this.isOver && next.text === text && (next.kind === 'word' || next.kind === 'mark');
  }

  /** Takes the next token if it is this one. */
  accept(text: string): boolean {
    if (!this.is(text)) return false;
    this.at++;
    return true;
  }

  expect(text: string, why: string): Token {
    if (!this.is(text)) this.fail(this.next, `expected ${quote(text)} ${why}, not ${said(this.next)}`);
    return this.take();
  }

  slice(from: number, to: number): readonly Token[] {
    return this.tokens.slice(from, to);
  }

  skipEnds(): void {
    while (!this.isOver && this.next.kind === 'end') this.at++;
  }

  /** Skips to the end of the line, or to the next semicolon. Braces do not matter. */
  skipStatement(): void {
    while (!this.isOver && this.next.kind !== 'end') this.at++;
  }

  note(token: Pick<Token, 'line' | 'column'>, message: string, word?: string, candidates?: readonly string[]): void {
    const { line, column } = token;
    this.problems.add(
      word === undefined || candidates === undefined
        ? { line, column, message }
        : { line, column, message, word, candidates },
    );
  }

  fail(token: Token, message: string, word?: string, candidates?: readonly string[]): never {
    this.note(token, message, word, candidates);
    throw new Mistake(message);
  }
}

/** Returns a description of a token for messages. */
export function said(token: Token): string {
  if (token.kind === 'end') return 'the end of the line';
  if (token.kind === 'string') return `the text ${quote(token.text)}`;
  return quote(token.kind === 'name' ? `$${token.text}` : token.text);
}
