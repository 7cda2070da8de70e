import { StateExit } from '../../lifecycle/lifecycle.js';
import { record } from '../answer.js';
import { type Command, expectNoWords } from '../command.js';

export const join: Command = {
  name: 'join',
  usage: '[alone | lossy]',
  summary: 'Wait until this instance has joined and takes packets.',
  details: [
    `Its exit code is that of status: ${StateExit.READY} ready, ${StateExit.DEGRADED} degraded, ${StateExit.NOT_READY} going to stop.`,
    'An instance joins by itself when it starts; status says how far it is. One that does not listen yet is waited for (-t).',
    'alone  begin without the state of members that are not heard, or whose messages are refused. Where one is heard that has',
    '       state, that is taken all the same. What others have, and did not share, stays apart from what is made here.',
    'lossy  take the state of a member or a file although some of it finds no room here: beyond a capacity that is smaller, or',
    '       of an external address that is not configured here. That much is lost at this instance, counted and logged.',
  ],
  async run(call) {
    const [how = ''] = call.words;
    const isKnown = how === 'alone' || how === 'lossy';
    expectNoWords(isKnown ? { ...call, words: call.words.slice(1) } : call, join.name);
    const joined = await call.source.join(isKnown ? how : null);
    return record(joined, joined.state);
  },
};
