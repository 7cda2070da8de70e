import { record } from '../answer.js';
import { type Command, expectNoWords } from '../command.js';

export const status: Command = {
  name: 'status',
  usage: '',
  summary: 'This instance: what it is, whether it is running, how much it has forwarded.',
  async run(call) {
    expectNoWords(call, status.name);
    return record(await call.source.status());
  },
};
