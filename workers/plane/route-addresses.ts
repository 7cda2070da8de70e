/**
 * Addresses that route mode must not accept as a host's: the ports' own addresses, as sources, and
 * the broadcast addresses of the ports' subnets, as sources and destinations (RFC 2644: directed
 * broadcasts are not forwarded).
 *
 * Secondary addresses count. A /31 or /32 has no broadcast address (RFC 3021). After the port board
 * changed, `refresh` reads the addresses again.
 */

import { NETWORKS_MAX, type PortBoardReader } from '../../shm/port-board.js';

/** Kinds of addresses. */
export const Known = { NOTHING: 0, OWN: 1, BROADCAST: 2 } as const;

const SPREAD = 0x9e3779b1;
const MARKS = 1024;
const SHIFT = 22;

interface RouteAddresses {
  /** Called once per batch. */
  refresh(): void;
  /** The kind of a raw IPv4 address. For most addresses it takes one load. */
  kindOf(address: number): number;
}

/** Made once per data plane: see the head of batch.ts. */
export function createRouteAddresses(facts: PortBoardReader): RouteAddresses {
  const { ports, address, hasAddress, networkCount, networks } = facts;
  const marks = new Uint8Array(MARKS);
  const addresses = new Int32Array(ports * (1 + 2 * NETWORKS_MAX));
  const kinds = new Uint8Array(addresses.length);
  let count = 0;
  let seen = -1;

  function refresh(): void {
    if (facts.changes === seen) return;
    seen = facts.changes;
    marks.fill(0);
    count = 0;
    for (let port = 0; port < ports; port++) {
      if (hasAddress[port] === 1) add(address[port], Known.OWN);
      for (let n = 0; n < networkCount[port]; n++) {
        const at = 3 * (port * NETWORKS_MAX + n);
        const [own, network, mask] = networks.subarray(at, at + 3);
        add(own, Known.OWN);
        if (hasBroadcast(mask)) add(network | ~mask, Known.BROADCAST);
      }
    }
  }

  function add(raw: number, kind: number): void {
    marks[Math.imul(raw, SPREAD) >>> SHIFT] = 1;
    addresses[count] = raw;
    kinds[count++] = kind;
  }

  function kindOf(raw: number): number {
    if (marks[Math.imul(raw, SPREAD) >>> SHIFT] === 0) return Known.NOTHING;
    for (let n = 0; n < count; n++) if (addresses[n] === raw) return kinds[n];
    return Known.NOTHING;
  }

  refresh();
  return { refresh, kindOf };
}

/**
 * Whether a raw mask leaves at least two bits for hosts. The last bits of the mask are in the top
 * byte of the raw word.
 */
function hasBroadcast(mask: number): boolean {
  return ((mask >>> 24) & 3) === 0;
}
