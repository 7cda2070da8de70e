/**
 * Rules of middleboxes while the instance runs: compiled by main, published to the workers, shown with what they met.
 *
 * Compiling 10,000 rules takes main half a second in one piece. Packets, state and keepalives are other threads' work; what waits on main
 * (admin commands, etcd's leases of 2 s or more, the watch over threads, which counts looks, and systemd's) bears that.
 */

import { RuleBoard } from '../shm/rule-board.js';
import type { DeclaredRules } from '../workers/chain.js';
import type { Instance } from '../workers/instance.js';
import type { RuleEntry } from '../workers/rules.js';
import type { RuleRow, RulesRow } from './admin/source.js';
import { placedProblem, readRules } from './rules-text.js';

/** How long workers may take to go over to rules before others can be loaded; they look some times a second. */
const TAKEN_MS = 2_000;
const LOOK_MS = 20;
/** Mistakes of a text that are told. */
const PROBLEMS_SHOWN = 20;

interface Kept {
  readonly declared: DeclaredRules;
  readonly board: RuleBoard;
  entries: readonly RuleEntry[];
}

export class RulesKeeper {
  private readonly kept: readonly Kept[];

  /** Loads all; throws with all that is wrong. */
  constructor({ declaration, buffers, slots }: Instance) {
    this.kept = declaration.rules.map((declared, i) => ({
      declared,
      board: new RuleBoard(buffers.rules[i], slots.workers),
      entries: [],
    }));
    for (const kept of this.kept) load(kept);
  }

  get any(): boolean {
    return this.kept.length > 0;
  }

  /**
   * Reads all again, and puts them in force if all of them are right. Throws with all that is wrong; then those before stay.
   * Resolves when every worker works with the new ones, or rejects when one does not take them.
   */
  async reload(): Promise<RulesRow[]> {
    const compiled = this.kept.map((kept) => ({ kept, ...compileText(kept.declared) }));
    for (const { kept } of compiled)
      if (!(await this.taken(kept))) throw new Error('some worker has not taken the rules loaded last yet');
    for (const { kept, words, entries } of compiled) publish(kept, words, entries);
    for (const { kept } of compiled)
      if (!(await this.taken(kept))) throw new Error('the rules are in force, but some worker has not taken them yet');
    return this.inUse();
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

  /** A worker that died works with no rules. */
  forget(worker: number): void {
    for (const { board } of this.kept) board.forget(worker);
  }

  private async taken({ board }: Kept): Promise<boolean> {
    for (let waited = 0; !board.settle(); waited += LOOK_MS) {
      if (waited >= TAKEN_MS) return false;
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
    return true;
  }
}

function compileText({ source, compile, name }: DeclaredRules): { words: Int32Array; entries: readonly RuleEntry[] } {
  const { words, entries, problems } = compile(readRules(source), source);
  if (problems === undefined) return { words, entries };
  const shown = problems.slice(0, PROBLEMS_SHOWN).map((problem) => placedProblem(source, name, problem));
  if (problems.length > shown.length) shown.push(`and ${problems.length - shown.length} more`);
  throw new Error(shown.join('; '));
}

function load(kept: Kept): void {
  const { words, entries } = compileText(kept.declared);
  publish(kept, words, entries);
}

/** An entry goes on counting where one of the same text, the first, second and so on, was before. */
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
