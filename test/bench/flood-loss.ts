/**
 * What early replies (workers/plane/early-replies.ts) cost established flows in a flood, on AF_XDP:
 * the loss of packets of 1000 flows through the NAT of one of two sites, while 100,000 unsolicited
 * packets per second arrive, each of which could be a first reply. The baseline is the same with
 * `early_replies: { wait: never }`. Needs root for the namespaces.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { EXTERNAL, SERVER, TwoSites } from '../testbed/two-sites.js';
import { compile } from './c-program.js';
import type { Bench } from './result.js';

const ESTABLISHED = { flows: 1000, bytes: 200, perSecond: 150_000 };
const FLOOD = { flows: 50_000, bytes: 60, perSecond: 100_000 };
const WAN_MS = 50;
/** Warm-up, until the optimiser has seen both kinds of packets and waiting ones. */
const WARM_UP_MS = 8000;
const IN_FLIGHT_MS = 300;
const ROUNDS = 3;

export const run: Bench = async ({ seconds }) => {
  const early: number[] = [];
  const off: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    early.push(await lost('auto', seconds));
    off.push(await lost('never', seconds));
  }
  const mean = (shares: readonly number[]): number => shares.reduce((sum, share) => sum + share, 0) / shares.length;
  const [value, baseline] = [mean(early), mean(off)];
  return [
    {
      name: 'flood_loss/nat, established packets lost',
      value,
      unit: '%',
      baseline,
      ratio: value === 0 ? null : baseline / value,
    },
  ];
};

/** Percentage of the established flows' packets that are lost. */
async function lost(wait: 'auto' | 'never', seconds: number): Promise<number> {
  const sites = await TwoSites.build({
    routing: 'by-a',
    wan: { delay_ms: WAN_MS },
    nat: { flows: 1 << 16 },
    early_replies: { wait },
    log: { level: 'warn' },
  });
  try {
    await sites.start();
    const { testbed } = sites;
    const generator = await compile('generator', testbed.folder);
    const packets = async (node: string, what: string): Promise<number> =>
      Number((await testbed.run(node, ['cat', `/sys/class/net/a/statistics/${what}`])).stdout);
    const send = async (node: string, side: string, from: string, to: string, rate: typeof FLOOD, more: string[]) => {
      const mac = testbed.mac('site-a', side);
      const counts = [rate.flows, rate.bytes, rate.perSecond].map(String);
      const program = testbed.start(node, 'generator', [generator, 'a', mac, from, to, ...counts, ...more]);
      await program.waitFor(/^ready$/m);
      return program;
    };
    const flood = await send('server', 'outside', '192.0.2.1', EXTERNAL, FLOOD, ['spread']);
    const established = async (ms: number): Promise<number> => {
      const [sent, arrived] = [await packets('client', 'tx_packets'), await packets('server', 'rx_packets')];
      const flows = await send('client', 'inside', '10.1.0.1', SERVER, ESTABLISHED, []);
      await sleep(ms);
      await flows.stop('SIGTERM');
      await sleep(IN_FLIGHT_MS);
      const came = (await packets('server', 'rx_packets')) - arrived;
      return 100 * (1 - came / ((await packets('client', 'tx_packets')) - sent));
    };
    await established(WARM_UP_MS);
    const share = await established(1000 * seconds);
    await flood.stop('SIGTERM');
    return share;
  } finally {
    await sites.down();
  }
}
