/**
 * A middlebox for tests. It counts packets, and refuses packets to two ports as a firewall would.
 */

import {
  defineMiddlebox,
  destinationPort,
  Icmpv6Type,
  option,
  Protocol,
  rawPort,
  Unreachable,
} from '../../workers/api/api.js';

export const RESET_PORT = 81;
export const UNREACHABLE_PORT = 82;

export default defineMiddlebox({
  name: 'watcher',
  help: 'Counts, and refuses.',
  ipv6: true,
  options: { mode: option.choice('how it is to stand in the network', ['wire', 'route'], 'wire') },
  counters: {
    ipv4: 'IPv4 packets seen',
    ipv6: 'IPv6 packets seen',
    discovery: 'neighbour discovery seen',
    refused: 'packets that became a reset or an ICMP error',
  },
  state: () => ({}),
  open({ options, batch, counters, replies, mode, ipv6 }) {
    if (mode !== options.mode || !ipv6) throw new Error(`stands in mode ${mode}`);

    function isDiscovery(i: number): boolean {
      const type = batch.flags[i];
      return (
        batch.protocol[i] === Protocol.ICMPV6 && type >= Icmpv6Type.ROUTER_SOLICITATION && type <= Icmpv6Type.REDIRECT
      );
    }

    function refuse(i: number): boolean {
      const to = destinationPort(batch.ports[i]);
      if (to === rawPort(RESET_PORT)) return replies.reset(i);
      return to === rawPort(UNREACHABLE_PORT) && replies.unreachable(i, Unreachable.PORT);
    }

    return () => {
      for (let i = 0; i < batch.count; i++) {
        if (batch.skips(i)) continue;
        batch.count1(batch.version[i] === 6 ? counters.ipv6 : counters.ipv4);
        if (isDiscovery(i)) batch.count1(counters.discovery);
        if (refuse(i)) batch.count1(counters.refused);
      }
    };
  },
});
