import { FailedError, printable, UsageError } from '../../base/command-errors.js';
import { record } from '../answer.js';
import type { Command } from '../command.js';

export const restart: Command = {
  name: 'restart',
  usage: 'THREAD',
  summary: 'End one thread and start it again; its state is in shared memory and stays.',
  details: [
    'THREAD is a name or a slot of show threads. What the thread had under way is finished or undone first.',
    'The packets in its hands are lost, and those that come until it is back.',
  ],
  async run(call) {
    const [word, ...rest] = call.words;
    if (word === undefined || rest.length > 0) throw new UsageError('restart needs one thread; see show threads');
    const threads = await call.source.threads();
    const thread = threads.find((row) => row.name === word || String(row.slot) === word);
    if (thread === undefined) {
      const names = threads.map((row) => row.name).join(', ');
      throw new FailedError(`there is no thread ${printable(word)}; there are ${names}`);
    }
    await call.source.restart(thread.slot);
    return record({ restarted: thread.name });
  },
};
