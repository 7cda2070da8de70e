import { record } from '../answer.js';
import { type Command, expectNoWords } from '../command.js';
import { stateHelp } from '../state-help.js';

export const status: Command = {
  name: 'status',
  usage: '',
  summary: 'This instance: what it is, whether it is running, how much it has forwarded.',
  details: stateHelp(),
  async run(call) {
    expectNoWords(call, status.name);
    const row = await call.source.status();
    return record(row, row.state);
  },
};
