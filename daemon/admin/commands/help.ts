import { printable, UsageError } from '../../base/command-errors.js';
import { type Answer, lines } from '../answer.js';
import type { Call, Command } from '../command.js';
import { PROTOCOL_HELP } from '../protocol.js';

export const help = {
  name: 'help',
  usage: '[COMMAND]',
  summary: 'All commands, or more about one.',
  run({ words, commands }: Pick<Call, 'words' | 'commands'>): Answer {
    if (words.length === 0) return lines([...list(commands), '', ...PROTOCOL_HELP]);
    const name = words.join(' ');
    const asked = commands.filter((command) => command.name === name || command.name.startsWith(`${name} `));
    if (asked.length === 0) throw new UsageError(`there is no command "${printable(name)}"; try help`);
    if (asked.length > 1) return lines(list(asked));
    return lines([...list(asked), ...(asked[0].details ?? [])]);
  },
} satisfies Command;

function list(commands: readonly Command[]): string[] {
  const forms = commands.map((command) => `${command.name} ${command.usage}`.trimEnd());
  const width = Math.max(...forms.map((form) => form.length));
  return commands.map((command, i) => `${forms[i].padEnd(width)}  ${command.summary}`);
}
