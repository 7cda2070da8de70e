/**
 * Translates the filter part of an nftables ruleset to rules of the firewall. The parser of rules
 * checks each translated rule by itself, then all of them together, so the result loads. What the
 * parser refuses is left out, with its reason.
 *
 * **Which chains.** Base chains of type filter, in the families ip, ip6 and inet. By default, those
 * that packets pass through (hook forward). For an instance in front of a host, those for packets
 * to the host (input) and from it (output). Several base chains of one hook apply in the order of
 * their priority, and each of them must accept a packet.
 */

import { readSetBlock } from '../blocks.js';
import { Cursor, Mistake, Problems } from '../cursor.js';
import { Defined } from '../defined.js';
import { parseRules } from '../parser.js';
import { ESTABLISHED_PASSES, readRule } from '../rule-parser.js';
import { Scope } from '../scope.js';
import { quote, type Token, tokenize } from '../tokens.js';
import {
  type Block,
  type Chain,
  extensionsIn,
  hiddenBehind,
  hiddenRules,
  type Listing,
  readListing,
  type Statement,
  type Table,
} from './listing.js';
import { refusalsOfOpen } from './open-connections.js';
import {
  canReturn,
  examples,
  FAMILIES,
  INSIDE,
  interfacesOf,
  isFilter,
  mapsOf,
  reachedBy,
  sequence,
  setKey,
  VERSIONS,
  type Version,
} from './reach.js';
import {
  denies,
  lineOf,
  type Renames,
  renamed,
  targetsIn,
  whyNotPorts,
  withAnswers,
  withoutEstablished,
  withoutOptions,
  withPorts,
  wordsOf,
} from './rewrite.js';

export interface ImportOptions {
  /**
   * forward: for packets that pass. host: for packets to and from a host behind the port `inside`.
   * Default: forward, unless the ruleset has only input.
   */
  readonly hook?: 'forward' | 'host';
  /**
   * Names of the configuration's ports, by interface. If absent, ports have the names of the
   * interfaces.
   */
  readonly ports?: ReadonlyMap<string, string>;
}

/** A part of the ruleset that the translation does not have. */
export interface LeftOut {
  readonly line: number;
  readonly what: string;
  readonly why: string;
  /** True if verdicts can differ from those of nftables because of it. */
  readonly changes: boolean;
}

interface Imported {
  readonly text: string;
  /** Names that the ports of the configuration must have. */
  readonly ports: readonly string[];
  readonly leftOut: readonly LeftOut[];
}

export { INSIDE };

const OUTSIDE = 'outside';
const PORTS_MAX = 16;
const HIDDEN = 'may be a part of a rule that nft could not print';
const LOOPBACK = 'lo';

/** Translates a ruleset. Throws if the text as a whole is wrong. */
export function importNft(text: string, options: ImportOptions = {}): Imported {
  const listing = readListing(text);
  if (listing.tables.length === 0) throw new Error('there is no table: is this what "nft list ruleset" printed?');
  return new Import(listing, options).run();
}

class Import {
  private readonly listing: Listing;
  private readonly hook: 'forward' | 'host';
  private readonly leftOut: LeftOut[] = [];
  private readonly output: string[] = [];
  private readonly ports: readonly string[];
  private readonly portsOf: (name: string) => readonly string[];
  /** The definitions that translated rules can use, for trying them. */
  private readonly scope: Scope;
  private readonly usedPorts = new Set<string>();
  /** Names of sets and maps that could not be translated, with the reason. */
  private readonly wrong = new Map<string, string>();
  private readonly names = new Map<object, string>();
  private readonly taken = new Set<string>();
  /** Origin of each translated rule, by its text. */
  private readonly sources = new Map<string, { readonly line: number; readonly what: string }>();
  /** Names of the printed chains. The key includes the chain that an accept in them goes on to. */
  private readonly printed = new Map<string, string>();

