/**
 * Which sources are plausible on a port. If no router is behind the port (no next hop), they are
 * the hosts of the subnets of all its IPv4 addresses. The current addresses are read from the port
 * board.
 *
 * Nothing is known of a port in these cases: it has a next hop; it has no address; it has as many
 * addresses as the board has room for, or more; or all its subnets have one or two addresses (/31,
 * /32), which say nothing about a link.
 */

import { NETWORKS_MAX, type PortBoardReader } from '../../shm/port-board.js';

export interface OnLink {
  /** Whether the subnets of a port are known. */
  knows(port: number): boolean;
  /** Whether a raw IPv4 address is in one of them. Only for a port that is known. */
  has(port: number, address: number): boolean;
}

/** `nextHops` is by port. `null`: its hosts are on the link. */
export function createOnLink(facts: PortBoardReader, nextHops: readonly unknown[]): OnLink {
  const { networkCount, networks } = facts;
  return {
    knows(port) {
      const count = networkCount[port];
      if (nextHops[port] !== null || count === 0 || count === NETWORKS_MAX) return false;
      for (let n = 0; n < count; n++) if (isLink(networks[3 * (port * NETWORKS_MAX + n) + 2])) return true;
      return false;
    },
    has(port, address) {
      for (let n = 0; n < networkCount[port]; n++) {
        const at = 3 * (port * NETWORKS_MAX + n);
        if ((address & networks[at + 2]) === networks[at + 1]) return true;
      }
      return false;
    },
  };
}

/** Whether a raw mask is that of a /30 or shorter. */
function isLink(mask: number): boolean {
  return ((mask >>> 24) & 3) === 0;
}
