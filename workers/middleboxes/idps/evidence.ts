/**
 * What a packet says about who tries to reach whom.
 *
 * | packet                                    | evidence                                                              |
 * | ----------------------------------------- | --------------------------------------------------------------------- |
 * | TCP SYN                                   | its source tried its destination                                      |
 * | TCP SYN and ACK                           | its destination was answered                                          |
 * | TCP reset of a SYN (ACK, sequence 0)      | its destination was refused (RFC 9293 §3.5.2)                         |
 * | TCP reset of anything else (no ACK)       | likewise, where the port it comes from is the lower: a client that ends a connection sends one too |
 * | TCP without SYN, ACK and RST; SYN and FIN | tried and refused: no connection has such (nmap -sN, -sF, -sX)        |
 * | UDP to the lower port, or an equal one    | its source tried its destination                                      |
 * | UDP to the higher port, or an equal one   | its destination was answered                                          |
 * | ICMP echo, echo reply                     | tried, answered                                                       |
 * | ICMP unreachable                          | the source of what it quotes was refused                              |
 *
 * So servers of UDP, which send to whatever port they are asked from, also late, or from another of their addresses, tried nothing;
 * and who scans by UDP from a low port is not seen to.
 *
 * A packet of a TCP connection under way says nothing, and costs a look at its flags. Of a UDP flow one packet each way says all,
 * so what was seen lately is passed over, by a small table of this worker's own.
 */

import {
  type Batch,
  destinationPort,
  Fragment,
  IcmpType,
  Icmpv6Type,
  Protocol,
  portNumber,
  Quoted,
  sourcePort,
  TcpFlag,
} from '../../api.js';
import { DESTINATION, type Ends, putIpv4, SOURCE } from './ends.js';
import { ANSWERED, ATTEMPTED, REFUSED, type ScanDetector } from './scan.js';

const { FIN, SYN, RST, ACK } = TcpFlag;
const { ICMP, TCP, UDP, ICMPV6 } = Protocol;
const SEQUENCE = 4;
/** Ports that traceroute sends to, one for each packet. */
const TRACEROUTE_FIRST = 33_434;
const TRACEROUTE_LAST = 33_689;
/** UDP flows, either way, that were seen lately: half a megabyte. */
const SEEN = 1 << 17;
const SEEN_S_SHIFT = 4;

/** A function that takes the evidence of packet `i`, whose ends are loaded. */
export function createEvidence(batch: Batch, ends: Ends, scans: ScanDetector): (i: number, now: number) => void {
  const { protocol, ports, flags, fragment, version, l4 } = batch;
  const { i32 } = batch.memory;
  const { words } = ends;
  const quoted = new Quoted();
  const key = new Int32Array(10);
  const quotedEnds = new Int32Array(8);
  const seen = new Int32Array(SEEN);
  // Of this worker alone: nobody outside can choose flows that hide each other.
  const factors = Int32Array.from({ length: 11 }, () => (Math.random() * 2 ** 32) | 1);

  function tcp(i: number, now: number): void {
    const said = flags[i] & (SYN | RST | ACK | FIN);
    if ((said & ACK) !== 0 && (said & (SYN | RST)) === 0) return;
    const pair = ports[i];
    const from = sourcePort(pair);
    const to = destinationPort(pair);
    if (said === SYN) scans.contact(ATTEMPTED, words, SOURCE, DESTINATION, to, TCP, pair, now);
    else if (said === (SYN | ACK)) scans.contact(ANSWERED, words, DESTINATION, SOURCE, from, TCP, pair, now);
    else if ((said & RST) !== 0 && (said & SYN) === 0) {
      const isOfSyn = (said & ACK) !== 0;
      if (isOfSyn ? i32[(l4[i] + SEQUENCE) >> 2] !== 0 : portNumber(from) >= portNumber(to)) return;
      if (!isOfSyn) scans.contact(ATTEMPTED, words, DESTINATION, SOURCE, from, TCP, pair, now);
      scans.contact(REFUSED, words, DESTINATION, SOURCE, from, TCP, pair, now);
    } else {
      scans.contact(ATTEMPTED, words, SOURCE, DESTINATION, to, TCP, pair, now);
      scans.contact(REFUSED, words, SOURCE, DESTINATION, to, TCP, pair, now);
    }
  }

  function udp(i: number, now: number): void {
    const pair = ports[i];
    if (wasSeen(pair, now)) return;
    const from = sourcePort(pair);
    const to = destinationPort(pair);
    if (isUdpAttempt(pair)) scans.contact(ATTEMPTED, words, SOURCE, DESTINATION, to, UDP, pair, now);
    if (portNumber(from) <= portNumber(to)) scans.contact(ANSWERED, words, DESTINATION, SOURCE, from, UDP, pair, now);
  }

  function isUdpAttempt(pair: number): boolean {
    const to = portNumber(destinationPort(pair));
    return portNumber(sourcePort(pair)) >= to && !(to >= TRACEROUTE_FIRST && to <= TRACEROUTE_LAST);
  }

  function wasSeen(pair: number, now: number): boolean {
    // Multiply-add with secret factors, that do not wait for each other.
    let mixed = Math.imul(pair, factors[8]) + Math.imul(now >> SEEN_S_SHIFT, factors[9]);
    for (let n = 0; n < 8; n++) mixed = (mixed + Math.imul(words[n], factors[n])) | 0;
    mixed = Math.imul(mixed ^ (mixed >>> 15), factors[10]);
    mixed ^= mixed >>> 16;
    const at = mixed & (SEEN - 1);
    if (seen[at] === mixed) return true;
    seen[at] = mixed;
    return false;
  }

  function icmp(i: number, now: number): void {
    const type = flags[i];
    const isV6 = version[i] === 6;
    const echo = isV6 ? Icmpv6Type.ECHO : IcmpType.ECHO;
    const reply = isV6 ? Icmpv6Type.ECHO_REPLY : IcmpType.ECHO_REPLY;
    if (type === echo) scans.contact(ATTEMPTED, words, SOURCE, DESTINATION, 0, protocol[i], 0, now);
    else if (type === reply) scans.contact(ANSWERED, words, DESTINATION, SOURCE, 0, protocol[i], 0, now);
    else if (type === (isV6 ? Icmpv6Type.UNREACHABLE : IcmpType.UNREACHABLE)) unreachable(i, now);
  }

  function unreachable(i: number, now: number): void {
    if (!quoted.find(batch, i)) return;
    const isQuery = quoted.protocol === ICMP || quoted.protocol === ICMPV6;
    quoted.key(key, 0);
    if (quoted.version === 6) quotedEnds.set(key.subarray(0, 8));
    else {
      putIpv4(quotedEnds, SOURCE, quoted.source);
      putIpv4(quotedEnds, DESTINATION, quoted.destination);
    }
    const to = isQuery ? 0 : destinationPort(quoted.ports);
    const pair = isQuery ? 0 : quoted.ports;
    if (quoted.protocol === UDP && !isUdpAttempt(pair)) return;
    scans.contact(REFUSED, quotedEnds, SOURCE, DESTINATION, to, quoted.protocol, pair, now);
  }

  return (i, now) => {
    if (fragment[i] === Fragment.LATER) return;
    const carried = protocol[i];
    if (carried === TCP) tcp(i, now);
    else if (carried === UDP) udp(i, now);
    else if (carried === ICMP || carried === ICMPV6) icmp(i, now);
  };
}
