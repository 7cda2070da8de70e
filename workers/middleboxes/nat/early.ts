/**
 * Early replies: packets from outside that arrive before the record of their binding or session.
 * They wait for the record from the site where the request left (`early` of the framework).
 *
 * | packet from outside                                  | waits if                                       |
 * | ---------------------------------------------------- | ---------------------------------------------- |
 * | SYN-ACK, RST with ACK, UDP, reply to an ICMP query   | its external port is unbound here, and another |
 * |                                                      | member may have bound it; or it has no session |
 * | ICMP error about a packet from such an external port | likewise                                       |
 *
 * Other members bind ports of their leases. They bind any port if there are no leases, or theirs
 * are used up. A packet from one inside host to another (hairpinning) waits under the same
 * conditions.
 */

import {
  type Batch,
  destinationPort,
  type EarlyReplies,
  IcmpType,
  type NatBinding,
  NONE,
  Protocol,
  type Quoted,
  sourcePort,
  TcpFlag,
} from '../../api/api.js';
import type { Filter } from './filter.js';

const { TCP, UDP } = Protocol;
const { ACK, FIN, RST, SYN } = TcpFlag;
/** Key: the external place. With sessions, also the remote's address and port, and the protocol. */
const KEY_WORDS = 4;

export interface NatEarlyReplies {
  /** Packet `i` from outside goes to a port that is not bound here. Returns true if it waits. */
  waits(i: number, now: number): boolean;
  /**
   * Packet `i` goes to a bound port, from this remote as the outside sees it. Returns true if it
   * waits for its session.
   */
  waitsForSession(i: number, remote: number, remotePort: number): boolean;
  /**
   * Packet `i` from inside has this source as the outside sees it. Returns true if it waits for the
   * binding of the inside host that it goes to.
   */
  waitsWithin(i: number, address: number, port: number, now: number): boolean;
  /**
   * ICMP error `i` quotes a packet of the NAT from this port to this remote, as the outside sees
   * them. Returns true if the error waits.
   */
  errorWaits(i: number, quoted: Quoted, port: number, remote: number, remotePort: number, now: number): boolean;
}

interface EarlyParts {
  readonly batch: Batch;
  readonly early: EarlyReplies;
  readonly bindings: NatBinding;
  /** `null`: no filtering by remote. */
  filter(): Filter | null;
}

/** Made once per worker. */
export function createNatEarlyReplies({ batch, early, bindings, filter }: EarlyParts): NatEarlyReplies {
  const { protocol, flags, source, destination, ports } = batch;
  const { isHeard } = early;
  const expected = early.expect(KEY_WORDS, isKnown);
  const { key } = expected;

  function isKnown(words: Int32Array, at: number, now: number): boolean {
    const slot = bindings.findInbound(words[at], now);
    if (slot === NONE) return false;
    const sessions = filter();
    if (sessions === null) return true;
    const address = bindings.internalAddress(slot);
    const port = bindings.internalPort(slot);
    return sessions.permits(slot, address, port, words[at + 3], words[at + 1], words[at + 2], now);
  }

  /** Returns true if packet `i` can be the first reply to a request. */
  function isReply(i: number): boolean {
    const carried = protocol[i];
    if (carried === UDP) return true;
    if (carried !== TCP) return flags[i] === IcmpType.ECHO_REPLY || flags[i] === IcmpType.TIMESTAMP_REPLY;
    const shown = flags[i] & (SYN | ACK | FIN | RST);
    return shown === (SYN | ACK) || shown === (RST | ACK);
  }

  function waitFor(i: number, place: number, remote: number, remotePort: number, carried: number): boolean {
    key[0] = place;
    key[1] = remote;
    key[2] = remotePort;
    key[3] = carried;
    return expected.wait(i);
  }

  function isElsewhere(place: number, now: number): boolean {
    return place !== NONE && bindings.leases.mayBeBoundElsewhere(place, now, isHeard);
  }

  function placeOf(i: number): number {
    return bindings.place(destination[i], destinationPort(ports[i]), protocol[i]);
  }

  function waits(i: number, now: number): boolean {
    if (!isReply(i) || !expected.mayWait(i)) return false;
    const place = placeOf(i);
    return isElsewhere(place, now) && waitFor(i, place, source[i], sourcePort(ports[i]), protocol[i]);
  }

  return {
    waits,
    waitsForSession: (i, remote, remotePort) =>
      isReply(i) && expected.mayWait(i) && waitFor(i, placeOf(i), remote, remotePort, protocol[i]),
    waitsWithin(i, address, port, now) {
      if (!isReply(i) || !expected.mayWait(i)) return false;
      const place = placeOf(i);
      return isElsewhere(place, now) && waitFor(i, place, address, port, protocol[i]);
    },
    errorWaits(i, quoted, port, remote, remotePort, now) {
      if (quoted.source !== destination[i] || !expected.mayWait(i)) return false;
      const carried = quoted.protocol;
      const place = bindings.place(quoted.source, port, carried);
      if (place === NONE) return false;
      const isBound = bindings.findInbound(place, now) !== NONE;
      if (!isBound && !isElsewhere(place, now)) return false;
      return waitFor(i, place, remote, remotePort, carried);
    },
  };
}