  constructor(listing: Listing, { hook, ports }: ImportOptions) {
    this.listing = listing;
    const chains = listing.tables.filter(({ family }) => FAMILIES.includes(family)).flatMap(({ chains }) => chains);
    const has = (name: string): boolean => chains.some((chain) => isFilter(chain) && chain.base?.hook === name);
    this.hook = hook ?? (has('forward') || !has('input') ? 'forward' : 'host');
    const seen = new Set(this.selected().flatMap((base) => interfacesOf(base, listing)));
    seen.delete(LOOPBACK);
    const exact = [...seen].filter((name) => !name.endsWith('*'));
    if (this.hook === 'host' && ports === undefined && seen.size > 1)
      throw new Error(
        `which of ${[...seen].join(', ')} is the port ${OUTSIDE}? Say it, as in ${[...seen][0]}=${OUTSIDE}`,
      );
    const known =
      ports ??
      this.hostPort([...seen]) ??
      new Map([...exact, ...examples([...seen], exact)].map((name) => [name, name]));
    this.portsOf = (name) => {
      const matching = [...known].filter(([interf]) =>
        name.endsWith('*') ? interf.startsWith(name.slice(0, -1)) : interf === name,
      );
      for (const [, port] of matching) this.usedPorts.add(port);
      // If ports have the names of interfaces, there may be more of them than this file names.
      if (ports === undefined && this.hook === 'forward' && name.endsWith('*')) return [name];
      return matching.map(([, port]) => port);
    };
    const host = this.hook === 'host' ? [INSIDE, OUTSIDE] : [];
    this.ports = [...new Set([...host, ...known.values()])];
    if (this.ports.length > PORTS_MAX)
      throw new Error(`${this.ports.length} interfaces: say which are ports, as in ${exact[0]}=inside`);
    this.scope = new Scope(this.ports);
  }

  /** The only interface of a host is its port outside. */
  private hostPort(names: readonly string[]): Map<string, string> | null {
    return this.hook === 'host' ? new Map(names.map((name) => [name.replace(/\*$/, ''), OUTSIDE])) : null;
  }

  /** Returns the base chains that are translated. */
  private selected(): Chain[] {
    const hooks = this.hook === 'forward' ? ['forward'] : ['input', 'output'];
    return this.listing.tables
      .filter(({ family }) => FAMILIES.includes(family))
      .flatMap(({ chains }) => chains)
      .filter((chain) => isFilter(chain) && hooks.includes(chain.base?.hook ?? ''));
  }

  run(): Imported {
    this.others();
    const bases = this.selected();
    const tables = new Set(bases.map(({ table }) => table));
    for (const define of this.listing.defines) this.define(define);
    for (const table of tables) for (const set of table.sets) this.set(set, table);
    const host = this.hook === 'host';
    const forward = (chain: Chain): boolean => !host && chain.base?.hook === 'forward';
    const only = bases.length === 1 && bases[0].table.family === 'inet' && !host ? bases[0] : null;
    if (only !== null) this.top(only);
    else if (!host) this.dispatch(bases.filter(forward), '');
    else {
      const hooked = (name: string): Chain[] => bases.filter((chain) => chain.base?.hook === name);
      this.dispatch(hooked('input'), `iifname "${OUTSIDE}" `);
      this.dispatch(hooked('output'), `iifname "${INSIDE}" `);
      this.usedPorts.add(INSIDE).add(OUTSIDE);
    }
    const used = this.ports.filter((port) => this.usedPorts.has(port));
    const ports = used.length > 0 ? used : [INSIDE, OUTSIDE];
    const text = `${[...this.head(ports), ...this.output].join('\n')}\n`;
    const { problems, set } = parseRules(text, ports);
    if (problems !== undefined)
      throw new Error(
        `the translation is wrong: ${problems.map(({ line, message }) => `${line}: ${message}`).join('; ')}`,
      );
    for (const { text: refusal, states } of refusalsOfOpen(set, ports.length, only !== null)) {
      const { line, what } = this.sources.get(refusal) ?? { line: bases[0].line, what: refusal };
      this.leave(line, what, `packets that are ${states} do not meet it here, and in nftables they do`, true);
    }
    return { text, ports, leftOut: this.leftOut.toSorted((a, b) => a.line - b.line) };
  }

  private head(ports: readonly string[]): string[] {
    return [
      '# Translated from nftables by "constellation import-nft". Read it before you use it.',
      `# Ports: ${ports.join(', ')}`,
      '# Packets of open connections pass without asking these rules. docs/firewall.md has the differences.',
      '',
    ];
  }

  private leave(line: number, what: string, why: string, changes: boolean): void {
    this.leftOut.push({ line, what, why, changes });
  }

