/**
 * The names that a rule file has defined so far: values and zones. Also the ports of the
 * configuration.
 */

import type { RuleProblem } from '../../api/api.js';
import { Cursor, Mistake, type Problems, said } from './cursor.js';
import type { Defined, Reading } from './defined.js';
import type { Intervals } from './intervals.js';
import { quote, type Token } from './tokens.js';
import {
  ADDRESS,
  CODE_POINT,
  FAMILY,
  ICMP_CODE,
  ICMP_TYPE,
  ICMPV6_CODE,
  ICMPV6_TYPE,
  type Kind,
  PORT,
  PROTOCOL,
  STATE,
} from './values.js';

/**
 * A zone. A packet must match both its ports and its addresses; null matches all. `ports` has a bit
 * per port index.
 */
interface Zone {
  readonly name: Token;
  readonly ports: number | null;
  readonly addresses: { readonly v4: Intervals; readonly v6: Intervals } | null;
  isUsed: boolean;
}

/** Limit on definitions nested in each other. */
const NESTED_MAX = 256;

export class Scope {
  /** Ports of the configuration, as bits by index. */
  readonly interfaces: Kind<number>;
  private readonly ports: readonly string[];
  private readonly defined = new Map<string, Defined>();
  /** Names whose definitions could not be read. */
  private readonly wrong = new Set<string>();
  private readonly zones = new Map<string, Zone>();
  private readonly kinds: readonly Kind<unknown>[];
  /** Depth of definitions being read, one within the other. */
  private nested = 0;

  constructor(ports: readonly string[]) {
    this.ports = ports;
    this.interfaces = {
      name: 'port',
      isText: true,
      join: (values) => values,
      read: (token, cursor) => this.portBits(token, cursor),
    };
    const numbers = [PORT, PROTOCOL, ICMP_TYPE, ICMPV6_TYPE, ICMP_CODE, ICMPV6_CODE, CODE_POINT];
    this.kinds = [ADDRESS, ...numbers, STATE, FAMILY, this.interfaces] as Kind<unknown>[];
  }

  define(defined: Defined): void {
    this.defined.set(defined.name.text, defined);
  }

  defineWrong(name: Token): void {
    this.wrong.add(name.text);
  }

  lineOf(name: string): number | null {
    return this.defined.get(name)?.name.line ?? null;
  }

  addZone(zone: Zone): void {
    this.zones.set(zone.name.text, zone);
  }

  zoneLine(name: string): number | null {
    return this.zones.get(name)?.name.line ?? null;
  }

  zone(token: Token, cursor: Cursor): Zone {
    const zone = token.kind === 'word' ? this.zones.get(token.text) : undefined;
    if (zone !== undefined) {
      zone.isUsed = true;
      return zone;
    }
    const known = [...this.zones.keys()];
    return cursor.fail(token, `there is no zone ${said(token)}${listed(known)}`, token.text, known);
  }

  /** Returns the index of the port with this name. */
  port(token: Token, cursor: Cursor): number {
    const index = token.kind === 'word' || token.kind === 'string' ? this.ports.indexOf(token.text) : -1;
    if (index >= 0) return index;
    return cursor.fail(token, `there is no port ${said(token)}${listed(this.ports)}`, token.text, this.ports);
  }

  /**
   * Returns the bits of the ports that a name means. A name that ends in `*` means all ports that
   * begin with the rest.
   */
  private portBits(token: Token, cursor: Cursor): number {
    if (token.kind !== 'string' || !token.text.endsWith('*')) return 1 << this.port(token, cursor);
    const start = token.text.slice(0, -1);
    const bits = this.ports.reduce((all, name, i) => (name.startsWith(start) ? all | (1 << i) : all), 0);
    if (bits !== 0) return bits;
    return cursor.fail(token, `there is no port whose name begins with ${quote(start)}${listed(this.ports)}`);
  }

  /**
   * Reads a value: one element, several between commas, or a set in braces. Only a named set may be
   * empty.
   */
  values<T>(cursor: Cursor, kind: Kind<T>): T[] {
    if (cursor.is('{')) return this.set(cursor, kind);
    const values = this.element(cursor, kind);
    while (cursor.accept(',')) values.push(...this.element(cursor, kind));
    return values;
  }

  private set<T>(cursor: Cursor, kind: Kind<T>): T[] {
    const values: T[] = [];
    this.elements(cursor, () => {
      for (const value of this.element(cursor, kind)) values.push(value);
    });
    return values;
  }

  /**
   * Reads a set in braces. Reads all its elements, so that all mistakes are reported. After any
   * mistake, throws to end the statement.
   */
  elements(cursor: Cursor, read: () => void): void {
    const open = cursor.take();
    const before = cursor.problems.count;
    let elements = 0;
    for (;;) {
      cursor.skipEnds();
      if (cursor.isOver) cursor.fail(open, 'this brace is never closed');
      if (cursor.accept('}')) break;
      elements++;
      const noted = cursor.problems.count;
      try {
        read();
        skipRemarks(cursor);
      } catch (error) {
        if (!(error instanceof Mistake)) throw error;
      }
      cursor.skipEnds();
      if (cursor.isOver) cursor.fail(open, 'this brace is never closed');
      if (cursor.is('}') || cursor.accept(',')) continue;
      if (cursor.problems.count > noted) skipElement(cursor);
      else cursor.expect(',', 'or "}" in a set');
      cursor.accept(',');
    }
    if (cursor.problems.count > before) throw new Mistake('set');
    if (elements === 0) cursor.fail(open, 'the set is empty');
  }

