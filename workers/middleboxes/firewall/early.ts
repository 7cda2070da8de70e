/**
 * Early replies: packets that no rule accepts, but that can be the first reply to a request that
 * left through another site. They wait for the record of their connection (`early` of the
 * framework).
 *
 * Such packets are SYN-ACKs, RSTs with ACK, replies to ICMP queries, and everything that is neither
 * TCP nor ICMP. They wait only if the rules in force would accept the request, that is a connection
 * that begins in the other direction. An ICMP error about a connection waits too.
 */

import { type Batch, type EarlyReplies, NONE, Protocol, TcpFlag, type TcpFlowTable } from '../../api/api.js';
import type { Judge } from './judge.js';
import { PACKET } from './program.js';
import { Verdict } from './rule.js';
import { State } from './vocabulary.js';

const { TCP, ICMP, ICMPV6 } = Protocol;
const { ACK, FIN, RST, SYN } = TcpFlag;
const WORDS_IPV4 = 4;
const WORDS_IPV6 = 10;

interface FirewallEarlyReplies {
  /**
   * Packet `i` is invalid and belongs to no connection. Its connection would have the key `key`.
   * Returns true if it waits.
   */
  invalidWaits(i: number, key: Int32Array): boolean;
  /**
   * Returns true if packet `i` may wait. It would begin a connection if the rules accepted it. Does
   * not change the judge.
   */
  mayWait(i: number): boolean;
  /** Returns true if such a packet waits. */
  newWaits(i: number, key: Int32Array): boolean;
  /**
   * Returns true if ICMP error `i` waits. It is about a packet of the connection with the key
   * `key`.
   */
  errorWaits(i: number, key: Int32Array): boolean;
}

interface FirewallEarlyParts {
  readonly batch: Batch;
  readonly early: EarlyReplies;
  readonly judge: Judge;
  readonly ipv4: TcpFlowTable;
  readonly ipv6: TcpFlowTable;
}

/**
 * Made once per worker. Except for `mayWait`, the methods overwrite the judge's packet. Fill it
 * again after them.
 */
export function createFirewallEarlyReplies(parts: FirewallEarlyParts): FirewallEarlyReplies {
  const { batch, early, judge, ipv4, ipv6 } = parts;
  const { version, protocol, flags } = batch;
  // Key: the IP version, then the connection's key.
  const expected = early.expect(1 + WORDS_IPV6, (words, at, now) => {
    const table = words[at] === 4 ? ipv4 : ipv6;
    return table.find(table.hash(words, at + 1), words, at + 1, now) !== NONE;
  });

  function waitFor(i: number, key: Int32Array): boolean {
    const words = version[i] === 4 ? WORDS_IPV4 : WORDS_IPV6;
    expected.key[0] = version[i];
    for (let word = 0; word < words; word++) expected.key[1 + word] = key[word];
    return expected.wait(i);
  }

  /** Returns true if a rule accepts packet `i` although it is invalid. */
  function isAccepted(i: number): boolean {
    if (!judge.speaksOf(State.INVALID)) return false;
    judge.fill(i, false);
    const place = judge.foresee(State.INVALID, version[i]);
    return place >= 0 && judge.verdict(place) === Verdict.ACCEPT;
  }

  /** Returns true if the rules accept the request that packet `i` would answer. */
  function isRequestAccepted(i: number): boolean {
    judge.fill(i, true);
    if (protocol[i] === TCP) judge.packet[PACKET.flags] = SYN;
    return judge.verdict(judge.suppose(State.NEW, version[i])) === Verdict.ACCEPT;
  }

  function isTcpReply(i: number): boolean {
    const shown = flags[i] & (SYN | ACK | FIN | RST);
    return shown === (SYN | ACK) || shown === (RST | ACK);
  }

  return {
    invalidWaits: (i, key) =>
      (protocol[i] !== TCP || isTcpReply(i)) &&
      expected.mayWait(i) &&
      !isAccepted(i) &&
      isRequestAccepted(i) &&
      waitFor(i, key),
    mayWait(i) {
      const carried = protocol[i];
      return carried !== TCP && carried !== ICMP && carried !== ICMPV6 && expected.mayWait(i);
    },
    newWaits: (i, key) => isRequestAccepted(i) && waitFor(i, key),
    errorWaits: (i, key) => expected.mayWait(i) && !isAccepted(i) && waitFor(i, key),
  };
}
