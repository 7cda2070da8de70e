import { lines } from '../answer.js';
import { type Command, expectNoWords } from '../command.js';

export const shutdown: Command = {
  name: 'shutdown',
  usage: '',
  summary: 'Stop the instance in an orderly way. The answer comes before the end.',
  run(call) {
    expectNoWords(call, shutdown.name);
    call.source.shutdown();
    return lines([]);
  },
};
