/**
 * Reads the output of `nft list ruleset`, or a file for `nft -f`: its tables, with their chains and
 * sets, as tokens.
 */

import type { RuleProblem } from '../../../api/api.js';
import { type Comment, quote, type Token, tokenize } from '../tokens.js';

/** A rule, or another line of a chain. */
export interface Statement {
  readonly line: number;
  readonly tokens: readonly Token[];
}

export interface Block extends Statement {
  readonly name: string;
  /** The statements between its braces. */
  readonly statements: readonly Statement[];
}

/** The properties of a base chain. Packets enter a base chain from a hook. */
interface Base {
  readonly type: string;
  readonly hook: string;
  readonly priority: number;
}

export interface Chain extends Block {
  readonly table: Table;
  readonly base: Base | null;
  readonly policy: 'accept' | 'drop';
  readonly rules: readonly Statement[];
}

export interface Table {
  readonly family: string;
  readonly name: string;
  readonly line: number;
  readonly chains: Chain[];
  /** Sets and maps. The first token tells which. */
  readonly sets: Block[];
  /** Other blocks: flowtable, counter, limit, ct helper, and so on. */
  readonly others: Block[];
}

/** Comments of the form of HANDLE are never part of a rule. Those of the form of EXTENSION are. */
const HANDLE = /^# handle \d+\s*$/;
const EXTENSION = /^#\s*xt_/;
const LAST_VERDICTS = ['accept', 'drop', 'return', 'continue'];

/**
 * Returns the comment behind a rule, if it can be part of the rule. nftables up to 1.0.2 prints
 * extensions of iptables as `# xt_set`, followed by the rest of the rule. A verdict ends a rule, so
 * what follows it is only a comment.
 */
export function hiddenBehind(tokens: readonly Token[], comments: readonly Comment[]): string | null {
  const last = tokens[tokens.length - 1];
  const found = comments.find(({ line, from }) => line === last.line && from >= last.to);
  if (found === undefined || HANDLE.test(found.text) || endsWithVerdict(tokens)) return null;
  return found.text;
}

function endsWithVerdict(tokens: readonly Token[]): boolean {
  const [before, last] = tokens.slice(-2);
  if (last === undefined) return LAST_VERDICTS.includes(before.text);
  if (before.text === 'jump' || before.text === 'goto' || before.text === 'comment') return true;
  if (last.kind === 'word' && LAST_VERDICTS.includes(last.text)) return true;
  return tokens.some(({ kind, text }) => kind === 'word' && (text === 'reject' || text === 'vmap'));
}

/** Returns the comments in a chain that hide an extension of iptables. */
export function extensionsIn({ tokens }: Chain, comments: readonly Comment[]): Comment[] {
  const [first] = tokens;
  const last = tokens[tokens.length - 1];
  return comments.filter(({ text, from }) => EXTENSION.test(text) && from > first.from && from < last.to);
}

/**
 * Returns the comments that stand for a whole rule of a chain. Such a rule begins with an extension
 * of iptables.
 */
export function hiddenRules(chain: Chain, comments: readonly Comment[]): Comment[] {
  const lines = new Set(chain.rules.map(({ tokens }) => tokens[tokens.length - 1].line));
  return extensionsIn(chain, comments).filter(({ line }) => !lines.has(line));
}

export interface Listing {
  readonly tables: readonly Table[];
  /** `define` statements at the top. */
  readonly defines: readonly Statement[];
  /** Other statements at the top. */
  readonly others: readonly Statement[];
  readonly comments: readonly Comment[];
  /** Places whose text is not a token. */
  readonly unreadable: readonly RuleProblem[];
}

const FAMILIES = ['ip', 'ip6', 'inet', 'arp', 'bridge', 'netdev'];

/** Names of priorities, as in nftables for the IP families. */
const PRIORITIES: Readonly<Record<string, number>> = {
  raw: -300,
  mangle: -150,
  dstnat: -100,
  filter: 0,
  security: 50,
  srcnat: 100,
};

/** Reads a listing. If braces do not match, throws with the line. */
export function readListing(text: string): Listing {
  const { tokens, comments, problems } = tokenize(text);
  const tables: Table[] = [];
  const defines: Statement[] = [];
  const others: Statement[] = [];
  for (const statement of statements(tokens)) {
    const [first] = statement.tokens;
    if (first.text === 'table' && statement.tokens.some(({ text }) => text === '{')) readTable(statement, tables);
    else if (first.text === 'define') defines.push(statement);
    else others.push(statement);
  }
  return { tables, defines, others, comments, unreadable: problems };
}

function isMark(token: Token, text: string): boolean {
  return token.kind === 'mark' && token.text === text;
}

/**
 * Splits tokens into statements. A statement ends with a line end or `;` outside braces. A block
 * ends with its brace.
 */