  /** Reports everything outside the filter part. */
  private others(): void {
    const hooks = this.hook === 'forward' ? ['forward'] : ['input', 'output'];
    for (const { line, tokens } of this.listing.others) {
      const what = lineOf(wordsOf(tokens));
      if (!what.startsWith('flush '))
        this.leave(line, what, 'only tables and defines are translated', !what.startsWith('#'));
    }
    const selected = this.selected();
    for (const table of this.listing.tables) {
      const name = `table ${table.family} ${table.name}`;
      if (!FAMILIES.includes(table.family)) {
        this.leave(
          table.line,
          name,
          'rules see IP packets: docs/frames.md has what a wire lets pass',
          this.takes(table.chains),
        );
        continue;
      }
      for (const { line, tokens, name: own } of table.others)
        this.leave(line, `${tokens[0].text} ${own}`, 'rules have no named objects but sets and maps', false);
      const reached = new Set(selected.flatMap((base) => reachedBy(base)));
      for (const chain of table.chains) {
        const { base } = chain;
        const what = `chain ${chain.name}`;
        if (base === null) {
          if (!reached.has(chain)) this.leave(chain.line, what, 'no rule that is translated jumps to it', false);
        } else if (base.type === 'nat')
          this.leave(
            chain.line,
            what,
            'it changes addresses: the NAT of `middleboxes` does that (docs/nat.md)',
            this.takes([chain]),
          );
        else if (!isFilter(chain)) this.leave(chain.line, what, `it is of type ${base.type}`, this.takes([chain]));
        else if (!hooks.includes(base.hook)) this.leave(chain.line, what, this.whyNot(base.hook), this.takes([chain]));
      }
    }
  }

  /** Returns true if base chains that are left out can refuse packets that the rules apply to. */
  private takes(chains: readonly Chain[]): boolean {
    const isElsewhere = (hook: string): boolean =>
      this.hook === 'forward' ? hook === 'input' || hook === 'output' : hook === 'forward';
    return chains.some((chain) => {
      if (chain.base === null || isElsewhere(chain.base.hook)) return false;
      if (chain.policy === 'drop') return true;
      const reached = reachedBy(chain);
      const statements = [...reached.flatMap(({ rules }) => rules), ...mapsOf(reached)];
      const hidden = reached.flatMap((each) => extensionsIn(each, this.listing.comments));
      return statements.some(({ tokens }) => denies(tokens)) || hidden.some(({ text }) => /drop|reject/i.test(text));
    });
  }

  private whyNot(hook: string): string {
    if (this.hook === 'forward' && (hook === 'input' || hook === 'output'))
      return `hook ${hook} is about the host itself: leave it to nftables, or import it with hook=host for an instance in front of the host`;
    if (hook === 'forward') return 'with hook=host only the chains of the hooks input and output are translated';
    return `the hook ${hook} has no place in the firewall: packets meet the rules once`;
  }

  private define(statement: Statement): void {
    const words = wordsOf(statement.tokens);
    const [, name, equals] = statement.tokens;
    if (equals?.text !== '=' || name === undefined) return this.leave(statement.line, lineOf(words), 'no value', true);
    const portNames = statement.tokens.slice(3).some(({ kind }) => kind === 'string');
    const value = portNames ? this.portList(statement.tokens.slice(3)) : lineOf(words.slice(3));
    if (value === '') {
      this.wrong.set(name.text, 'it names no port');
      return this.leave(statement.line, `define ${name.text}`, 'it names no port', false);
    }
    const text = `define ${name.text} = ${value}`;
    this.scope.define(new Defined(name, tokenize(value).tokens.slice(0, -1), false));
    this.names.set(statement, name.text);
    this.taken.add(name.text);
    this.output.push(text);
  }

  private portList(tokens: readonly Token[]): string {
    const ports = tokens
      .filter(({ kind }) => kind === 'string' || kind === 'word' || kind === 'name')
      .flatMap(({ kind, text }) => (kind === 'name' ? [`$${text}`] : this.portsOf(text).map((port) => `"${port}"`)));
    return ports.length === 0 ? '' : `{ ${ports.join(', ')} }`;
  }

  /**
   * Prints a set if rules can have it. A map of verdicts is printed with the chain that uses it.
   */
  private set(set: Block, table: Table): void {
    const key = setKey(table, set.name);
    const name = this.name(set, set.name, table);
    const text = this.setText(set, name, (words) => words);
    const why = text === null ? 'it names no port' : this.trySet(text, name);
    if (why === null && text !== null && set.tokens[0].text === 'set') this.output.push(...text);
    if (why === null) return;
    this.wrong.set(key, why);
    this.leave(set.line, `${set.tokens[0].text} ${set.name}`, why, false);
  }

