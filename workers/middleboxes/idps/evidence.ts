/**
 * Derives evidence from packets: which host tried to reach which, and the outcome. Only X's own
 * packets show that X tried something. An answer or a refusal counts only for an attempt that was
 * seen (attempts.ts):
 *
 * | packet                                    | evidence                                                                                          |
 * | ----------------------------------------- | ------------------------------------------------------------------------------------------------- |
 * | TCP SYN                                   | its source tried its destination                                                                  |
 * | TCP SYN and ACK                           | its destination was answered, if it tried the source                                              |
 * | TCP reset                                 | its destination was refused, if it sent a SYN that was not answered                               |
 * | TCP without SYN, ACK and RST; SYN and FIN | its source tried and was refused: no connection has these (-sN, -sF, -sX)                         |
 * | TCP reset without ACK                     | its destination probed, if it sent a bare ACK of no known connection (-sA) and not from a service |
 * | UDP to the lower port, or an equal one    | its source tried its destination, unless the destination sent to it before                        |
 * | UDP to the higher port, or an equal one   | its destination was answered, if it tried the source                                              |
 * | ICMP echo, echo reply                     | the source tried; the destination was answered                                                    |
 * | ICMP unreachable                          | the source of the quoted packet was refused, if it sent that packet and was not answered          |
 *
 * With `replies: bypass`, no site sees replies. Then further packets of the source count as an
 * answer.
 *
 * A UDP server sends to any port that a request came from, even late, or from another of its
 * addresses. By the rules above, such packets are not attempts. In return, a UDP scan from a low
 * port is not found.
 *
 * A packet of an established TCP connection costs a test of its flags and of one byte. Packets that
 * repeat an earlier one (UDP, bare ACKs) are skipped by a small table of this worker.
 */

import {
  type Batch,
  destinationPort,
  Fragment,
  IcmpType,
  Icmpv6Type,
  type Members,
  NONE,
  Protocol,
  portNumber,
  Quoted,
  sourcePort,
  TcpFlag,
  upperNumber,
} from '../../api/api.js';
import { type Attempts, Did } from './attempts.js';
import { ADDRESS_WORDS, DESTINATION, END_WORDS, type Ends, LINK, putIpv4, SOURCE } from './ends.js';
import { ANSWERED, ATTEMPTED, PROBED, REFUSED, type ScanDetector } from './scan.js';
import { createUnmatched } from './unmatched.js';

const { FIN, SYN, RST, ACK } = TcpFlag;
const { ICMP, TCP, UDP, ICMPV6 } = Protocol;
const SEQUENCE = 4;
const ACKNOWLEDGEMENT = 8;
const DATA_OFFSET = 12;
const TCP_BYTES_MIN = 20;
const IPV6_BYTES = 40;
/**
 * A packet within this many bytes of the initial sequence number follows a handshake. A blind guess
 * is right once in 65,536 times.
 */
const HANDSHAKE_BYTES = 1 << 16;
/** Ports that traceroute sends to, one for each packet. */
const TRACEROUTE_FIRST = 33_434;
const TRACEROUTE_LAST = 33_689;
/** Table of recent UDP flows and bare ACKs, by direction: half a megabyte. */
const SEEN = 1 << 17;
const SEEN_WAYS = 4;
const SEEN_S_SHIFT = 4;

interface Evidence {
  /** Takes the evidence of packet `i`, whose ends are loaded. */
  look(i: number, now: number): void;
  /** Looks again for the attempts of unmatched refusals. */
  tick(now: number): void;
}

/**
 * Made once per worker. `completed` is called for a completed connection, whose server is at
 * `words[at …]` with this raw port.
 */
