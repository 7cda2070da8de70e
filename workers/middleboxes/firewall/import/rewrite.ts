/**
 * Rewrites the words of a rule. Interfaces become ports. Options that change no verdict are
 * removed. An accept in a base chain goes on to the next base chain.
 */

import { refusal } from '../refusals.js';
import { quote, type Token } from '../tokens.js';

/** The text of a token. `joined`: it stood directly behind the previous word. */
interface Word {
  readonly text: string;
  readonly kind: Token['kind'];
  readonly joined: boolean;
}

export function wordsOf(tokens: readonly Token[]): Word[] {
  return tokens.map((token, i) => {
    const before = tokens[i - 1];
    const text = token.kind === 'string' ? `"${token.text}"` : token.kind === 'name' ? `@${token.text}` : token.text;
    return { text, kind: token.kind, joined: before !== undefined && before.to === token.from };
  });
}

/** Returns the words as one line. */
export function lineOf(words: readonly Word[]): string {
  return words
    .filter(({ kind }) => kind !== 'end')
    .map(({ text, joined }, i) => (joined || i === 0 ? text : ` ${text}`))
    .join('');
}

const word = (text: string): Word => ({ text, kind: 'word', joined: false });

/** Returns the ports of an interface name, which may end with `*`. */
type PortsOf = (name: string) => readonly string[];

type Rewritten =
  | { readonly words: readonly Word[]; readonly never?: undefined }
  /** No packet can match, because of these interfaces. */
  | { readonly never: string; readonly words?: undefined };

const INTERFACE_WORDS = ['iif', 'iifname', 'oif', 'oifname'];
const VERDICT_MAP = 'vmap';
const OPERATORS: ReadonlyMap<string, string> = new Map([
  ['==', '=='],
  ['eq', '=='],
  ['!=', '!='],
  ['ne', '!='],
  [VERDICT_MAP, VERDICT_MAP],
]);
/** Words that can follow the name of a field and are not a value of it. */
const NO_VALUES = ['lt', 'gt', 'le', 'ge', 'and', 'or', 'xor', 'map', 'set'];

/**
 * Returns the reason why the interfaces of a rule cannot become ports, or null. Such a rule must
 * not be taken for one that no packet meets, because its other matches decide too.
 */
export function whyNotPorts(words: readonly Word[]): string | null {
  const has = (text: string): boolean =>
    words.some((each, i) => each.kind === 'word' && each.text === text && !isTarget(words, i));
  if (has('.')) return 'a concatenation (".") is not possible: write a rule for each pair';
  if (has('fib')) return refusal('fib');
  let why: string | null = null;
  forEachInterface(words, (names, from) => {
    for (const name of names) {
      const isAny = name.kind === 'mark' && name.text === '*' && words[from].text === '{';
      const isName = name.kind === 'string' || (name.kind === 'word' && !NO_VALUES.includes(name.text));
      if (name.kind === 'name') why ??= `${quote(name.text.slice(1))} stands among interfaces: write the names`;
      else if (!isName && !isAny) why ??= `${quote(name.text)} is no name of an interface`;
    }
  });
  return why;
}

/** Returns true if the word is the chain of a jump. */
function isTarget(words: readonly Word[], at: number): boolean {
  const before = words[at - 1];
  return before?.kind === 'word' && (before.text === 'jump' || before.text === 'goto');
}

/** Returns the names of interfaces in a rule or a set. */
export function interfacesIn(tokens: readonly Token[]): string[] {
  const found: string[] = [];
  forEachInterface(wordsOf(tokens), (values) => {
    for (const { text } of values) found.push(unquoted(text));
  });
  return found;
}

function unquoted(text: string): string {
  return text.startsWith('"') ? text.slice(1, -1) : text;
}

/**
 * Calls `visit` for the names after each `iifname` and similar word, with their place and the
 * operator.
 */
function forEachInterface(
  words: readonly Word[],
  visit: (names: readonly Word[], from: number, to: number, operator: string) => void,
): void {
  for (let at = 0; at < words.length; at++) {
    if (words[at].kind !== 'word' || !INTERFACE_WORDS.includes(words[at].text)) continue;
    let next = at + 1;
    let operator = '==';
    if (OPERATORS.has(words[next]?.text ?? '')) operator = OPERATORS.get(words[next++].text) ?? operator;
    const first = words[next];
    if (first === undefined || first.kind === 'name') continue;
    if (first.text !== '{') {
      visit([first], next, next + 1, operator);
      continue;
    }
    const end = words.findIndex(({ text }, i) => i > next && text === '}');
    const inside = words.slice(next + 1, end < 0 ? words.length : end);
    const names = elements(inside).map(([name]) => name);
    visit(names, next, end + 1, operator);
  }
}

/** Splits words at commas. */
function elements(words: readonly Word[]): Word[][] {
  const found: Word[][] = [[]];
  for (const each of words) {
    if (each.text === ',' && each.kind === 'mark') found.push([]);
    else if (each.kind !== 'end') found[found.length - 1].push(each);
  }
  return found.filter((element) => element.length > 0);
}

