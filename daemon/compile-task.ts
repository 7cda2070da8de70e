/**
 * A task of a thread of its own: reads a text of rules and compiles it. Main goes on meanwhile: a firewall's 10,000 rules take
 * half a second.
 */

import { loadMiddlebox } from '../workers/load.js';
import type { CompiledRules, RulesText } from '../workers/rules.js';
import { readRules } from './rules-text.js';

export interface CompileTask {
  /** Address of the middlebox's module: a thread cannot be given a function. */
  readonly module: string;
  /** Name of the option. */
  readonly option: string;
  readonly source: RulesText;
}

export default async function compileRules({ module, option, source }: CompileTask): Promise<CompiledRules> {
  const { options, name } = await loadMiddlebox(module);
  const compile = options[option]?.compile;
  if (compile === undefined) throw new Error(`middlebox ${name}: its option ${option} no longer has rules`);
  return compile(readRules(source), source);
}