export function createEvidence(
  batch: Batch,
  ends: Ends,
  attempts: Attempts,
  scans: ScanDetector,
  completed: (words: Int32Array, at: number, port: number) => void,
  repliesBypass: boolean,
  members: Members,
): Evidence {
  const { protocol, ports, flags, fragment, version, l3, l4 } = batch;
  const { i32, u8 } = batch.memory;
  const { words } = ends;
  const quoted = new Quoted();
  const key = new Int32Array(10);
  const quotedEnds = new Int32Array(END_WORDS);
  const seen = new Int32Array(SEEN);
  const unmatched = createUnmatched(attempts, scans);
  // Secret factors of this worker, so that nobody outside can choose flows that hide each other.
  const factors = Int32Array.from({ length: 22 }, () => (Math.random() * 2 ** 32) | 1);

  function tcp(i: number, now: number): void {
    const said = flags[i] & (SYN | RST | ACK | FIN);
    if ((said & ACK) !== 0 && (said & (SYN | RST)) === 0) return underWay(i, now);
    const pair = ports[i];
    if (said === SYN) began(pair, now);
    else if (said === (SYN | ACK)) accepted(i, pair, now);
    else if ((said & RST) !== 0 && (said & SYN) === 0) reset(pair, (said & ACK) !== 0, now);
    else {
      const to = destinationPort(pair);
      scans.contact(ATTEMPTED, words, SOURCE, DESTINATION, to, TCP, pair, now);
      scans.contact(REFUSED, words, SOURCE, DESTINATION, to, TCP, pair, now);
    }
  }

  function began(pair: number, now: number): void {
    // Look up first, so that the table's line is fetched while `contact` runs.
    const entry = attempts.find(words, pair, TCP, now);
    const replicate = scans.contact(ATTEMPTED, words, SOURCE, DESTINATION, destinationPort(pair), TCP, pair, now);
    if (entry !== NONE && attempts.did(entry, Did.COMPLETE)) attempts.restart(entry, false);
    attempts.note(Did.BEGIN, false, 0, now, replicate);
    if (repliesBypass) attempts.expect(attempts.placeOf(words, pair), now);
  }

  function accepted(i: number, pair: number, now: number): void {
    const sequence = i32[(l4[i] + SEQUENCE) >> 2];
    const entry = attempts.find(words, pair, TCP, now);
    if (isAnswer(entry)) scans.contact(ANSWERED, words, DESTINATION, SOURCE, sourcePort(pair), TCP, pair, now);
    const isAsked = entry !== NONE && attempts.did(entry, Did.BEGIN, true);
    const isOther = entry !== NONE && attempts.valueIn(entry) !== sequence;
    if (isOther && attempts.did(entry, Did.COMPLETE, true)) attempts.restart(entry, true);
    attempts.note(Did.GET_ANSWER, true, sequence, now, false);
    attempts.expect(attempts.placeOf(words, pair), now);
    if (isAsked) attempts.services.note(words, SOURCE, sourcePort(pair), now);
  }

  /**
   * Returns true if an answer is noted. For attempts that passed another site, this site knows only
   * those of suspicious sources. An answer that cannot belong to an attempt has no weight
   * (scan.ts).
   */
  function isAnswer(entry: number): boolean {
    return entry === NONE ? members.others > 0 : attempts.did(entry, Did.BEGIN, true) || members.others > 0;
  }

  function reset(pair: number, hasAck: boolean, now: number): void {
    const entry = attempts.find(words, pair, TCP, now);
    if (entry === NONE) return unmatched.wait(words, DESTINATION, pair, TCP, now);
    if (attempts.did(entry, Did.BEGIN, true)) {
      if (!attempts.did(entry, Did.GET_ANSWER, true))
        scans.contact(REFUSED, words, DESTINATION, SOURCE, sourcePort(pair), TCP, pair, now);
    } else if (!hasAck && isProbeOfOther(entry) && !isOfService(pair, now))
      scans.contact(PROBED, words, DESTINATION, SOURCE, sourcePort(pair), TCP, pair, now);
  }

  /** Returns true if only the destination has sent on a connection whose beginning nobody saw. */
  function isProbeOfOther(entry: number): boolean {
    return attempts.did(entry, Did.PROBE, true) && !attempts.did(entry, Did.PROBE) && !wasBegun(entry);
  }

  /**
   * Returns true if the destination sends from a port at which it accepts connections. Then the
   * connection may be one of its older ones.
   */
  function isOfService(pair: number, now: number): boolean {
    return attempts.services.has(words, DESTINATION, destinationPort(pair), now);
  }

  function wasBegun(entry: number): boolean {
    return attempts.eitherDid(entry, Did.BEGIN) || attempts.eitherDid(entry, Did.GET_ANSWER);
  }

  /** Handles a TCP packet with ACK, and without SYN and RST. */
  function underWay(i: number, now: number): void {
    const pair = ports[i];
    const place = attempts.placeOf(words, pair);
    const bare = isBare(i);
    if (bare ? wasSeen(i, TCP, now) : !attempts.isExpected(place, now)) return;
    const entry = attempts.find(words, pair, TCP, now);
    if (entry !== NONE && wasBegun(entry)) return progress(i, entry, pair, place, now);
    if (bare) {
      attempts.note(Did.PROBE, false, 0, now, false);
      if (entry === NONE) attempts.expect(place, now);
      else if (attempts.did(entry, Did.PROBE, true)) attempts.unexpect(place, now);
    } else if (entry !== NONE && attempts.did(entry, Did.PROBE, true)) {
      attempts.note(Did.PROBE, false, 0, now, false);
      attempts.unexpect(place, now);
    }
  }

  /**
   * Returns true if the packet is a TCP header without options and data. nmap sends its ACKs like
   * that.
   */
  function isBare(i: number): boolean {
    if (u8[l4[i] + DATA_OFFSET] >>> 4 !== TCP_BYTES_MIN / 4) return false;
    const end =
      version[i] === 6
        ? l3[i] + IPV6_BYTES + upperNumber(i32[(l3[i] + 4) >> 2] << 16)
        : l3[i] + upperNumber(i32[l3[i] >> 2]);
    return l4[i] + TCP_BYTES_MIN === end;
  }

  /**
   * Handles a packet that follows a handshake. It proves that the SYN was not forged: the client
   * knows the server's sequence number, or the server goes on.
   */
  function progress(i: number, entry: number, pair: number, place: number, now: number): void {
    const isClient =
      attempts.did(entry, Did.GET_ANSWER) ||
      (!attempts.did(entry, Did.GET_ANSWER, true) && attempts.did(entry, Did.BEGIN));
    if (attempts.did(entry, Did.COMPLETE, !isClient)) return;
    if (attempts.did(entry, Did.GET_ANSWER, !isClient)) {
      const at = (l4[i] + (isClient ? ACKNOWLEDGEMENT : SEQUENCE)) >> 2;
      if ((numberOf(i32[at]) - numberOf(attempts.valueIn(entry))) >>> 0 >= HANDSHAKE_BYTES) return;
    } else if (repliesBypass && isClient)
      scans.contact(ANSWERED, words, SOURCE, DESTINATION, destinationPort(pair), TCP, pair, now);
    else return;
    attempts.note(Did.COMPLETE, !isClient, 0, now, false);
    attempts.unexpect(place, now);
    completed(words, isClient ? DESTINATION : SOURCE, isClient ? destinationPort(pair) : sourcePort(pair));
  }

  function udp(i: number, now: number): void {
    const pair = ports[i];
    const isAgain = wasSeen(i, UDP, now);
    if (isAgain && !repliesBypass) return;
    const from = sourcePort(pair);
    const to = destinationPort(pair);
    if (isAgain) {
      if (isUdpAttempt(pair) && !wasSeen(i, ~UDP, now))
        scans.contact(ANSWERED, words, SOURCE, DESTINATION, to, UDP, pair, now);
      return;
    }
    // Look up once. Nothing below looks up another entry, and `note` finds an entry that it made
    // itself.
    const entry = attempts.find(words, pair, UDP, now);
    if (isUdpAttempt(pair) && !isUdpReply(entry)) {
      const replicate = scans.contact(ATTEMPTED, words, SOURCE, DESTINATION, to, UDP, pair, now);
      attempts.note(Did.BEGIN, false, 0, now, replicate);
    }
    if (portNumber(from) <= portNumber(to)) {
      if (isAnswer(attempts.found)) scans.contact(ANSWERED, words, DESTINATION, SOURCE, from, UDP, pair, now);
      // Note it even if it answers nothing. Then packets from the destination count as replies.
      attempts.note(Did.GET_ANSWER, true, 0, now, false);
    }
  }

  /**
   * Returns true if the destination sent first: a server at a high port, or two ends with equal
   * ports.
   */
  function isUdpReply(entry: number): boolean {
    return entry !== NONE && attempts.did(entry, Did.GET_ANSWER) && !attempts.did(entry, Did.BEGIN);
  }

  function isUdpAttempt(pair: number): boolean {
    const to = portNumber(destinationPort(pair));
    return portNumber(sourcePort(pair)) >= to && !(to >= TRACEROUTE_FIRST && to <= TRACEROUTE_LAST);
  }

  function wasSeen(i: number, kind: number, now: number): boolean {
    const pair = ports[i];
    // Two sums of products with secret factors, which the CPU can compute in parallel. A product
    // depends little on the high bits of its word. So the second sum uses the words with their
    // halves swapped.
    const time = (now >> SEEN_S_SHIFT) + (kind << 16);
    let high = (Math.imul(pair, factors[8]) + Math.imul(time, factors[9]) + Math.imul(words[LINK], factors[11])) | 0;
    let low = Math.imul((pair << 16) | (pair >>> 16), factors[20]);
    // The other words of an IPv4 address are constant (ends.ts).
    const step = version[i] === 6 ? 1 : ADDRESS_WORDS;
    for (let n = step - 1; n < 2 * ADDRESS_WORDS; n += step) {
      const word = words[n];
      high = (high + Math.imul(word, factors[n])) | 0;
      low = (low + Math.imul((word << 16) | (word >>> 16), factors[12 + n])) | 0;
    }
    let mixed = Math.imul(high ^ (high >>> 15), factors[10]) ^ Math.imul(low ^ (low >>> 15), factors[21]);
    mixed ^= mixed >>> 16;
    // Four places per bucket, in one cache line. With two, 1/25 of 20,000 flows would hide each
    // other.
    const at = mixed & (SEEN - SEEN_WAYS);
    if (seen[at] === mixed || seen[at + 1] === mixed || seen[at + 2] === mixed || seen[at + 3] === mixed) return true;
    seen[at + 3] = seen[at + 2];
    seen[at + 2] = seen[at + 1];
    seen[at + 1] = seen[at];
    seen[at] = mixed;
    return false;
  }

  function icmp(i: number, now: number): void {
    const type = flags[i];
    const isV6 = version[i] === 6;
    const carried = protocol[i];
    if (type === (isV6 ? Icmpv6Type.ECHO : IcmpType.ECHO)) {
      const replicate = scans.contact(ATTEMPTED, words, SOURCE, DESTINATION, 0, carried, 0, now);
      attempts.find(words, 0, carried, now);
      attempts.note(Did.BEGIN, false, 0, now, replicate);
    } else if (type === (isV6 ? Icmpv6Type.ECHO_REPLY : IcmpType.ECHO_REPLY)) {
      const entry = attempts.find(words, 0, carried, now);
      if (isAnswer(entry)) scans.contact(ANSWERED, words, DESTINATION, SOURCE, 0, carried, 0, now);
      if (entry !== NONE) attempts.note(Did.GET_ANSWER, true, 0, now, false);
    } else if (type === (isV6 ? Icmpv6Type.UNREACHABLE : IcmpType.UNREACHABLE)) unreachable(i, now);
  }

  function unreachable(i: number, now: number): void {
    if (!quoted.find(batch, i)) return;
    const isQuery = quoted.protocol === ICMP || quoted.protocol === ICMPV6;
    quotedEnds[LINK] = words[LINK];
    quoted.key(key, 0);
    if (quoted.version === 6) for (let n = 0; n < LINK; n++) quotedEnds[n] = key[n];
    else {
      putIpv4(quotedEnds, SOURCE, quoted.source);
      putIpv4(quotedEnds, DESTINATION, quoted.destination);
    }
    const to = isQuery ? 0 : destinationPort(quoted.ports);
    const pair = isQuery ? 0 : quoted.ports;
    const entry = attempts.find(quotedEnds, pair, quoted.protocol, now);
    if (entry === NONE) return unmatched.wait(quotedEnds, SOURCE, pair, quoted.protocol, now);
    if (!attempts.did(entry, Did.BEGIN) || attempts.did(entry, Did.GET_ANSWER)) return;
    scans.contact(REFUSED, quotedEnds, SOURCE, DESTINATION, to, quoted.protocol, pair, now);
  }

  return {
    look(i, now) {
      if (fragment[i] === Fragment.LATER) return;
      const carried = protocol[i];
      if (carried === TCP) tcp(i, now);
      else if (carried === UDP) udp(i, now);
      else if (carried === ICMP || carried === ICMPV6) icmp(i, now);
    },
    tick: unmatched.tick,
  };
}

/** Converts a raw word to the number that it encodes. */
function numberOf(word: number): number {
  return (word << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24);
}