/** Replaces interfaces by ports. An interface that is not a port has no packets here. */
export function withPorts(words: readonly Word[], portsOf: PortsOf): Rewritten {
  const changes: { from: number; to: number; text: Word[] }[] = [];
  let never: string | null = null;
  forEachInterface(words, (names, from, to, operator) => {
    const ports = [...new Set(names.flatMap(({ kind, text }) => (kind === 'mark' ? [] : portsOf(unquoted(text)))))];
    const list = names.map(({ text }) => text).join(', ');
    if (operator === VERDICT_MAP) {
      const kept = elements(words.slice(from + 1, to - 1)).flatMap(([name, ...rest]) => {
        if (name.kind === 'mark') return [[name, ...rest]];
        // The colon may be part of the name's word.
        return portsOf(unquoted(name.text.replace(/:$/, ''))).map((port) => [
          word(`"${port}"`),
          ...(name.text.endsWith(':') ? [word(':')] : []),
          ...rest,
        ]);
      });
      if (kept.length === 0) never = list;
      changes.push({
        from,
        to,
        text: [word('{'), ...kept.flatMap((each, i) => (i === 0 ? each : [comma(), ...each])), word('}')],
      });
    } else if (operator === '!=' && ports.length === 0) {
      // All packets match, so the match is removed, with the words before it.
      const start = words[from - 3]?.text === 'meta' ? from - 3 : from - 2;
      changes.push({ from: start, to, text: [] });
    } else if (ports.length === 0) never = list;
    else changes.push({ from, to, text: portSet(ports) });
  });
  if (never !== null) return { never };
  const result = [...words];
  for (const { from, to, text } of changes.reverse()) result.splice(from, to - from, ...text);
  return { words: result };
}

function comma(): Word {
  return { text: ',', kind: 'mark', joined: true };
}

function portSet(ports: readonly string[]): Word[] {
  const quoted = ports.map((port) => word(`"${port}"`));
  if (quoted.length === 1) return quoted;
  return [word('{'), ...quoted.flatMap((each, i) => (i === 0 ? [each] : [comma(), each])), word('}')];
}

/** Removes options of statements that do not affect the verdict and that rules here do not have. */
export function withoutOptions(words: readonly Word[]): { words: readonly Word[]; removed: readonly string[] } {
  const result: Word[] = [];
  const removed: string[] = [];
  const is = (at: number, ...texts: string[]): boolean => words[at]?.kind === 'word' && texts.includes(words[at].text);
  for (let at = 0; at < words.length; ) {
    result.push(words[at]);
    if (is(at, 'counter') && is(at + 1, 'name')) {
      removed.push('counter name');
      at += 3;
    } else if (!is(at, 'log')) at++;
    else
      for (at++; ; ) {
        if (is(at, 'prefix', 'level')) {
          result.push(...words.slice(at, at + 2));
          at += 2;
        } else if (is(at, 'group', 'snaplen', 'queue-threshold')) {
          removed.push(`log ${words[at].text}`);
          at += 2;
        } else if (is(at, 'flags')) {
          removed.push('log flags');
          at += is(at + 1, 'tcp', 'ip') ? 3 : 2;
          while (words[at]?.text === ',') at += 2;
        } else break;
      }
  }
  return { words: result, removed };
}

/**
 * Removes the branch for `established` from a map of connection states if it refuses, since such
 * packets pass without consulting the rules. `denied` is the removed branch, or null.
 */
export function withoutEstablished(words: readonly Word[]): { words: readonly Word[]; denied: string | null } {
  const at = words.findIndex(
    ({ text }, i) => text === 'ct' && ['state', VERDICT_MAP, '{'].every((each, n) => words[i + 1 + n]?.text === each),
  );
  if (at < 0) return { words, denied: null };
  const from = at + 4;
  const to = words.findIndex(({ text }, i) => i >= from && text === '}');
  if (to < 0) return { words, denied: null };
  const all = elements(words.slice(from, to));
  const denied = all.find(
    ([name, ...rest]) => /^established:?$/.test(name.text) && DENIES.includes(rest.at(-1)?.text ?? ''),
  );
  if (denied === undefined || all.length === 1) return { words, denied: null };
  const kept = all.filter((each) => each !== denied).flatMap((each, i) => (i === 0 ? each : [comma(), ...each]));
  return { words: [...words.slice(0, from), ...kept, ...words.slice(to)], denied: lineOf(denied) };
}

/** Words of rules that take packets away. */
const DENIES = ['drop', 'reject', 'queue', 'fwd', 'synproxy'];

/** Returns true if a rule or a map refuses packets. */
export function denies(tokens: readonly Token[]): boolean {
  return tokens.some(({ kind, text }) => kind === 'word' && DENIES.includes(text));
}

/** Completes a bare `reject` with what nftables answers, even to TCP. */
export function withAnswers(words: readonly Word[]): readonly Word[] {
  return words.flatMap((each, i) =>
    each.kind === 'word' && each.text === 'reject' && words[i + 1]?.text !== 'with'
      ? [each, ...['with', 'icmpx', 'type', 'port-unreachable'].map(word)]
      : [each],
  );
}

export interface Renames {
  /** The chain that an accept goes on to. Null: the packet is accepted. */
  readonly next: string | null;
  chain(name: string): string;
  set(name: string): string;
}

/**
 * Replaces names of chains and sets by their printed names, and accepts that go on to a chain by a
 * `goto`.
 */
export function renamed(words: readonly Word[], { next, chain, set }: Renames): readonly Word[] {
  return words.map((each, i) => {
    if (isTarget(words, i)) return { ...each, text: chain(each.text) };
    if (each.kind === 'name') return { ...each, text: `@${set(each.text.slice(1))}` };
    if (each.kind === 'word' && each.text === 'accept' && next !== null) return { ...each, text: `goto ${next}` };
    return each;
  });
}

/** Returns the chains that the words jump to. */
export function targetsIn(tokens: readonly Token[]): string[] {
  return tokens.flatMap(({ kind, text }, i) => {
    const isJump = kind === 'word' && (text === 'jump' || text === 'goto');
    return isJump && tokens[i + 1] !== undefined ? [tokens[i + 1].text] : [];
  });
}
