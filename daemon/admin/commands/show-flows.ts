import { suggestion } from '../../../conf/suggest.js';
import { UsageError } from '../../base/command-errors.js';
import { FLOW_FILTER_HELP, matchesFlow, parseFlowFilter, protocolName } from '../../views/flow-filter.js';
import type { AdminSource, Endpoint, FlowFilter, FlowRow } from '../../views/source.js';
import { type Column, table } from '../answer.js';
import type { Command } from '../command.js';

const COLUMNS: readonly Column<FlowRow>[] = [
  { title: 'OBJECT', cell: (flow) => flow.object },
  { title: 'PROTO', cell: (flow) => protocolName(flow.protocol) },
  { title: 'INSIDE', cell: (flow) => endpoint(flow.inside) },
  { title: 'EXTERNAL', cell: (flow) => endpoint(flow.external) },
  { title: 'REMOTE', cell: (flow) => endpoint(flow.remote) },
  { title: 'STATE', cell: (flow) => flow.state },
  { title: 'EXPIRES S', cell: (flow) => flow.expires_s, right: true },
];

function endpoint(end: Endpoint | null): string | null {
  if (end === null) return null;
  return end.address.includes(':') ? `[${end.address}]:${end.port}` : `${end.address}:${end.port}`;
}

/** Number of skipped rows after which a pause is made, even if the source makes none. */
const SKIPPED_MAX = 512;

function* matching(source: AdminSource, filter: FlowFilter): Generator<FlowRow | null> {
  let left = filter.limit;
  let skipped = 0;
  if (left === 0) return;
  for (const flow of source.flows(filter)) {
    if (flow !== null && matchesFlow(filter, flow)) {
      yield flow;
      if (--left === 0) return;
    } else if (flow === null || ++skipped % SKIPPED_MAX === 0) {
      yield null;
    }
  }
}

async function checkObject(source: AdminSource, name: string): Promise<void> {
  const names = (await source.objects()).map((object) => object.name);
  if (names.includes(name)) return;
  throw new UsageError(
    `object=${name}: there is no such object${suggestion(name, names) || `; known: ${names.join(', ')}`}`,
  );
}

export const showFlows: Command = {
  name: 'show flows',
  usage: '[TERM=VALUE …]',
  summary: 'The flows that are held, all or those for which every term given holds.',
  details: FLOW_FILTER_HELP,
  async run({ source, words }) {
    const filter = parseFlowFilter(words);
    if (filter.object !== null) await checkObject(source, filter.object);
    return table(COLUMNS, matching(source, filter));
  },
};
