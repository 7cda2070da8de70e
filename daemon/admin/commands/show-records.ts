import { printable, UsageError } from '../../base/command-errors.js';
import type { RecordRow } from '../../views/source.js';
import { type Column, table } from '../answer.js';
import type { Call, Command } from '../command.js';

const LIMIT = 100;

const RECORDS: readonly Column<RecordRow>[] = [
  { title: 'TIME', cell: (row) => row.timestamp },
  { title: 'TYPE', cell: (row) => row.event_type },
  { title: 'RECORD', cell: ({ timestamp: _time, event_type: _type, site: _site, ...said }) => JSON.stringify(said) },
];

export const showRecords: Command = {
  name: 'show records',
  usage: '[TYPE] [limit=N]',
  summary: 'The last records of middleboxes, as they are in the file of records; the newest last.',
  details: [
    `TYPE      of this event_type alone`,
    `limit=N   at most the last N; default ${LIMIT}; 0: all that are kept (records.keep of each type)`,
    'With -o json: the lines of the file.',
  ],
  async run(call) {
    return table(RECORDS, await last(call, null));
  },
};

const ALERTS: readonly Column<RecordRow>[] = [
  { title: 'TIME', cell: (row) => row.timestamp },
  { title: 'SITE', cell: (row) => row.site },
  { title: 'FROM', cell: (row) => endpoint(row['src_ip'], row['src_port']) },
  { title: 'TO', cell: (row) => endpoint(row['dest_ip'], row['dest_port']) },
  { title: 'PROTO', cell: (row) => text(row['proto']) },
  { title: 'SIGNATURE', cell: (row) => text(alertOf(row)['signature']) },
  { title: 'SEVERITY', cell: (row) => text(alertOf(row)['severity']), right: true },
  { title: 'ACTION', cell: (row) => text(alertOf(row)['action']) },
];

export const showAlerts: Command = {
  name: 'show alerts',
  usage: '[limit=N]',
  summary: 'The last alerts of this instance, the newest last.',
  details: [
    `limit=N   at most the last N; default ${LIMIT}; 0: all that are kept`,
    'With -o json: the lines of the file of records, with the names that EVE gives its fields.',
  ],
  async run(call) {
    return table(ALERTS, await last(call, 'alert'));
  },
};

async function last({ source, words }: Call, type: string | null): Promise<readonly RecordRow[]> {
  let limit = LIMIT;
  let wanted = type;
  for (const word of words) {
    const [, number] = /^limit=(\d{1,9})$/.exec(word) ?? [];
    if (number !== undefined) limit = Number(number);
    else if (wanted === null && !word.includes('=')) wanted = word;
    else throw new UsageError(`"${printable(word)}" is not expected here; limit=N is`);
  }
  const rows = await source.records(wanted);
  return limit === 0 ? rows : rows.slice(-limit);
}

function alertOf(row: RecordRow): Readonly<Record<string, unknown>> {
  const { alert } = row;
  return typeof alert === 'object' && alert !== null ? (alert as Readonly<Record<string, unknown>>) : {};
}

function endpoint(address: unknown, port: unknown): string {
  if (address === undefined) return '';
  if (port === undefined) return text(address);
  return text(address).includes(':') ? `[${text(address)}]:${text(port)}` : `${text(address)}:${text(port)}`;
}

function text(value: unknown): string {
  return value === undefined || value === null ? '' : String(value);
}