  private setText(
    set: Block,
    name: string,
    rewrite: (words: ReturnType<typeof wordsOf>) => readonly ReturnType<typeof wordsOf>[number][],
  ): string[] | null {
    const isPorts = set.statements.some(({ tokens }) =>
      tokens.some(({ text }) => /^(ifname|iface_index|[io]ifname)$/.test(text)),
    );
    const lines: string[] = [];
    for (const { tokens } of set.statements) {
      if (isPorts && tokens[0].text === 'elements') {
        const list = this.portList(tokens.slice(2));
        if (list === '') return null;
        lines.push(`  elements = ${list}`);
      } else lines.push(`  ${lineOf(rewrite(wordsOf(tokens)))}`);
    }
    return [`${set.tokens[0].text} ${name} {`, ...lines, '}'];
  }

  /**
   * Returns the reason why rules cannot have the set. Returns null if they can. Rules that are
   * tried later then know it.
   */
  private trySet(text: readonly string[], name: string): string | null {
    const { tokens, problems: unreadable } = tokenize(text.join('\n'));
    const problems = new Problems(unreadable);
    const cursor = new Cursor(tokens, problems);
    cursor.at = 3;
    try {
      readSetBlock(cursor, this.scope, { ...tokens[1], text: name }, tokens[0].text === 'map', tokens[2]);
    } catch (error) {
      if (!(error instanceof Mistake)) throw error;
    }
    return problems.any ? problems.all()[0].message : null;
  }

  /** Returns a unique name in the output. */
  private name(of: object, wanted: string, table: Table): string {
    const known = this.names.get(of);
    if (known !== undefined) return known;
    const plain = wanted.replace(/[^A-Za-z0-9_-]/g, '_').replace(/^(?=[^A-Za-z_])/, '_');
    let name = plain;
    if (this.taken.has(name)) name = `${table.name}-${plain}`.replace(/[^A-Za-z0-9_-]/g, '_');
    for (let n = 2; this.taken.has(name); n++) name = `${plain}-${n}`;
    this.names.set(of, name);
    this.taken.add(name);
    return name;
  }

  // ——— Chains ———

  /** Prints the only base chain. Its rules are at the top. */
  private top(base: Chain): void {
    const renames = this.chainsOf(base, null);
    const related = this.related(base);
    this.sources.set(`policy ${base.policy}`, { line: base.line, what: `policy ${base.policy}` });
    this.output.push('', `policy ${base.policy}`, ...this.rules(base, renames), ...related);
  }

  /**
   * Prints rules at the top that send packets to the first base chain of their IP version, and the
   * chains.
   */
  private dispatch(bases: readonly Chain[], match: string): void {
    const sequences = new Map(VERSIONS.map((version) => [version, sequence(bases, version)]));
    const first = VERSIONS.map((version) => this.after(sequences.get(version) ?? [], 0, sequences));
    if (this.output.at(-1) !== '') this.output.push('');
    if (match === '') this.output.push('policy drop');
    if (first[0] === first[1]) this.output.push(`${match}${first[0]}`);
    else for (const [i, version] of VERSIONS.entries()) this.output.push(`${match}meta nfproto ${version} ${first[i]}`);
  }

  /**
   * Returns what happens to packets that the base chains before number `at` accepted. Prints the
   * chains that this needs.
   */
  private after(chains: readonly Chain[], at: number, sequences: ReadonlyMap<Version, readonly Chain[]>): string {
    if (at >= chains.length) return 'accept';
    const base = chains[at];
    const nexts = VERSIONS.map((version) => {
      const list = sequences.get(version) ?? [];
      const own = list.indexOf(base);
      return own < 0 ? null : this.after(list, own + 1, sequences);
    }).filter((next) => next !== null);
    const next = nexts.every((each) => each === nexts[0]) ? nexts[0] : this.split(base, nexts);
    return `goto ${this.base(base, next === 'accept' ? null : next.replace(/^goto /, ''))}`;
  }

  /** Prints a chain that distributes packets by their IP version. Returns a jump to it. */
  private split(base: Chain, nexts: readonly string[]): string {
    const key = `${setKey(base.table, base.name)} after`;
    const known = this.printed.get(key);
    if (known !== undefined) return `goto ${known}`;
    const name = this.name({}, `after-${base.name}`, base.table);
    this.printed.set(key, name);
    const rules = VERSIONS.map((version, i) => `  meta nfproto ${version} ${nexts[i]}`);
    this.output.push('', `chain ${name} {`, ...rules, '}');
    return `goto ${name}`;
  }