function statements(tokens: readonly Token[]): Statement[] {
  const found: Statement[] = [];
  let current: Token[] = [];
  const open: Token[] = [];
  const finish = (): void => {
    if (current.length > 0) found.push({ line: current[0].line, tokens: current });
    current = [];
  };
  for (const token of tokens) {
    if (token.kind === 'end' && open.length === 0) {
      finish();
      continue;
    }
    current.push(token);
    if (isMark(token, '{')) open.push(token);
    if (!isMark(token, '}')) continue;
    if (open.pop() === undefined) throw new Error(`line ${token.line}: "}" closes nothing`);
    const begins = current[0].text;
    if (open.length === 0 && BLOCKS.has(begins) && begins !== 'map' && begins !== 'set') finish();
  }
  if (open.length > 0) throw new Error(`line ${open[0].line}: "{" is never closed`);
  finish();
  return found;
}

const BLOCKS: ReadonlySet<string> = new Set(['table', 'chain', 'set', 'map', 'flowtable']);

/** Returns a block: its tokens, and the statements between its braces. */
function block({ line, tokens }: Statement, name: number): Block {
  const from = tokens.findIndex((token) => isMark(token, '{'));
  const inner = from < 0 ? [] : tokens.slice(from + 1, -1);
  return { line, tokens, name: tokens[name]?.text ?? '', statements: statements(inner) };
}

/** Adds a table. nftables merges blocks of the same name, for tables and for chains. */
function readTable(statement: Statement, tables: Table[]): void {
  const hasFamily = FAMILIES.includes(statement.tokens[1]?.text ?? '') && statement.tokens[2]?.kind === 'word';
  const whole = block(statement, hasFamily ? 2 : 1);
  const family = hasFamily ? statement.tokens[1].text : 'ip';
  const before = tables.find((each) => each.family === family && each.name === whole.name);
  const table: Table = before ?? {
    family,
    name: whole.name,
    line: statement.line,
    chains: [],
    sets: [],
    others: [],
  };
  for (const part of whole.statements) {
    const what = part.tokens[0].text;
    if (what === 'chain') readChain(table, block(part, 1));
    else if (what === 'set' || what === 'map') table.sets.push(block(part, 1));
    else if (what !== 'flags' && what !== 'comment') table.others.push(block(part, 1));
  }
  if (before === undefined) tables.push(table);
}

function readChain(table: Table, whole: Block): void {
  const at = table.chains.findIndex(({ name }) => name === whole.name);
  const before = at < 0 ? null : table.chains[at];
  let base: Base | null = before?.base ?? null;
  let policy: Chain['policy'] = before?.policy ?? 'accept';
  const rules: Statement[] = [...(before?.rules ?? [])];
  for (const statement of whole.statements) {
    const [first, second] = statement.tokens;
    if (first.text === 'type' && statement.tokens.some(({ text }) => text === 'hook'))
      base = readBase(statement, table.family);
    else if (first.text === 'policy') policy = second?.text === 'drop' ? 'drop' : 'accept';
    else if (first.text !== 'comment' && first.text !== 'flags') rules.push(statement);
  }
  const tokens = [...(before?.tokens ?? []), ...whole.tokens];
  const chain = { ...whole, line: before?.line ?? whole.line, tokens, table, base, policy, rules };
  if (before === null) table.chains.push(chain);
  else table.chains[at] = chain;
}

/** Reads `type filter hook forward priority filter + 10`. */
function readBase({ line, tokens }: Statement, family: string): Base {
  const after = (name: string): Token[] => {
    const at = tokens.findIndex(({ text }) => text === name);
    return at < 0 ? [] : tokens.slice(at + 1);
  };
  const [type] = after('type');
  const [hook] = after('hook');
  const priority = after('priority').map(({ text }) => text);
  const words = priority.join(' ').replace(/[-+]/g, (sign) => ` ${sign} `);
  const match = /^\s*([a-z]+)?\s*(?:([-+])\s*)?(\d+)?\s*$/.exec(words);
  // Only the order of translated chains matters. In other families, priorities have other names.
  const isTranslated = family === 'ip' || family === 'ip6' || family === 'inet';
  const number = !isTranslated ? 0 : match === null ? Number.NaN : priorityOf(match);
  if (type === undefined || hook === undefined || Number.isNaN(number))
    throw new Error(`line ${line}: ${quote(tokens.map(({ text }) => text).join(' '))} is no type of a chain`);
  return { type: type.text, hook: hook.text, priority: number };
}

function priorityOf([, name, sign, digits]: RegExpExecArray): number {
  const base = name === undefined ? 0 : Object.hasOwn(PRIORITIES, name) ? PRIORITIES[name] : Number.NaN;
  return base + (sign === '-' ? -1 : 1) * Number(digits ?? 0);
}
