import { FailedError, printable, UsageError } from '../../base/command-errors.js';
import type { AdminSource, ViewRow } from '../../views/source.js';
import { type Column, lines, table } from '../answer.js';
import { type Command, expectNoWords } from '../command.js';

const LOOK_MS = 50;
/**
 * A worker looks for orders ten times a second. A worker that is busy or restarting takes longer.
 */
const WAIT_MS = 5_000;

const COLUMNS: readonly Column<ViewRow>[] = [
  { title: 'BLOCKED', cell: (row) => String(row['blocked']) },
  { title: 'STATE', cell: (row) => String(row['state']) },
  { title: 'EXPIRES S', cell: (row) => Number(row['expires_s']), right: true },
  { title: 'SIGNATURE', cell: (row) => String(row['signature']) },
];

export const showBlocks: Command = {
  name: 'show blocks',
  usage: '',
  summary: 'Sources and ports that are blocked, at all sites, and until when.',
  details: [
    'STATE   blocked; dry: only an alert, in a dry run; lifted: by unblock, and not blocked again before it expires',
  ],
  async run(call) {
    expectNoWords(call, showBlocks.name);
    return table(COLUMNS, await call.source.view('blocks'));
  },
};

export const unblock: Command = {
  name: 'unblock',
  usage: 'ADDRESS [vlan ID[.ID]] | PORT/tcp | PORT/udp',
  summary: 'Lift a block, at all sites, until it would have expired.',
  details: ['What is blocked is named as show blocks has it.'],
  async run({ source, words }) {
    const isSource = words.length === 3 && words[1] === 'vlan';
    if (words.length !== 1 && !isSource)
      throw new UsageError('unblock takes one address or port, and an address a VLAN');
    const what = words.join(' ');
    if ((await stateOf(source, what)) === null) throw new FailedError(`${printable(what)} is not blocked`);
    await source.order('unblock', what);
    for (const end = Date.now() + WAIT_MS; Date.now() < end; ) {
      const state = await stateOf(source, what);
      if (state === null || state === 'lifted') return lines([`${printable(what)} is not blocked any more`]);
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
    throw new FailedError(`${printable(what)} is still blocked: no worker has taken the order yet`);
  },
};

async function stateOf(source: AdminSource, what: string): Promise<string | null> {
  const row = (await source.view('blocks')).find(({ blocked }) => blocked === what);
  return row === undefined ? null : String(row['state']);
}
