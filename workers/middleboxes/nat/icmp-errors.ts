/**
 * Translation of ICMP errors and the packets they quote, so that path MTU discovery and traceroute
 * work through the NAT.
 *
 * An error goes to the sender of the quoted packet. The quoted packet is rewritten to what that
 * sender sent (RFC 5508 REQ-4, REQ-5). Bindings stay as they are (REQ-6). An error about a
 * hairpinned packet is hairpinned too (REQ-7). An error with a wrong checksum is dropped (REQ-3).
 * The quoted packet's own checksums are not checked.
 */

import {
  type Batch,
  destinationPort,
  Protocol,
  Quoted,
  rewriteDestination,
  rewriteSource,
  sourcePort,
} from '../../api/api.js';
import type { COUNTERS } from './declaration.js';
import type { NatEarlyReplies } from './early.js';
import type { Endpoints } from './endpoints.js';
import type { Filter } from './filter.js';

interface ErrorParts {
  readonly batch: Batch;
  readonly inside: number;
  readonly outside: number;
  readonly endpoints: Endpoints;
  /** `null`: no filtering by remote. */
  readonly filter: Filter | null;
  readonly early: NatEarlyReplies;
  readonly counters: { readonly [Name in keyof typeof COUNTERS]: number };
}

/** Returns a function that translates ICMP error `i`, or drops it. Made once per worker. */
export function createErrorTranslator(parts: ErrorParts): (i: number, now: number) => void {
  const { batch, inside, outside, endpoints, filter, early, counters } = parts;
  const { port: ingress, destination } = batch;
  /** The packet that the current error quotes. */
  const quoted = new Quoted();
  /** Destination of the quoted packet, and its source port, as the outside sees them. */
  let remote = 0;
  let remotePort = 0;
  let ownPort = 0;

  function translate(i: number, now: number): void {
    const isFromInside = ingress[i] === inside;
    if (!quoted.find(batch, i)) return batch.drop(i, counters.icmp_error);
    if (!quoted.isSound) return batch.drop(i, counters.icmp_checksum);
    remote = quoted.destination;
    remotePort = destinationPort(quoted.ports);
    ownPort = sourcePort(quoted.ports);
    if (isFromInside && !findOutside(now)) return batch.drop(i, counters.icmp_error);
    if (isFromInside && !endpoints.isExternal(quoted.source)) {
      showOutside(i);
      batch.forward(i, outside);
      batch.count1(counters.outbound);
      return;
    }
    // The error comes from outside, or is about a hairpinned packet.
    const isKnown =
      quoted.source === destination[i] &&
      endpoints.toInside(quoted.source, ownPort, quoted.protocol, now) &&
      isPermitted(now);
    if (!isKnown) {
      if (!early.errorWaits(i, quoted, ownPort, remote, remotePort, now)) batch.drop(i, counters.icmp_error);
      return;
    }
    if (isFromInside) showOutside(i);
    quoted.rewriteSource(endpoints.address, endpoints.port);
    rewriteDestination(batch, i, endpoints.address, 0);
    batch.forward(i, inside);
    batch.count1(isFromInside ? counters.hairpinned : counters.inbound);
  }

  /** Returns true if the quoted packet can have been sent: if it has a session, or needs none. */
  function isPermitted(now: number): boolean {
    if (filter === null || endpoints.isMapped) return true;
    const { slot, address, port } = endpoints;
    return filter.permits(slot, address, port, quoted.protocol, remote, remotePort, now);
  }

  /**
   * The quoted packet was sent to an inside endpoint. Finds the external endpoint. False: there is
   * none. Nothing is rewritten yet, because an error that waits must stay as it came.
   */
  function findOutside(now: number): boolean {
    if (!endpoints.toOutside(quoted.destination, destinationPort(quoted.ports), quoted.protocol, now)) return false;
    remote = endpoints.address;
    remotePort = endpoints.port;
    // A query has one identifier for both ends.
    if (quoted.protocol === Protocol.ICMP) ownPort = remotePort;
    return true;
  }

  /** Rewrites error `i` from inside to the form that the outside sees. */
  function showOutside(i: number): void {
    quoted.rewriteDestination(remote, remotePort);
    rewriteSource(batch, i, remote, 0);
  }

  return translate;
}
