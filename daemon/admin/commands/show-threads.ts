import type { ThreadRow } from '../../views/source.js';
import { type Column, table } from '../answer.js';
import { type Command, expectNoWords } from '../command.js';

const COLUMNS: readonly Column<ThreadRow>[] = [
  { title: 'SLOT', cell: (thread) => thread.slot, right: true },
  { title: 'THREAD', cell: (thread) => thread.name },
  { title: 'STATE', cell: (thread) => thread.state },
  { title: 'CORE', cell: (thread) => thread.core, right: true },
  { title: 'TID', cell: (thread) => thread.tid, right: true },
  { title: 'RESTARTS', cell: (thread) => thread.restarts, right: true },
  { title: 'HEARTBEAT', cell: (thread) => thread.heartbeat, right: true },
];

export const showThreads: Command = {
  name: 'show threads',
  usage: '',
  summary: 'The threads: where they run, how they are, how often they had to be started again.',
  details: ['HEARTBEAT  rounds so far; a thread is alive while this changes'],
  async run(call) {
    expectNoWords(call, showThreads.name);
    return table(COLUMNS, await call.source.threads());
  },
};