  /** Prints a base chain as a chain that ends with its policy. Returns its name. */
  private base(base: Chain, next: string | null): string {
    const key = `${setKey(base.table, base.name)} base`;
    const known = this.printed.get(key);
    if (known !== undefined) return known;
    const name = this.name(base, base.name, base.table);
    this.printed.set(key, name);
    const renames = this.chainsOf(base, next);
    const last = base.policy === 'drop' ? 'drop' : next === null ? 'accept' : `goto ${next}`;
    const rules = this.rules(base, renames).map((rule) => `  ${rule}`);
    const end = [...this.related(base), last].map((rule) => `  ${rule}`);
    if (!this.sources.has(last)) this.sources.set(last, { line: base.line, what: `policy ${base.policy}` });
    if (!canReturn(base)) this.output.push('', `chain ${name} {`, ...rules, ...end, '}');
    else {
      // A packet that leaves the rules early meets the policy.
      const within = this.name({}, `${name}-rules`, base.table);
      this.output.push('', `chain ${within} {`, ...rules, '}');
      this.output.push('', `chain ${name} {`, `  jump ${within}`, ...end, '}');
    }
    return name;
  }

  /**
   * Returns a rule that applies the policy to related packets. It is needed if no rule names them,
   * because they would then pass.
   */
  private related(base: Chain): string[] {
    const reached = reachedBy(base);
    const statements = [...reached.flatMap(({ rules }) => rules), ...mapsOf(reached)];
    const has = ({ tokens }: Statement, ...words: string[]): boolean =>
      tokens.some(({ kind, text }) => kind === 'word' && words.includes(text.replace(/:$/, '')));
    if (base.policy !== 'drop' || statements.some((each) => has(each, 'related'))) return [];
    const why = 'no rule names related packets: they meet it, also those that a rule without a state accepts';
    if (statements.some((each) => has(each, 'accept', 'vmap') && !has(each, 'state')))
      this.leave(base.line, `policy ${base.policy}`, why, true);
    return ['ct state related drop'];
  }

  /**
   * Prints the chains that a base chain jumps to, and the maps that they use. Returns their new
   * names.
   */
  private chainsOf(base: Chain, next: string | null): Renames {
    const { table } = base;
    const reached = [...reachedBy(base)].filter((each) => each !== base);
    const nameOf = (name: string): string => {
      const target = table.chains.find((each) => each.name === name);
      if (target === undefined) return name;
      const key = `${setKey(table, name)} ${next}`;
      return this.printed.get(key) ?? this.name(target, name, table);
    };
    const setName = (name: string): string => {
      const set = table.sets.find((each) => each.name === name);
      if (set === undefined) return name;
      return this.printed.get(`${setKey(table, name)} map ${next}`) ?? this.names.get(set) ?? name;
    };
    const renames: Renames = { next, chain: nameOf, set: setName };
    const fresh = reached.filter((each) => !this.printed.has(`${setKey(table, each.name)} ${next}`));
    // Assign names first, because chains jump to each other.
    for (const each of fresh) {
      const isKnown = this.names.has(each);
      const name = isKnown ? this.name({}, `${each.name}-${base.name}`, table) : this.name(each, each.name, table);
      this.printed.set(`${setKey(table, each.name)} ${next}`, name);
    }
    this.maps(mapsOf([base, ...reached]), base, renames);
    for (const each of fresh) {
      const name = this.printed.get(`${setKey(table, each.name)} ${next}`);
      this.output.push('', `chain ${name} {`, ...this.rules(each, renames).map((rule) => `  ${rule}`), '}');
    }
    return renames;
  }

  /** Prints the maps, once for each chain that an accept in them goes on to. */
  private maps(used: readonly Block[], base: Chain, renames: Renames): void {
    const { table } = base;
    for (const map of used) {
      if (map.tokens[0].text !== 'map' || this.wrong.has(setKey(table, map.name))) continue;
      const key = `${setKey(table, map.name)} map`;
      if (this.printed.has(`${key} ${renames.next}`)) continue;
      const isKnown = this.printed.has(key);
      const name = isKnown ? this.name({}, `${map.name}-${base.name}`, table) : renames.set(map.name);
      this.printed.set(key, name).set(`${key} ${renames.next}`, name);
      const text = this.setText(map, name, (words) => renamed(words, renames));
      if (text === null) continue;
      // Rules that are tried later must know the copy.
      if (isKnown) this.trySet(text, name);
      this.output.push(...text);
    }
  }

