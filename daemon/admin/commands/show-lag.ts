import type { LagRow } from '../../views/source.js';
import { type Column, table } from '../answer.js';
import { type Command, expectNoWords } from '../command.js';

const COLUMNS: readonly Column<LagRow>[] = [
  { title: 'OBJECT', cell: (lag) => lag.object },
  { title: 'ORIGIN', cell: (lag) => lag.origin },
  { title: 'MEMBER', cell: (lag) => lag.member },
  { title: 'LACKS', cell: (lag) => lag.missing_records, right: true },
  { title: 'LAG MS', cell: (lag) => lag.lag_ms.toFixed(0), right: true },
  { title: 'ERROR BOUND', cell: (lag) => lag.error_bound, right: true },
];

export const showLag: Command = {
  name: 'show lag',
  usage: '',
  summary: 'How far behind: what this member lacks of each other’s records, and each other of its.',
  details: [
    'LACKS        records of ORIGIN that are known of here and that MEMBER does not have, as far as this member knows',
    'LAG MS       since it last lacked none, to a tenth of a second',
    'ERROR BOUND  of objects that count: by how much what MEMBER reads may be below what was counted here',
  ],
  async run(call) {
    expectNoWords(call, showLag.name);
    return table(COLUMNS, await call.source.lag());
  },
};
