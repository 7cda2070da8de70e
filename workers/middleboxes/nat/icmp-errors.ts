/**
 * ICMP errors: translated with the packet they quote, so that path MTU discovery and traceroute
 * work through the NAT.
 *
 * An error passes to whom the packet it is about came from, that packet as the receiver knows it
 * (RFC 5508 REQ-4, REQ-5), and leaves bindings as they are (REQ-6). One about a packet that was
 * turned round is turned round too (REQ-7). One whose checksum is wrong is dropped (REQ-3); the
 * quoted packet's own checksums are not looked at.
 */

import {
  type Batch,
  destinationPort,
  Protocol,
  Quoted,
  rewriteDestination,
  rewriteSource,
  sourcePort,
} from '../../api.js';
import type { COUNTERS } from './declaration.js';
import type { NatEarlyReplies } from './early.js';
import type { Endpoints } from './endpoints.js';
import type { Filter } from './filter.js';

export interface ErrorParts {
  readonly batch: Batch;
  readonly inside: number;
  readonly outside: number;
  readonly endpoints: Endpoints;
  /** `null`: nobody asks for the remote. */
  readonly filter: Filter | null;
  readonly early: NatEarlyReplies;
  readonly counters: { readonly [Name in keyof typeof COUNTERS]: number };
}

/** Made once per worker: a function that translates ICMP error `i`, or drops it. */
export function createErrorTranslator(parts: ErrorParts): (i: number, now: number) => void {
  const { batch, inside, outside, endpoints, filter, early, counters } = parts;
  const { port: ingress, destination } = batch;
  /** What the error at hand is about. */
  const quoted = new Quoted();
  /** Where the quoted packet was sent to, and from which port, as the outside sees it. */
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
    // From outside, or about a packet that was turned round.
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

  /**
   * Whether the packet that it is about can have been sent: there is a session, where there are
   * sessions.
   */
  function isPermitted(now: number): boolean {
    if (filter === null || endpoints.isMapped) return true;
    const { slot, address, port } = endpoints;
    return filter.permits(slot, address, port, quoted.protocol, remote, remotePort, now);
  }

  /**
   * The packet it is about was sent to an endpoint of ours: finds where that is for the outside.
   * False if it is nowhere. Nothing is rewritten yet, as an error that waits must be as it came.
   */
  function findOutside(now: number): boolean {
    if (!endpoints.toOutside(quoted.destination, destinationPort(quoted.ports), quoted.protocol, now)) return false;
    remote = endpoints.address;
    remotePort = endpoints.port;
    // A query has one identifier for both.
    if (quoted.protocol === Protocol.ICMP) ownPort = remotePort;
    return true;
  }

  /** Error `i` from inside is as the outside sees it. */
  function showOutside(i: number): void {
    quoted.rewriteDestination(remote, remotePort);
    rewriteSource(batch, i, remote, 0);
  }

  return translate;
}
