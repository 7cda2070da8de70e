/**
 * What `status` says of packets adds up: each counter of a driver is in the total that it belongs
 * to.
 */

import { strict as assert } from 'node:assert';
import { packetTotals } from '../../../daemon/watch/packet-totals.js';
import { MetricCatalogue, Metrics } from '../../../shm/metrics.js';
import { AF_XDP_METRICS } from '../../../workers/drivers/af-xdp-metrics.js';
import { trafficMetrics } from '../../../workers/plane/traffic.js';

/** What happened to a frame, by the counter that a worker raises for it. */
const FATES = {
  missed: ['xdp_no_socket', 'xdp_rx_dropped', 'xdp_rx_jumbo', 'xdp_rx_ring_full'],
  dropped: ['route_ttl', 'port0_tx_unusable', 'port1_tx_unusable'],
  unsent: ['xdp_tx_ring_full', 'xdp_tx_closed', 'xdp_tx_invalid'],
  neither: ['xdp_fill_ring_empty', 'xdp_kick_errors'],
} as const;

describe('totals of packets', () => {
  it('in = out + dropped: what was not received, or handed over and not sent, has its own total', () => {
    const route = { name: 'route_ttl', help: 'dropped: the time to live ends here', kind: 'counter' } as const;
    const catalogue = new MetricCatalogue([...trafficMetrics(2), ...AF_XDP_METRICS, route]);
    const metrics = new Metrics(catalogue, new SharedArrayBuffer(catalogue.bytes(2)), 2);
    const count = (name: string, by: number, thread = 0): void => {
      metrics.row(thread)[catalogue.column(name)] += by;
    };
    const expected = { rx_packets: 0, tx_packets: 0, dropped_packets: 0, rx_missed_packets: 0, tx_unsent_packets: 0 };
    const known = Object.values(FATES).flat() as string[];
    for (const { name } of AF_XDP_METRICS) assert.ok(known.includes(name), `${name}: what becomes of these frames?`);
    for (const [n, name] of known.entries()) {
      const by = 2 ** n;
      count(name, by, n % 2);
      const is = (fate: keyof typeof FATES): boolean => (FATES[fate] as readonly string[]).includes(name);
      if (is('missed')) expected.rx_missed_packets += by;
      if (is('dropped')) {
        count('port0_rx_packets', by);
        expected.rx_packets += by;
        expected.dropped_packets += by;
      }
      if (is('unsent')) {
        count('port1_rx_packets', by);
        count('port0_tx_packets', by);
        expected.rx_packets += by;
        expected.tx_packets += by;
        expected.tx_unsent_packets += by;
      }
    }
    const totals = packetTotals(metrics, 2);
    assert.deepEqual(totals, expected);
    assert.equal(totals.rx_packets, totals.tx_packets + totals.dropped_packets);
  });
});
