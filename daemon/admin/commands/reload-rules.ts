import { FailedError } from '../../base/command-errors.js';
import type { RulesRow } from '../../views/source.js';
import { type Column, table } from '../answer.js';
import { type Command, expectNoWords } from '../command.js';

const COLUMNS: readonly Column<RulesRow>[] = [
  { title: 'MIDDLEBOX', cell: (row) => row.middlebox },
  { title: 'RULES', cell: (row) => row.rules },
  { title: 'FILE', cell: (row) => row.file ?? '(configuration)' },
  { title: 'ENTRIES', cell: (row) => row.entries, right: true },
  { title: 'VERSION', cell: (row) => row.version, right: true },
];

export const reloadRules: Command = {
  name: 'reload rules',
  usage: '',
  summary: 'Read the rules of middleboxes again, and put them in force if nothing is wrong with them.',
  details: [
    'Connections go on, and no packet waits. If any rule is wrong, all rules stay as they are, and every error is reported.',
    'Rules that are in the configuration itself are changed with it, by a restart. The signal HUP does the same as this command.',
  ],
  async run(call) {
    expectNoWords(call, reloadRules.name);
    try {
      return table(COLUMNS, await call.source.reloadRules());
    } catch (error) {
      throw new FailedError((error as Error).message);
    }
  },
};
