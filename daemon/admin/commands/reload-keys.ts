import { FailedError } from '../../base/command-errors.js';
import { record } from '../answer.js';
import { type Command, expectNoWords } from '../command.js';

export const reloadKeys: Command = {
  name: 'reload keys',
  usage: '',
  summary: 'Read the key file again: seal with its first key, accept each in it.',
  details: [
    'To change the key, do each step at every member before the next: put the new key second; put it first; take the old',
    'one out. show peers shows which key each member seals with. The signal HUP does the same as this command.',
  ],
  async run(call) {
    expectNoWords(call, reloadKeys.name);
    try {
      return record(await call.source.reloadKeys());
    } catch (error) {
      throw new FailedError(`the keys stay as they are: ${(error as Error).message}`);
    }
  },
};
