import type { ObjectRow } from '../../views/source.js';
import { type Column, table } from '../answer.js';
import { type Command, expectNoWords } from '../command.js';

const COLUMNS: readonly Column<ObjectRow>[] = [
  { title: 'ID', cell: (object) => object.id, right: true },
  { title: 'OBJECT', cell: (object) => object.name },
  { title: 'DELIVERY', cell: (object) => object.delivery },
  { title: 'DIGEST', cell: (object) => object.digest },
  { title: 'RECORDS', cell: (object) => object.records, right: true },
  { title: 'UNACKED', cell: (object) => object.unacknowledged_records, right: true },
  { title: 'ERROR BOUND', cell: (object) => object.error_bound, right: true },
  { title: 'DIFFERS', cell: (object) => object.differs_from.join(',') },
  { title: 'FIGURES', cell: (object) => figures(object.figures) },
];

function figures(values: Readonly<Record<string, number>>): string {
  return Object.entries(values)
    .map(([name, value]) => `${name}=${value}`)
    .join(' ');
}

export const showObjects: Command = {
  name: 'show objects',
  usage: '',
  summary: 'The shared state objects: their content’s digest, their records, how full they are.',
  details: [
    'DIGEST   equal at two members that hold the same content',
    'ERROR BOUND  by how much what some other member reads of a count may be below what was counted here; see show lag',
    'DIFFERS  members that hold something else though they applied the same records, compared about once a minute',
    'RECORDS  operations of this member so far; UNACKED: those that some other member has not acknowledged',
  ],
  async run(call) {
    expectNoWords(call, showObjects.name);
    return table(COLUMNS, await call.source.objects());
  },
};
