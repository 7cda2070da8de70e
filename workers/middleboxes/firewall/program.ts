/**
 * The layout of compiled rules, as words. All places are offsets from the program's beginning. 0
 * means none.
 *
 *     head     | rules …, the policy last | sets … | trees
 *
 *     rule     what       states, versions << 5, verdict << 8, reject with << 11, log << 13, quiet << 14, stateless << 15,
 *                         (level + 1) << 16
 *              ports      in by, out by << 16: bits by index
 *              protocol … destination6   places of sets, 0: any
 *              more       place of tests of other fields: count, then field of the packet and place of a set for each
 *              entry      index of its counter
 *              hold       milliseconds, members << 16
 *              prefix     place of the log's prefix: length, then character codes
 *              code       of `Unreachable`
 *              line       in the file
 *              limit      place of its bucket (limits.ts), 0: none
 *              target     of a rule that skips: the rule to go on with
 *     set      count, then low and high of each interval: of numbers one word each, of IPv6 addresses four each
 *     trees    see tree.ts
 *
 * Addresses are in host order and *biased*: the highest bit is flipped, so that they compare as
 * signed words.
 */

export const HEAD = {
  rules: 0,
  count: 1,
  trees4: 2,
  trees4Count: 3,
  trees6: 4,
  trees6Count: 5,
  states: 6,
  limits: 7,
} as const;
export const HEAD_WORDS = 8;

export const RULE = {
  what: 0,
  ports: 1,
  protocol: 2,
  sport: 3,
  dport: 4,
  source4: 5,
  destination4: 6,
  source6: 7,
  destination6: 8,
  more: 9,
  entry: 10,
  hold: 11,
  prefix: 12,
  code: 13,
  line: 14,
  limit: 15,
  target: 16,
} as const;
export const RULE_WORDS = 17;

export const VERSIONS_SHIFT = 5;
export const VERDICT_SHIFT = 8;
export const REJECT_SHIFT = 11;
export const LOG_BIT = 1 << 13;
/** The rule is not counted. */
export const QUIET_BIT = 1 << 14;
/** The rule names no connection state. */
export const STATELESS_BIT = 1 << 15;
export const LEVEL_SHIFT = 16;

/**
 * A packet as rules see it, as words. An IPv4 address takes the first of the four words of an
 * address. `sport` and `dport` are the first two 16-bit fields of the transport header, whatever
 * its protocol, or -1 if the packet does not have them.
 */
export const PACKET = {
  source: 0,
  destination: 4,
  sport: 8,
  dport: 9,
  protocol: 10,
  icmpType: 11,
  flags: 12,
  inPort: 13,
  outPort: 14,
  state: 15,
  /** The next header field of the fixed IPv6 header. */
  nextHeader: 16,
  icmpCode: 17,
  dscp: 18,
} as const;
export const PACKET_WORDS = 19;

/** A tree: the place of its root, and its first rule. */
export const TREE_WORDS = 2;
/**
 * A node: field of the packet, split (values up to it go left), left, right. In a leaf, the field
 * is `LEAF`, followed by the number of rules, and the rules in order.
 */
export const LEAF = -1;

export function biased(number: number): number {
  return (number ^ 0x8000_0000) | 0;
}
