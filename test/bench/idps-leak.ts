/**
 * How much passes one site after another has blocked its source. A flood of a port passes site a,
 * and datagrams to the same port pass site b at a steady rate; packets take 5 ms between the sites.
 * Counted is what arrived through b after the last arrival through a, by the receiver's clock.
 * Needs root.
 *
 * The baselines are computed from the same rate. `limit` is the design's bound: the rate times (one
 * way + 1 ms). The other is a central IDPS, which sees a copy of b's packets after one way and
 * whose block takes effect after another.
 */

import { fileURLToPath } from 'node:url';
import { Testbed } from '../testbed/testbed.js';
import { SITES, startWireSite, twoWires } from '../testbed/two-wires.js';
import type { Bench } from './result.js';
import { median } from './result.js';

const DELAY_MS = 5;
const PACED = fileURLToPath(new URL('../testbed/udp-paced.js', import.meta.url));
const THROUGH_A = '198.51.100.1';
const THROUGH_B = '198.51.100.129';
const RATE = 4000;
const ROUNDS = 5;

export const run: Bench = async () => {
  const testbed = await Testbed.build(twoWires(DELAY_MS));
  try {
    await Promise.all(SITES.map((site) => startWireSite(testbed, site, { port_flood_mbit: 4 })));
    const leaked: number[] = [];
    const rates: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const port = 5000 + round;
      const receiver = testbed.start('hosts', `receiver-${round}`, [
        process.execPath,
        PACED,
        'receive',
        String(port),
        THROUGH_A,
        THROUGH_B,
      ]);
      await receiver.waitFor(/^ready$/m);
      const streams = [`${THROUGH_A}:${RATE}:1000`, `${THROUGH_B}:${RATE}:20`];
      await testbed.run('outside', [process.execPath, PACED, 'send', String(port), '1.5', ...streams]);
      receiver.write('\n');
      const line = await receiver.until(() => /^\{.*\}$/m.exec(receiver.output)?.[0] ?? null, 'its figures', 10_000);
      const came = JSON.parse(line) as Record<string, number[]>;
      const [a, b] = [came[THROUGH_A], came[THROUGH_B]];
      const last = a[a.length - 1];
      leaked.push(b.filter((at) => at > last).length);
      rates.push((1000 * b.length) / (b[b.length - 1] - b[0]));
      await receiver.stop('SIGKILL');
    }
    const rate = median(rates);
    const value = median(leaked);
    const row = (name: string, baseline: number) => ({
      name: `idps_leak/${name}`,
      value,
      unit: 'packets',
      baseline,
      ratio: value === 0 ? null : baseline / value,
    });
    return [
      { name: 'idps_leak/rate', value: rate, unit: 'packets/s', baseline: null, ratio: null },
      { name: 'idps_leak/most', value: Math.max(...leaked), unit: 'packets', baseline: null, ratio: null },
      row('after a block, beside the limit', (rate * (DELAY_MS + 1)) / 1000),
      row('after a block, beside a central IDPS', (rate * 2 * DELAY_MS) / 1000),
    ];
  } finally {
    await testbed.down();
  }
};
