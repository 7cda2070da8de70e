/**
 * A task for a thread of its own: it compiles a text of rules. Main continues meanwhile. A
 * firewall's 10,000 rules take half a second.
 */

import type { CompiledRules, RulesText } from '../../workers/api/rules.js';
import { loadMiddlebox } from '../../workers/plane/load.js';

export interface CompileTask {
  /** Address of the module of the middlebox, because a function cannot be passed to a thread. */
  readonly module: string;
  /** Name of the option. */
  readonly option: string;
  readonly source: RulesText;
}

/** A task with its text. */
interface CompileWork extends CompileTask {
  readonly text: string;
}

export default async function compileRules({ module, option, source, text }: CompileWork): Promise<CompiledRules> {
  const { options, name } = await loadMiddlebox(module);
  const compile = options[option]?.compile;
  if (compile === undefined) throw new Error(`middlebox ${name}: its option ${option} no longer has rules`);
  return compile(text, source);
}
