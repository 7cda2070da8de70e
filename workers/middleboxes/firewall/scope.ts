/** What the statements of a rule file have named so far: values, zones, and the ports of the configuration. */

import { Cursor, Mistake, said } from './cursor.js';
import type { Intervals } from './intervals.js';
import { quote, type Token } from './tokens.js';
import { Defined, type Kind } from './values.js';

/** Both of what it has are to be right of a packet. Ports are bits by their index. */
export interface Zone {
  readonly line: number;
  readonly ports: number | null;
  readonly addresses: { readonly v4: Intervals; readonly v6: Intervals } | null;
}

export class Scope {
  private readonly ports: readonly string[];
  private readonly defined = new Map<string, { readonly value: Defined; readonly line: number }>();
  private readonly zones = new Map<string, Zone>();

  constructor(ports: readonly string[]) {
    this.ports = ports;
  }

  define(name: Token, tokens: readonly Token[]): void {
    this.defined.set(name.text, { value: new Defined(name.text, tokens), line: name.line });
  }

  lineOf(name: string): number | null {
    return this.defined.get(name)?.line ?? null;
  }

  addZone(name: string, zone: Zone): void {
    this.zones.set(name, zone);
  }

  zoneLine(name: string): number | null {
    return this.zones.get(name)?.line ?? null;
  }

  zone(token: Token, cursor: Cursor): Zone {
    const zone = token.kind === 'word' ? this.zones.get(token.text) : undefined;
    if (zone !== undefined) return zone;
    const known = [...this.zones.keys()];
    return cursor.fail(token, `there is no zone ${said(token)}${listed(known)}`, token.text, known);
  }

  /** Index of the port of this name. */
  port(token: Token, cursor: Cursor): number {
    const index = token.kind === 'word' || token.kind === 'string' ? this.ports.indexOf(token.text) : -1;
    if (index >= 0) return index;
    return cursor.fail(token, `there is no port ${said(token)}${listed(this.ports)}`, token.text, this.ports);
  }

  /** A value: one element, some between commas, or a set in braces. */
  values<T>(cursor: Cursor, kind: Kind<T>): T[] {
    if (cursor.is('{')) return this.set(cursor, kind);
    const values = this.element(cursor, kind);
    while (cursor.accept(',')) values.push(...this.element(cursor, kind));
    return values;
  }

  /** All elements are read, so that all that is wrong is told. */
  private set<T>(cursor: Cursor, kind: Kind<T>): T[] {
    const open = cursor.take();
    const values: T[] = [];
    let elements = 0;
    for (;;) {
      cursor.skipEnds();
      if (cursor.isOver) cursor.fail(open, 'this brace is never closed');
      if (cursor.accept('}')) break;
      elements++;
      const before = cursor.problems.count;
      for (const value of this.tryElement(cursor, kind)) values.push(value);
      cursor.skipEnds();
      if (cursor.isOver) cursor.fail(open, 'this brace is never closed');
      if (cursor.is('}') || cursor.accept(',')) continue;
      if (cursor.problems.count > before) while (!cursor.isOver && !cursor.is('}') && !cursor.is(',')) cursor.take();
      else cursor.expect(',', 'or "}" in a set');
      cursor.accept(',');
    }
    if (elements === 0) cursor.fail(open, 'the set is empty');
    return values;
  }

  private tryElement<T>(cursor: Cursor, kind: Kind<T>): T[] {
    const before = cursor.problems.count;
    try {
      return this.element(cursor, kind);
    } catch (error) {
      if (cursor.problems.count === before && cursor.isOver) throw error;
      return [];
    }
  }

  element<T>(cursor: Cursor, kind: Kind<T>): T[] {
    const token = cursor.take();
    if (token.kind === 'name') return [...this.use(token, cursor, kind)];
    if (token.kind !== 'word') cursor.fail(token, `expected ${article(kind.name)} ${kind.name}, not ${said(token)}`);
    return [kind.read(token, cursor)];
  }

  private use<T>(token: Token, cursor: Cursor, kind: Kind<T>): readonly T[] {
    const found = this.defined.get(token.text);
    if (found === undefined) {
      const known = [...this.defined.keys()];
      return cursor.fail(token, `${said(token)} is not defined before this`, token.text, known);
    }
    const values = found.value.as(kind, () => {
      const within = new Cursor(found.value.tokens, cursor.problems);
      const before = cursor.problems.count;
      const read = this.values(within, kind);
      if (cursor.problems.count > before) throw new Mistake(found.value.name);
      if (!within.isOver) within.fail(within.next, `expected the end of the value, not ${said(within.next)}`);
      return read;
    });
    // What is wrong stands where it was defined.
    if (values === null)
      return cursor.fail(token, `${said(token)}, defined in line ${found.line}, is no ${kind.name} or set of them`);
    return values;
  }
}

function listed(names: readonly string[]): string {
  const shown = names.slice(0, 8).map(quote).join(', ');
  return names.length === 0 ? ': there are none' : `; there are ${shown}${names.length > 8 ? ', …' : ''}`;
}

function article(word: string): string {
  return /^[aeiouI]/.test(word) ? 'an' : 'a';
}
