import { StateExit } from '../../lifecycle.js';
import { record } from '../answer.js';
import { type Command, expectNoWords } from '../command.js';

export const join: Command = {
  name: 'join',
  usage: '[alone]',
  summary: 'Wait until this instance has joined and takes packets.',
  details: [
    `Its exit code is that of status: ${StateExit.READY} ready, ${StateExit.DEGRADED} degraded, ${StateExit.NOT_READY} going to stop.`,
    'An instance joins by itself when it starts; status says how far it is. One that does not listen yet is waited for (-t).',
    'alone  begin without the state of members that are not heard, or whose messages are refused. Where one is heard that has',
    '       state, that is taken all the same. What others have, and did not share, stays apart from what is made here.',
  ],
  async run(call) {
    const alone = call.words[0] === 'alone';
    expectNoWords(alone ? { ...call, words: call.words.slice(1) } : call, join.name);
    const joined = await call.source.join(alone);
    return record(joined, joined.state);
  },
};
