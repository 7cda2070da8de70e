/**
 * `tcp flags`: `syn` (any of these is set), `syn / syn,ack` (of these, exactly those), `& (syn | ack) == syn` (the same as
 * nftables writes it), each with `!=`.
 */

import { type Cursor, said } from './cursor.js';
import type { FlagTest } from './rule.js';
import { TCP_FLAGS } from './vocabulary.js';

export function readFlags(cursor: Cursor): FlagTest {
  if (cursor.accept('&')) {
    const mask = flags(cursor);
    const negated = cursor.is('!=');
    if (negated) cursor.take();
    else cursor.expect('==', 'or "!=" after the flags that are looked at');
    return test(cursor, flags(cursor), mask, negated);
  }
  const negated = cursor.accept('!=');
  if (!negated) cursor.accept('==');
  const value = flags(cursor);
  if (!cursor.accept('/')) return { mask: value, value: 0, any: true, negated };
  return test(cursor, value, flags(cursor), negated);
}

function test(cursor: Cursor, value: number, mask: number, negated: boolean): FlagTest {
  if ((value & ~mask) !== 0) cursor.fail(cursor.last, 'a flag is asked for that is not among those looked at');
  return { mask, value, any: false, negated };
}

/** `syn`, `syn,ack`, `syn|ack`, also in parentheses or braces, `0x0` for none. */
function flags(cursor: Cursor): number {
  const close = cursor.accept('(') ? ')' : cursor.accept('{') ? '}' : null;
  let bits = flag(cursor);
  while (cursor.accept(',') || cursor.accept('|')) bits |= flag(cursor);
  if (close !== null) cursor.expect(close, 'after the flags');
  return bits;
}

function flag(cursor: Cursor): number {
  const token = cursor.take();
  if (token.kind === 'word' && Object.hasOwn(TCP_FLAGS, token.text)) return TCP_FLAGS[token.text];
  if (token.kind === 'word' && /^0(x0+)?$/.test(token.text)) return 0;
  const known = Object.keys(TCP_FLAGS);
  return cursor.fail(token, `${said(token)} is no TCP flag: ${known.join(', ')}`, token.text, known);
}
