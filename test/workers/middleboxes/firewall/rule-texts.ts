/** Random rules as text, of few values, so that they overlap; and packets that meet them. */

import fc from 'fast-check';
import { biased, PACKET } from '../../../../workers/middleboxes/firewall/program.js';

const octet = fc.constantFrom(0, 1, 2, 128, 255);
const group = fc.constantFrom('0', '1', 'ffff', '8000');
const address4 = fc.tuple(fc.constantFrom(10, 192), octet, octet, octet).map((parts) => parts.join('.'));
const address6 = fc.array(group, { minLength: 8, maxLength: 8 }).map((groups) => groups.join(':'));

function word4(text: string): number {
  return text.split('.').reduce((word, part) => ((word << 8) | Number(part)) >>> 0, 0);
}
function dotted(word: number): string {
  return [24, 16, 8, 0].map((shift) => (word >>> shift) & 255).join('.');
}

const prefix4 = fc.tuple(address4, fc.constantFrom(0, 1, 8, 15, 16, 24, 31, 32)).map(([address, bits]) => {
  const mask = bits === 0 ? 0 : (-1 << (32 - bits)) >>> 0;
  return `${dotted((word4(address) & mask) >>> 0)}/${bits}`;
});
const range4 = fc.tuple(address4, address4).map(([a, b]) => {
  const [low, high] = [word4(a), word4(b)].sort((x, y) => x - y);
  return `${dotted(low)}-${dotted(high)}`;
});
const prefix6 = fc
  .tuple(fc.array(group, { minLength: 8, maxLength: 8 }), fc.integer({ min: 0, max: 8 }))
  .map(([groups, kept]) => `${groups.map((text, i) => (i < kept ? text : '0')).join(':')}/${kept * 16}`);
const port = fc.constantFrom(0, 1, 22, 80, 443, 1024, 65_535);
const ports = fc.oneof(
  port.map(String),
  fc.tuple(port, port).map(([a, b]) => `${Math.min(a, b)}-${Math.max(a, b)}`),
);
const some = (element: fc.Arbitrary<string>): fc.Arbitrary<string> =>
  fc.oneof(
    element,
    fc.array(element, { minLength: 1, maxLength: 4 }).map((all) => `{ ${all.join(', ')} }`),
  );
const not = fc.constantFrom('', '', '', '!= ');

const match: fc.Arbitrary<string> = fc.oneof(
  fc
    .tuple(fc.constantFrom('saddr', 'daddr'), not, some(fc.oneof(prefix4, range4, address4)))
    .map((p) => `ip ${p.join(' ')}`),
  fc.tuple(fc.constantFrom('saddr', 'daddr'), not, some(fc.oneof(prefix6, address6))).map((p) => `ip6 ${p.join(' ')}`),
  fc
    .tuple(fc.constantFrom('tcp', 'udp', 'th'), fc.constantFrom('sport', 'dport'), not, some(ports))
    .map((p) => p.join(' ')),
  fc.tuple(fc.constantFrom('iif', 'oif'), not, fc.constantFrom('inside', 'outside')).map((p) => p.join(' ')),
  fc.tuple(not, some(fc.constantFrom('tcp', 'udp', 'icmp', '47'))).map((p) => `meta l4proto ${p.join(' ')}`),
  fc.constantFrom(
    'tcp flags syn / syn,ack',
    'tcp flags != syn,fin',
    'icmp type { 0, 8 }',
    'icmpv6 type 128',
    'ct state new,related',
    'ct state invalid',
    'from lan',
    'to lan',
    'from wan',
    'to != wan',
  ),
);

/** One rule; it may be one that no packet can match, which the parser refuses. */
export const ruleText: fc.Arbitrary<string> = fc
  .tuple(fc.array(match, { maxLength: 4 }), fc.constantFrom('accept', 'drop', 'reject', 'count'))
  .map(([matches, verdict]) => [...matches, verdict].join(' '));

export const ZONES = `zone lan = { port inside, 10.0.0.0/8, ::/16 }
zone wan = { port outside }
`;

/** Words of a packet for a lookup, and its version: 1 IPv4, 2 IPv6. */
export const packetWords: fc.Arbitrary<{ version: number; words: readonly [number, number][] }> = fc
  .record({
    is4: fc.boolean(),
    from4: address4,
    to4: address4,
    from6: fc.array(group, { minLength: 8, maxLength: 8 }),
    to6: fc.array(group, { minLength: 8, maxLength: 8 }),
    sport: port,
    dport: port,
    protocol: fc.constantFrom(6, 6, 17, 1, 58, 47),
    flags: fc.constantFrom(2, 16, 18, 1, 0),
    type: fc.constantFrom(0, 8, 128),
    inPort: fc.constantFrom(0, 1),
    state: fc.constantFrom(1, 1, 4, 8),
  })
  .map(({ is4, from4, to4, from6, to6, sport, dport, protocol, flags, type, inPort, state }) => {
    const hasPorts = protocol === 6 || protocol === 17;
    const wordsOf6 = (groups: readonly string[], at: number): [number, number][] =>
      [0, 1, 2, 3].map((n) => [
        at + n,
        biased(Number.parseInt(groups[2 * n].padStart(4, '0') + groups[2 * n + 1].padStart(4, '0'), 16)),
      ]);
    const addresses: [number, number][] = is4
      ? [
          [PACKET.source, biased(word4(from4))],
          [PACKET.destination, biased(word4(to4))],
        ]
      : [...wordsOf6(from6, PACKET.source), ...wordsOf6(to6, PACKET.destination)];
    return {
      version: is4 ? 1 : 2,
      words: [
        ...addresses,
        [PACKET.sport, hasPorts ? sport : 0],
        [PACKET.dport, hasPorts ? dport : 0],
        [PACKET.protocol, protocol],
        [PACKET.icmpType, protocol === 1 || protocol === 58 ? type : 0],
        [PACKET.flags, protocol === 6 ? flags : 0],
        [PACKET.inPort, inPort],
        [PACKET.outPort, 1 - inPort],
        [PACKET.state, state],
      ],
    };
  });
