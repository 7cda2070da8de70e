/**
 * Packets of an instance in all. What a counter is about is how its help begins:
 *
 *     missed:    frames that no worker received; not among `rx_packets`
 *     dropped:   received, and not handed to the driver; so rx = tx + dropped, but for what ARCHITECTURE.md (M10) lists
 *     unsent:    handed to the driver, which could not send them; among `tx_packets`
 */

import type { Metrics } from '../shm/metrics.js';

export interface PacketTotals {
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
