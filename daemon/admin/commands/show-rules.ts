import { UsageError } from '../../base/command-errors.js';
import type { RuleRow } from '../../views/source.js';
import { type Column, table } from '../answer.js';
import type { Command } from '../command.js';

const COLUMNS: readonly Column<RuleRow>[] = [
  { title: 'MIDDLEBOX', cell: (row) => row.middlebox },
  { title: 'LINE', cell: (row) => row.line, right: true },
  { title: 'PACKETS', cell: (row) => row.packets, right: true },
  { title: 'BYTES', cell: (row) => row.bytes, right: true },
  { title: 'RULE', cell: (row) => row.text },
];

export const showRules: Command = {
  name: 'show rules',
  usage: '[TEXT] [hits]',
  summary: 'The rules of middleboxes, with the packets and bytes each applied to.',
  details: [
    'TEXT   rules alone that hold this text somewhere',
    'hits   rules alone that applied to some packet',
    'Counts go on over a reload for rules whose text stays. Packets of open connections meet no rule, and are not counted here.',
  ],
  async run({ source, words }) {
    if (words.length > 2) throw new UsageError('show rules takes a text and "hits"');
    const text = words.find((word) => word !== 'hits') ?? '';
    const rows = await source.rules();
    const found = rows.filter((row) => row.text.includes(text) && (!words.includes('hits') || row.packets > 0));
    return table(COLUMNS, found);
  },
};
