/**
 * The packet totals of an instance. The first word of a counter's help assigns it to a total:
 *
 *     missed:    frames that no worker received; not included in `rx_packets`
 *     dropped:   received and not passed to the driver; so rx = tx + dropped, with the exceptions in ARCHITECTURE.md (M10)
 *     unsent:    passed to a driver that could not send them; included in `tx_packets`
 */

import type { Metrics } from '../../shm/metrics.js';

interface PacketTotals {
  readonly rx_packets: number;
  readonly tx_packets: number;
  readonly dropped_packets: number;
  readonly rx_missed_packets: number;
  readonly tx_unsent_packets: number;
}

export function packetTotals(metrics: Metrics, ports: number): PacketTotals {
  const ofPorts = (what: string): number => {
    let total = 0;
    for (let port = 0; port < ports; port++) total += metrics.total(`port${port}_${what}`);
    return total;
  };
  const about = (beginning: string): number => {
    let total = 0;
    for (const { name, help } of metrics.catalogue.metrics)
      if (help.startsWith(beginning)) total += metrics.total(name);
    return total;
  };
  return {
    rx_packets: ofPorts('rx_packets'),
    tx_packets: ofPorts('tx_packets'),
    dropped_packets: about('dropped:'),
    rx_missed_packets: about('missed:'),
    tx_unsent_packets: about('unsent:'),
  };
}
