/**
 * The rules of middleboxes while the instance runs. A separate thread compiles them, so the main
 * thread continues. They are published to the workers, and shown with their packet and byte counts.
 */

import { RuleBoard } from '../../shm/rule-board.js';
import type { RuleEntry, RulesText } from '../../workers/api/rules.js';
import type { Instance } from '../../workers/engine/instance.js';
import type { DeclaredRules } from '../../workers/plane/chain.js';
import type { RuleRow, RulesRow } from '../views/source.js';
import { type Compiled, RulesCompiler } from './rules-compiler.js';

/**
 * Time that workers may take to switch to new rules before others can be loaded. They check several
 * times a second.
 */
const TAKEN_MS = 2_000;
const LOOK_MS = 20;

interface Kept {
  declared: DeclaredRules;
  /** URL of the middlebox's module. */
  readonly module: string;
  readonly board: RuleBoard;
  entries: readonly RuleEntry[];
}

/** The sources of rules, by `middlebox.option`. */
type RulesSources = ReadonlyMap<string, RulesText>;

type CompiledFrom = { readonly kept: Kept; readonly source: RulesText } & Compiled;

type RulesOwner = Pick<Instance, 'declaration' | 'plan' | 'buffers' | 'slots'>;

/** Thrown if new rules are in force, but some worker has not switched to them yet. */
class RulesInForceError extends Error {}

/** Why a reload failed, and which rules are in force. */
export function reloadProblem(error: Error): string {
  return error instanceof RulesInForceError ? error.message : `the rules stay as they are: ${error.message}`;
}

/** Keeps the rules of all middleboxes. The first `reload` loads them. */
export class RulesKeeper {
  private readonly kept: readonly Kept[];
  private readonly compiler: RulesCompiler;
  private readonly takenMs: number;
  /** The last reload that was requested. */
  private last: Promise<unknown> = Promise.resolve();
  private closed = false;

  constructor({ declaration, plan, buffers, slots }: RulesOwner, compiler = new RulesCompiler(), takenMs = TAKEN_MS) {
    this.compiler = compiler;
    this.takenMs = takenMs;
    this.kept = declaration.rules.map((declared, i) => ({
      declared,
      module: plan.middleboxes[declaration.links.findIndex(({ name }) => name === declared.middlebox)].module,
      board: new RuleBoard(buffers.rules[i], slots.workers),
      entries: [],
    }));
  }

  get any(): boolean {
    return this.kept.length > 0;
  }

  /**
   * Reads all rules, and puts them in force if all are valid. Resolves when every worker uses the
   * new ones. If any rule is wrong, it rejects with all errors and the old rules stay. It also
   * rejects if a worker does not switch in time: see `reloadProblem`. `sources`: new sources of
   * some rules, by `middlebox.option`. Concurrent calls run in order.
   */
  reload(sources: RulesSources = new Map()): Promise<RulesRow[]> {
    const again = (): Promise<RulesRow[]> => this.reloadNow(sources);
    const done = this.last.then(again, again);
    this.last = done;
    return done;
  }

  /** Puts no more rules in force. Ends a compilation in progress, and its reload rejects. */
  close(): void {
    this.closed = true;
    this.compiler.close();
  }

  private async reloadNow(sources: RulesSources): Promise<RulesRow[]> {
    const compiled = await this.compileAll(sources);
    for (const { kept } of compiled)
      if (!(await this.taken(kept))) throw new Error('some worker has not taken the rules loaded last yet');
    if (this.closed) throw new Error('the instance stops');
    for (const { kept, words, entries, source } of compiled) {
      publish(kept, words, entries);
      kept.declared = { ...kept.declared, source };
    }
    for (const { kept } of compiled)
      if (!(await this.taken(kept)))
        throw new RulesInForceError('the new rules are in force, but some worker has not taken them yet');
    return this.inUse();
  }

  private async compileAll(sources: RulesSources): Promise<CompiledFrom[]> {
    const compiled: CompiledFrom[] = [];
    for (const kept of this.kept) {
      const { middlebox, name } = kept.declared;
      const source = sources.get(`${middlebox}.${name}`) ?? kept.declared.source;
      compiled.push({ kept, source, ...(await this.compiler.compile({ module: kept.module, option: name, source })) });
    }
    return compiled;
  }

  inUse(): RulesRow[] {
    return this.kept.map(({ declared, board, entries }) => ({
      middlebox: declared.middlebox,
      rules: declared.name,
      file: declared.source.file,
      entries: entries.length,
      version: board.version,
    }));
  }

  rows(): RuleRow[] {
    return this.kept.flatMap(({ declared, board, entries }) =>
      entries.map(({ line, text }, i) => ({ middlebox: declared.middlebox, line, ...board.count(i), text })),
    );
  }

  /** A worker that died uses no rules. */
  forget(worker: number): void {
    for (const { board } of this.kept) board.forget(worker);
  }

  private async taken({ board }: Kept): Promise<boolean> {
    for (let waited = 0; !board.settle(); waited += LOOK_MS) {
      if (waited >= this.takenMs) return false;
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
    return true;
  }
}

/**
 * Publishes new rules. The n-th entry with a text continues the counts of the old n-th entry with
 * the same text.
 */
function publish(kept: Kept, words: Int32Array, entries: readonly RuleEntry[]): void {
  const places = new Map<string, number[]>();
  for (const [i, { text }] of kept.entries.entries()) {
    const same = places.get(text);
    if (same === undefined) places.set(text, [i]);
    else same.push(i);
  }
  const before = Int32Array.from(entries, ({ text }) => places.get(text)?.shift() ?? -1);
  if (!kept.board.publish(words, before)) throw new Error('some worker has not taken the rules loaded last yet');
  kept.entries = entries;
}
