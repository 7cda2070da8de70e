import { FailedError } from '../../base/command-errors.js';
import { record } from '../answer.js';
import { type Command, expectNoWords } from '../command.js';

export const save: Command = {
  name: 'save',
  usage: '',
  summary: 'Write the state to state.file, from which the next start goes on if no member with state is heard.',
  details: [
    'An orderly stop does so by itself. Packets stand still for about as long as for a snapshot to a member. What happens',
    'after this command is not in the file, and is lost if no member has it.',
  ],
  async run(call) {
    expectNoWords(call, save.name);
    try {
      const { file, bytes, saved_ms } = await call.source.save();
      return record({ file, bytes, saved: new Date(saved_ms).toISOString() });
    } catch (error) {
      throw new FailedError(`the state is not saved: ${(error as Error).message}`);
    }
  },
};
