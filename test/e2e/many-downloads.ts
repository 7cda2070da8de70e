/** Many downloads at once, by clients of both sites. */

import { strict as assert } from 'node:assert';
import { scaled } from '../support/scale.js';
import { fetchAll, startServer } from '../testbed/http/fetch.js';
import { converged } from '../testbed/instance.js';
import { assertAllFetched, CLIENTS_OF_A, CLIENTS_OF_B, ORIGIN, withTwoSites } from './support.js';

export const DOWNLOADS = scaled(60, 200);
export const LOAD = { origins: [ORIGIN], bytes: 100_000, count: DOWNLOADS, concurrency: DOWNLOADS };

/** Each way of a connection passes either site; the ports are attached in this mode. */
export async function downloadByEither(mode: 'native' | 'generic'): Promise<void> {
  const options = { routing: 'spread', packet_io: { mode }, transport: { kind: 'unicast' } } as const;
  await withTwoSites({ ...options, wan: { delay_ms: 2 } }, async ({ testbed, a, b }) => {
    await startServer(testbed, 'server');
    const fetched = await fetchAll(testbed, 'client', { ...LOAD, sources: [...CLIENTS_OF_A, ...CLIENTS_OF_B] });
    assertAllFetched(fetched, DOWNLOADS);
    for (const site of [a, b]) {
      const counters = await site.counters();
      assert.ok(counters['nat_outbound'] > 0 && counters['nat_inbound'] > 0, `both ways passed site ${site.name}`);
    }
    assert.ok((await a.status()).ports.every((port) => port.includes(mode)));
    await converged([a, b]);
  });
}
