import { FailedError, UsageError } from '../../base/command-errors.js';
import type { Reloaded } from '../../views/source.js';
import { report } from '../answer.js';
import type { Command } from '../command.js';

export const reload: Command = {
  name: 'reload',
  usage: '[check]',
  summary: 'Read the configuration again, and apply what can change while the instance runs.',
  details: [
    'The whole file is checked first. If anything in it is wrong, nothing changes, and each mistake is named with its place.',
    'Keys, rules and the file of records are read or opened again, too. What needs a restart stays as it is until then, and the',
    'answer says so. docs/settings.md says of every option how a change takes effect. The signal HUP does the same.',
    'check  only says what a reload would do',
  ],
  async run({ source, words }) {
    const isCheck = words[0] === 'check';
    if (words.length > (isCheck ? 1 : 0)) throw new UsageError('reload takes nothing, check, keys, rules or records');
    let done: Reloaded;
    try {
      done = await source.reload(isCheck);
    } catch (error) {
      throw new FailedError((error as Error).message);
    }
    return report(done, reloadedLines(done, isCheck));
  },
};

/** Returns what a reload did, as lines for people. */
export function reloadedLines({ applied, restart, unchanged }: Reloaded, isCheck: boolean): string[] {
  return [
    ...applied.map(({ option, from, to }) => `${isCheck ? 'would apply' : 'applied'}  ${option}: ${from} → ${to}`),
    ...restart.map(({ option, from, to, change, reason }) => {
      const where = change === 'all-sites' ? 'needs a restart of all sites' : 'needs a restart';
      return `${where}  ${option}: ${from} → ${to}${reason === '' ? '' : ` (${reason})`}`;
    }),
    `unchanged  ${unchanged} options`,
  ];
}
