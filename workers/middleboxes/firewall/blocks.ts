/**
 * Reads statements in braces as nftables writes them: `set NAME { type …; elements = { … } }`, `map
 * NAME { … }` and `chain NAME { … }`.
 */

import { type Cursor, Mistake, said } from './cursor.js';
import { Defined } from './defined.js';
import { refuse } from './refusals.js';
import type { Scope } from './scope.js';
import { quote, type Token } from './tokens.js';

const VALUE_FLAGS = ['interval', 'constant'];

/** Reads the block of a set or map. Its name and opening brace were already read. */
export function readSetBlock(cursor: Cursor, scope: Scope, name: Token, isMap: boolean, open: Token): void {
  let elements: readonly Token[] = [];
  const what = isMap ? 'map' : 'set';
  for (;;) {
    cursor.skipEnds();
    if (cursor.isOver) cursor.fail(open, 'this brace is never closed');
    if (cursor.accept('}')) break;
    const at = cursor.take();
    if (at.text === 'elements') {
      cursor.expect('=', 'after "elements"');
      const from = cursor.at;
      skipBraces(cursor);
      elements = cursor.slice(from, cursor.at);
    } else if (at.text === 'type' || at.text === 'typeof') readType(cursor, isMap);
    else if (at.text === 'flags') readFlags(cursor);
    else if (at.text === 'comment') cursor.take();
    else if (at.text === 'size' || at.text === 'policy') cursor.take();
    else if (at.text === 'timeout' || at.text === 'gc-interval')
      cursor.fail(at, `${quote(at.text)} is not possible: elements do not expire here`);
    else if (at.text !== 'auto-merge' && at.text !== 'counter')
      cursor.fail(at, `${said(at)} is nothing that a ${what} has: type, flags, elements`, at.text, [
        'type',
        'typeof',
        'flags',
        'elements',
        'auto-merge',
        'size',
        'comment',
      ]);
    if (!cursor.is('}') && !cursor.isOver && cursor.next.kind !== 'end')
      cursor.fail(cursor.next, `expected the end of the line, not ${said(cursor.next)}`);
  }
  scope.define(new Defined(name, elements, isMap));
}

/**
 * Skips `type ipv4_addr`, `type inet_service : verdict` or `typeof ip saddr`. The rule that uses
 * the set determines the kind of its elements.
 */
function readType(cursor: Cursor, isMap: boolean): void {
  let mapsTo: Token | null = null;
  for (; !cursor.isOver && cursor.next.kind !== 'end' && !cursor.is('}'); ) {
    const token = cursor.take();
    if (token.text === '.') cursor.fail(token, 'a concatenation (".") is not possible: write a set for each field');
    if (token.text === ':' || token.text.endsWith(':')) mapsTo = cursor.take();
  }
  if (isMap && mapsTo?.text !== 'verdict')
    cursor.fail(mapsTo ?? cursor.last, 'only verdicts are mapped: the type of a map ends with ": verdict"');
  if (!isMap && mapsTo !== null) cursor.fail(mapsTo, 'a set maps nothing: write "map"');
}

function readFlags(cursor: Cursor): void {
  do {
    const token = cursor.take();
    if (token.text === 'dynamic') refuse(cursor, token, 'update');
    if (token.text === 'timeout') cursor.fail(token, '"timeout" is not possible: elements do not expire here');
    if (!VALUE_FLAGS.includes(token.text))
      cursor.fail(token, `${said(token)} is no flag of a set: ${VALUE_FLAGS.join(', ')}`, token.text, VALUE_FLAGS);
  } while (cursor.accept(','));
}

/** Skips from an opening brace past its closing brace. */
export function skipBraces(cursor: Cursor): void {
  if (!cursor.is('{')) cursor.fail(cursor.next, `expected "{", not ${said(cursor.next)}`);
  const open = cursor.take();
  for (let depth = 1; depth > 0; ) {
    if (cursor.isOver) cursor.fail(open, 'this brace is never closed');
    const token = cursor.take();
    if (token.kind !== 'mark') continue;
    if (token.text === '{') depth++;
    if (token.text === '}') depth--;
  }
}

/**
 * Reads the rules of a chain, to the brace that closes it. `rule` reads one. A mistake ends its
 * rule, and reading continues with the next one.
 */
export function readChainBlock(cursor: Cursor, open: Token, rule: () => void): void {
  for (;;) {
    cursor.skipEnds();
    if (cursor.isOver) cursor.fail(open, 'this brace is never closed');
    if (cursor.accept('}')) return;
    try {
      rule();
      if (!cursor.isOver && cursor.next.kind !== 'end' && !cursor.is('}'))
        cursor.note(cursor.next, `expected the end of the line, not ${said(cursor.next)}`);
    } catch (error) {
      if (!(error instanceof Mistake)) throw error;
    }
    skipRule(cursor);
  }
}

/** Skips to the end of a rule. Braces that open on the way must close first. */
function skipRule(cursor: Cursor): void {
  for (let depth = 0; !cursor.isOver && cursor.next.kind !== 'end'; cursor.take()) {
    if (cursor.is('{')) depth++;
    if (cursor.is('}') && depth-- === 0) return;
  }
}