  private rules(chain: Chain, renames: Renames): string[] {
    const rules: string[] = [];
    for (const { line, text } of hiddenRules(chain, this.listing.comments)) this.leave(line, text, HIDDEN, true);
    for (const rule of chain.rules) {
      const written = lineOf(wordsOf(rule.tokens));
      const { text, why, removed, denied, isHidden } = this.rule(chain, rule, renames);
      if (denied !== undefined && denied !== null) this.leave(rule.line, denied, ESTABLISHED_PASSES, true);
      for (const option of removed ?? [])
        this.leave(rule.line, option, 'rules do not have it: the rule stays without it', false);
      if (text !== undefined) {
        rules.push(text);
        this.sources.set(text, { line: rule.line, what: written });
      } else {
        const reason = why ?? 'no packet comes by this interface';
        const changes = reason === ESTABLISHED_PASSES ? deniesOpen(rule) : hasVerdict(rule) || isHidden === true;
        this.leave(rule.line, written, reason, why !== undefined && changes);
        rules.push(`# line ${rule.line}: ${written} -- left out: ${reason}`);
      }
    }
    return rules;
  }

  private rule(chain: Chain, { tokens }: Statement, renames: Renames): RuleResult {
    const unreadable = this.listing.unreadable.find((problem) => isWithin(problem, tokens));
    if (unreadable !== undefined) return { why: unreadable.message };
    for (const { kind, text } of tokens) {
      const why = kind === 'name' ? (this.wrong.get(setKey(chain.table, text)) ?? this.wrong.get(text)) : undefined;
      if (why !== undefined) return { why: `it uses ${quote(text)}, which was left out: ${why}` };
    }
    const missing = targetsIn(tokens).find((name) => !chain.table.chains.some((each) => each.name === name));
    if (missing !== undefined) return { why: `there is no chain ${quote(missing)} in its table` };
    const hidden = hiddenBehind(tokens, this.listing.comments);
    if (hidden !== null) return { why: `${quote(hidden)} ${HIDDEN}`, isHidden: true };
    const refused = whyNotPorts(wordsOf(tokens));
    if (refused !== null) return { why: refused };
    const { words: open, denied } = withoutEstablished(wordsOf(tokens));
    const { words, never } = withPorts(open, this.portsOf);
    if (never !== undefined) return {};
    const { words: kept, removed } = withoutOptions(withAnswers(words));
    const text = lineOf(renamed(kept, renames));
    const why = this.tryRule(text);
    return why === null ? { text, removed, denied } : { why };
  }

  /** Returns the reason why rules cannot have the rule, or null. */
  private tryRule(text: string): string | null {
    const { tokens, problems: unreadable } = tokenize(text);
    const problems = new Problems(unreadable);
    const cursor = new Cursor(tokens, problems);
    try {
      readRule(cursor, this.scope, text, []);
    } catch (error) {
      if (!(error instanceof Mistake)) throw error;
    }
    return problems.any ? problems.all()[0].message : null;
  }
}

/** Returns true if a place is within some tokens, or directly behind them. */
function isWithin({ line, column }: { line: number; column: number }, tokens: readonly Token[]): boolean {
  const [first] = tokens;
  const last = tokens[tokens.length - 1];
  const isAfter = line > first.line || (line === first.line && column >= first.column);
  return isAfter && (line < last.line || (line === last.line && column <= last.column + last.to - last.from + 1));
}

interface RuleResult {
  readonly text?: string;
  /** If both this and the text are absent, no packet can match. */
  readonly why?: string;
  readonly removed?: readonly string[];
  /** True if part of the rule may be in a comment, perhaps its verdict. */
  readonly isHidden?: boolean;
  /** A removed branch of a map that refuses packets of open connections. Here these pass. */
  readonly denied?: string | null;
}

const VERDICTS = ['accept', 'drop', 'reject', 'jump', 'goto', 'return', 'queue', 'vmap', 'dnat', 'redirect', 'tproxy'];

/**
 * Returns true if a rule that applies only to packets of open connections can refuse them. Here
 * these pass.
 */
function deniesOpen({ tokens }: Statement): boolean {
  return denies(tokens) || tokens.some(({ kind, text }) => kind === 'word' && text === 'vmap');
}

/** Returns true if a rule decides about packets. Others count, log or change them. */
function hasVerdict({ tokens }: Statement): boolean {
  return tokens.some(({ kind, text }) => kind === 'word' && VERDICTS.includes(text));
}