  element<T>(cursor: Cursor, kind: Kind<T>): T[] {
    const token = cursor.take();
    if (token.kind === 'name') return [...this.use(token, cursor, kind)];
    if (token.kind !== 'word' && !(kind.isText === true && token.kind === 'string'))
      cursor.fail(token, `expected ${article(kind.name)} ${kind.name}, not ${said(token)}`);
    return [kind.read(token, cursor)];
  }

  /** Returns the definition of a name, and marks it used. */
  named(token: Token, cursor: Cursor): Defined {
    const found = this.defined.get(token.text);
    if (found !== undefined) {
      found.isUsed = true;
      return found;
    }
    if (this.wrong.has(token.text)) {
      cursor.problems.count++;
      throw new Mistake(token.text);
    }
    const known = [...this.defined.keys()];
    return cursor.fail(token, `${said(token)} is not defined before this`, token.text, known);
  }

  private use<T>(token: Token, cursor: Cursor, kind: Kind<T>): readonly T[] {
    const found = this.named(token, cursor);
    if (found.isMap) cursor.fail(token, `${said(token)} is a map: it stands after "vmap"`);
    const { values, problems } = this.read(found, kind);
    if (values !== undefined) return values;
    if (this.isRight(found)) {
      const why = problems[0]?.message ?? 'it has other values';
      return cursor.fail(token, `${said(token)}, defined in line ${found.name.line}, is no ${kind.name}: ${why}`);
    }
    // It is wrong at its definition, and reported once.
    for (const problem of problems) cursor.problems.add(problem);
    throw new Mistake(found.name.text);
  }

  private read<T>(found: Defined, kind: Kind<T>): Reading<T> {
    return found.as(kind, (problems: Problems) => {
      if (found.tokens.length === 0) return [];
      const within = new Cursor(found.tokens, problems);
      if (this.nested >= NESTED_MAX)
        within.fail(
          found.name,
          `${quote(found.name.text)} is defined by more than ${NESTED_MAX} others, one in the other`,
        );
      this.nested++;
      try {
        const values = this.values(within, kind);
        if (!within.isOver) within.fail(within.next, `expected the end of the value, not ${said(within.next)}`);
        return values;
      } finally {
        this.nested--;
      }
    });
  }

  /** Returns true if a rule could use the definition as some kind of value. */
  private isRight(found: Defined): boolean {
    return this.kinds.some((kind) => this.read(found, kind).values !== undefined);
  }

  /** Returns notes on what is valid but may not be intended: names that no rule uses. */
  notes(): RuleProblem[] {
    const notes: RuleProblem[] = [];
    for (const found of this.defined.values()) {
      if (found.isUsed) continue;
      const name = quote(found.name.text);
      if (!found.isMap && !this.isRight(found))
        notes.push(noteAt(found.name, `${name} is not used, and nothing that a rule could use: ${this.why(found)}`));
      else notes.push(noteAt(found.name, `${name} is not used`));
    }
    for (const { name, isUsed } of this.zones.values())
      if (!isUsed) notes.push(noteAt(name, `zone ${quote(name.text)} is not used`));
    return notes;
  }

  private why(found: Defined): string {
    const looksLikeAddress = found.tokens.some(({ text }) => /[.:/]/.test(text));
    const kind = (looksLikeAddress ? ADDRESS : PORT) as Kind<unknown>;
    return this.read(found, kind).problems?.[0]?.message ?? 'it mixes values';
  }
}

export function noteAt({ line, column }: Token, message: string): RuleProblem {
  return { line, column, message };
}

/** Skips what may follow an element of a set and has no effect here. */
function skipRemarks(cursor: Cursor): void {
  for (;;) {
    if (cursor.accept('comment')) {
      const token = cursor.take();
      if (token.kind !== 'string') cursor.fail(token, `a comment is a text in quotes, not ${said(token)}`);
    } else if (cursor.is('counter')) {
      cursor.take();
      skipCounts(cursor);
    } else if (cursor.is('timeout') || cursor.is('expires'))
      cursor.fail(
        cursor.next,
        'elements do not expire here: write those that stay, and reload the rules to change them',
      );
    else return;
  }
}

/**
 * Skips `packets 12 bytes 345`, which nftables prints behind `counter`. Counters here begin at 0.
 */
export function skipCounts(cursor: Cursor): void {
  for (const what of ['packets', 'bytes']) {
    if (!cursor.accept(what)) continue;
    const token = cursor.take();
    if (token.kind !== 'word' || !/^\d{1,20}$/.test(token.text))
      cursor.fail(token, `after "${what}" comes a number, not ${said(token)}`);
  }
}

function skipElement(cursor: Cursor): void {
  while (!cursor.isOver && !cursor.is('}') && !cursor.is(',')) cursor.take();
}

function listed(names: readonly string[]): string {
  const shown = names.slice(0, 8).map(quote).join(', ');
  return names.length === 0 ? ': there are none' : `; there are ${shown}${names.length > 8 ? ', …' : ''}`;
}

function article(word: string): string {
  return /^[aeiouI]/.test(word) ? 'an' : 'a';
}
