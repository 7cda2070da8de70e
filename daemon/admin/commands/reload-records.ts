import { FailedError } from '../../base/command-errors.js';
import { record } from '../answer.js';
import { type Command, expectNoWords } from '../command.js';

export const reloadRecords: Command = {
  name: 'reload records',
  usage: '',
  summary: 'Reopen the file of records by its name, for example after logrotate has moved it.',
  details: ['The signal HUP does the same.'],
  async run(call) {
    expectNoWords(call, reloadRecords.name);
    try {
      return record(await call.source.reopenRecords());
    } catch (error) {
      throw new FailedError((error as Error).message);
    }
  },
};
