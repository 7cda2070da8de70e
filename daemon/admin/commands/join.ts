import { record } from '../answer.js';
import { type Command, expectNoWords, FailedError } from '../command.js';

export const join: Command = {
  name: 'join',
  usage: '',
  summary: 'Wait until this instance has joined and takes packets.',
  details: ['An instance joins by itself when it starts; status says how far it is.'],
  async run(call) {
    expectNoWords(call, join.name);
    const joined = await call.source.join();
    if (joined.state !== 'ready') throw new FailedError(`this instance is ${joined.state}: ${joined.reason}`);
    return record(joined);
  },
};
