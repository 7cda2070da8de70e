import type { RejectRow } from '../../views/source.js';
import { type Column, table } from '../answer.js';
import { type Command, expectNoWords } from '../command.js';

const COLUMNS: readonly Column<RejectRow>[] = [
  { title: 'FROM', cell: (row) => row.address },
  { title: 'REFUSED', cell: (row) => row.refused, right: true },
  { title: 'INHERITED', cell: (row) => row.inherited, right: true },
  { title: 'LAST REASON', cell: (row) => row.reason },
  { title: 'S AGO', cell: (row) => (row.ms_ago / 1000).toFixed(1), right: true },
];

export const showRejects: Command = {
  name: 'show rejects',
  usage: '',
  summary: 'Addresses whose state messages were refused, the most first.',
  details: [
    'REFUSED      datagrams; show counters state_rejected_* lists them by reason, and explains the reasons',
    'INHERITED    at most this many of these may be from other addresses, because the table has a fixed size',
    'Source addresses are as the datagrams give them, and so may be forged.',
  ],
  async run(call) {
    expectNoWords(call, showRejects.name);
    return table(COLUMNS, await call.source.rejects());
  },
};
