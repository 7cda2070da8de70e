/**
 * Verdict maps: `ct state vmap { established : accept, invalid : drop }`, and `tcp dport vmap
 * @services`.
 */

import { MAP_VERDICTS, readOutcome } from './actions.js';
import { Cursor, said } from './cursor.js';
import { type Draft, type Match, possible } from './match.js';
import type { Scope } from './scope.js';
import type { Selector } from './selectors.js';
import type { Token } from './tokens.js';
import type { Branch, Work } from './work.js';

/** Reads a map after `vmap`. Each element becomes a branch of the rule. */
export function readVerdictMap(work: Work, selector: Selector, cursor: Cursor, scope: Scope, at: Token): void {
  if (work.outcome !== null || work.branches !== null) cursor.fail(at, 'the rule has a verdict already');
  if (work.limit !== null) cursor.fail(at, '"limit" before "vmap" is not possible: jump to a chain');
  const named = cursor.next.kind === 'name' ? scope.named(cursor.next, cursor) : null;
  if (named !== null) {
    const token = cursor.take();
    if (!named.isMap) cursor.fail(token, `${said(token)} is no map of verdicts`);
    if (named.tokens.length === 0) {
      work.branches = [];
      return;
    }
    work.branches = branches(new Cursor(named.tokens, cursor.problems), work.draft, selector, scope);
    return;
  }
  if (!cursor.is('{'))
    cursor.fail(cursor.next, `after "vmap" comes "{" or the name of a map, not ${said(cursor.next)}`);
  work.branches = branches(cursor, work.draft, selector, scope);
}

function branches(cursor: Cursor, draft: Draft, selector: Selector, scope: Scope): readonly Branch[] {
  const found: Branch[] = [];
  /** Branches of `* : drop`, for packets that match no other element. */
  const others: Branch[] = [];
  const add = (list: Branch[], match: Draft): void => {
    const at = cursor.take();
    const outcome = readOutcome(at, cursor);
    if (outcome === null)
      return cursor.fail(at, `${said(at)} is no verdict: ${MAP_VERDICTS.join(', ')}`, at.text, MAP_VERDICTS);
    const right: Match | null = possible(match);
    if (right !== null) list.push({ ...outcome, match: right });
  };
  scope.elements(cursor, () => {
    const match: Draft = { ...draft };
    selector.imply(match);
    if (cursor.accept('*')) {
      cursor.expect(':', 'between what is matched and its verdict');
      return add(others, match);
    }
    const at = cursor.next;
    selector.apply(match, readKey(cursor, selector, scope), false, at, cursor);
    add(found, match);
  });
  return [...found, ...others];
}

/**
 * Reads an element's key and the colon behind it. The colon may be part of the same word: `22 :
 * accept`, `22: accept`.
 */
function readKey(cursor: Cursor, selector: Selector, scope: Scope): readonly unknown[] {
  const token = cursor.next;
  if (token.kind === 'word' && token.text !== ':' && /[^:]:$/.test(token.text)) {
    cursor.take();
    const key: Token = { ...token, text: token.text.slice(0, -1) };
    return scope.element(new Cursor([key], cursor.problems), selector.kind);
  }
  const values = scope.element(cursor, selector.kind);
  cursor.expect(':', 'between what is matched and its verdict');
  return values;
}
