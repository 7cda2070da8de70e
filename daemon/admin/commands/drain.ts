import { FailedError } from '../../base/command-errors.js';
import { counted } from '../../base/counted.js';
import { record } from '../answer.js';
import { type Command, expectNoWords } from '../command.js';

export const drain: Command = {
  name: 'drain',
  usage: '',
  summary: 'Take no new flows, and wait until every other member has everything.',
  details: [
    'Send traffic elsewhere first. Packets of known flows still pass. It ends when every member has acknowledged everything.',
  ],
  async run(call) {
    expectNoWords(call, drain.name);
    const drained = await call.source.drain();
    if (!drained.complete) {
      const unacknowledged = drained.unacknowledged_records;
      throw new FailedError(
        `some members do not have everything: ${counted(unacknowledged, 'record is', 'records are')} not acknowledged; see show peers`,
      );
    }
    return record(drained);
  },
};
