/**
 * Reads `tcp flags`. Each form has the meaning that it has in nftables:
 *
 *     syn,ack                    any of these is set
 *     == syn,ack  != syn         exactly these are set, or not exactly these
 *     { syn, syn | ack }         exactly one element is set, also with != and ==
 *     syn / syn,ack              of the second list, exactly the first is set, also with != and ==
 *     & (syn | ack) == syn       the same; the operator may be left out, and the value may be a set
 */

import { type Cursor, said } from './cursor.js';
import { type Interval, type Intervals, union } from './intervals.js';
import type { Token } from './tokens.js';
import { TCP_FLAGS } from './vocabulary.js';

const VALUES = 256;
const ALL = VALUES - 1;

/** Returns the values of the flags byte that match. */
export function readFlags(cursor: Cursor): Intervals {
  const at = cursor.next;
  if (cursor.accept('&')) return compared(cursor, at, mask(cursor));
  const not = cursor.accept('!=');
  const isExact = not || cursor.accept('==');
  if (cursor.is('{')) {
    const values = set(cursor);
    if (values.length === 1 && !isExact)
      cursor.fail(at, 'nftables reads a set of one element as any of its flags: write it with == or without braces');
    return matching(ALL, values, not);
  }
  const value = flags(cursor);
  if (cursor.accept('/')) {
    const looked = flags(cursor);
    return matching(looked, [asked(cursor, value, looked)], not);
  }
  if (isExact) return matching(ALL, [value], not);
  if (value === 0)
    cursor.fail(at, 'without "==" this asks for any of no flags, which no packet has: write tcp flags == 0x0');
  return matching(value, [0], true);
}

/** Reads what follows a mask. */
function compared(cursor: Cursor, at: Token, looked: number): Intervals {
  const not = cursor.accept('!=');
  if (!not) cursor.accept('==');
  if (cursor.next.kind === 'end')
    cursor.fail(at, 'the flags that are looked at are compared with nothing: add == or !=');
  const values = cursor.is('{') ? set(cursor) : [flags(cursor)];
  for (const value of values) asked(cursor, value, looked);
  return matching(looked, values, not);
}

function asked(cursor: Cursor, value: number, looked: number): number {
  if ((value & ~looked) !== 0) cursor.fail(cursor.last, 'a flag is asked for that is not among those looked at');
  return value;
}

function matching(looked: number, values: readonly number[], not: boolean): Intervals {
  const found: Interval[] = [];
  for (let shown = 0; shown < VALUES; shown++)
    if (values.includes(shown & looked) !== not) found.push([BigInt(shown), BigInt(shown)]);
  return union(found);
}

/**
 * Reads one flag or number, or several in parentheses. Without parentheses, nftables would apply
 * the mask to the first flag only.
 */
function mask(cursor: Cursor): number {
  if (cursor.is('(')) return alternatives(cursor);
  const bits = flag(cursor);
  if (cursor.is('|') || cursor.is(','))
    cursor.fail(cursor.next, 'several flags after "&" stand in parentheses: & (syn | ack)');
  return bits;
}

/** `syn`, `syn,ack`, `syn|ack`, `(syn|ack)`, or a number. */
function flags(cursor: Cursor): number {
  if (cursor.is('(')) return alternatives(cursor);
  let bits = flag(cursor);
  while (cursor.accept(',') || cursor.accept('|')) bits |= flag(cursor);
  return bits;
}

/** Flags in parentheses, or between bars. */
function alternatives(cursor: Cursor): number {
  const close = cursor.accept('(');
  let bits = flag(cursor);
  while (cursor.accept('|')) bits |= flag(cursor);
  if (close) cursor.expect(')', 'after the flags; inside parentheses flags are joined by "|"');
  return bits;
}

/** A set in braces: each element is a whole value. */
function set(cursor: Cursor): number[] {
  const open = cursor.take();
  const values: number[] = [];
  do {
    cursor.skipEnds();
    if (cursor.isOver) cursor.fail(open, 'this brace is never closed');
    if (cursor.is('}')) break;
    values.push(alternatives(cursor));
    cursor.skipEnds();
  } while (cursor.accept(','));
  cursor.expect('}', 'or "," in a set of flags');
  if (values.length === 0) cursor.fail(open, 'the set is empty');
  return values;
}

function flag(cursor: Cursor): number {
  const token = cursor.take();
  if (token.kind === 'word' && Object.hasOwn(TCP_FLAGS, token.text)) return TCP_FLAGS[token.text];
  const number =
    token.kind === 'word' && /^(0|[1-9]\d{0,2}|0x[0-9a-f]{1,8})$/i.test(token.text) ? Number(token.text) : VALUES;
  if (number < VALUES) return number;
  const known = Object.keys(TCP_FLAGS);
  return cursor.fail(token, `${said(token)} is no TCP flag: ${known.join(', ')}`, token.text, known);
}
