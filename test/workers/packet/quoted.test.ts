/**
 * ICMP errors about every protocol find the flow of the packet that they quote, as the parser saw
 * it.
 */

import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { checksum } from '../../../workers/packet/checksum.js';
import { parseIpv4 } from '../../../workers/packet/ipv4.js';
import { packetKeys } from '../../../workers/packet/keys.js';
import { Quoted } from '../../../workers/packet/quoted.js';
import { scaled } from '../../support/scale.js';
import { FirewallSite } from '../support/firewall-site.js';
import { errorAbout, frame, seal } from '../support/frames.js';
import { frame6, icmpv6Error } from '../support/frames6.js';
import { type Extension6, withExtensions } from '../support/headers.js';
import { NatSite } from '../support/nat-site.js';
import { Plane } from '../support/plane.js';

/** Runs `look` over one packet on a wire; null if no middlebox sees it. */
function looking<T>(bytes: Uint8Array, look: (plane: Plane) => T): T | null {
  const plane = new Plane({ route: null });
  let found: T | null = null;
  plane.open([
    (batch) => {
      if (!batch.skips(0)) found = look(plane);
    },
  ]);
  plane.passFrames({ port: 0, frame: bytes });
  return found;
}

const keysOf = (bytes: Uint8Array, six: boolean): number[][] | null =>
  looking(bytes, ({ batch }) => {
    const keys = packetKeys(batch);
    const out = [new Int32Array(10), new Int32Array(10)];
    if (six) {
      keys.ipv6(0, out[0], 0);
      keys.ipv6Reply(0, out[1], 0);
    } else {
      keys.ipv4(0, out[0], 0);
      keys.ipv4Reply(0, out[1], 0);
    }
    return out.map((words) => [...words]);
  });

const quotedKeysOf = (bytes: Uint8Array): number[][] | null =>
  looking(bytes, ({ batch }) => {
    const quoted = new Quoted();
    if (!quoted.find(batch, 0)) return null;
    const out = [new Int32Array(10), new Int32Array(10)];
    quoted.key(out[0], 0);
    quoted.replyKey(out[1], 0);
    return out.map((words) => [...words]);
  });

const PROTOCOLS = [2, 4, 33, 41, 47, 50, 51, 89, 112, 132, 136, 255];
const packets4 = fc
  .tuple(
    fc.constantFrom(
      'tcp 10.0.0.5:4000 > 198.51.100.7:80 S',
      'udp 10.0.0.5:4000 > 198.51.100.7:53',
      'icmp 10.0.0.5 > 198.51.100.7 echo 77',
      'icmp 198.51.100.7 > 10.0.0.5 reply 78',
      ...PROTOCOLS.map((protocol) => `ip 10.0.0.5 > 198.51.100.7 proto ${protocol}`),
    ),
    fc.nat({ max: 10 }),
    fc.integer({ min: 12, max: 100 }),
  )
  .map(([text, options, bytes]) => `${text} options ${options} len ${bytes}`);

const extension: fc.Arbitrary<Extension6> = fc.oneof(
  fc.record({ header: fc.constant(60), bytes: fc.constantFrom(8, 16, 32) }),
  fc.record({ header: fc.constant(51), bytes: fc.constantFrom(12, 16, 24, 28, 44) }),
  fc.record({ header: fc.constant(43), bytes: fc.constant(24), start: fc.constant([2, 1]) }),
);
const packets6 = fc.tuple(
  fc.constantFrom(
    'tcp 2001:db8::5 4000 > fd00::8 80 S len 20',
    'udp 2001:db8::5 4000 > fd00::8 53 len 20',
    'icmp 2001:db8::5 > fd00::8 echo 77 len 20',
  ),
  fc.option(fc.constantFrom(...PROTOCOLS.filter((protocol) => protocol !== 51)), { nil: undefined }),
  fc.boolean(),
  fc.array(extension, { maxLength: 6 }),
  fc.boolean(),
);

describe('packet/quoted', () => {
  it('has the keys that the parser gives the packet, of every protocol and behind every header', () => {
    fc.assert(
      fc.property(packets4, (text) => {
        const keys = keysOf(frame(text), false);
        assert.ok(keys !== null, text);
        assert.deepEqual(quotedKeysOf(errorAbout('icmp 192.0.2.1 > 10.0.0.5 type 3', text, 200)), keys);
      }),
      { numRuns: scaled(60, 150) },
    );
    fc.assert(
      fc.property(packets6, ([text, protocol, hopByHop, chain, isAtomic]) => {
        const extensions = [
          ...(hopByHop ? [{ header: 0, bytes: 8 }] : []),
          ...chain,
          ...(isAtomic ? [{ header: 44, bytes: 8 }] : []),
        ];
        const packet = withExtensions(frame6(text), extensions, protocol);
        const keys = keysOf(packet, true);
        assert.ok(keys !== null);
        assert.deepEqual(quotedKeysOf(icmpv6Error('fd00::1', '2001:db8::5', 2, packet)), keys);
      }),
      { numRuns: scaled(60, 150) },
    );
  });

  it('is found in 8 bytes behind the IP header; without ports in none', () => {
    const find = (protocol: number, bytes: number) =>
      quotedKeysOf(
        errorAbout(
          'icmp 192.0.2.1 > 10.0.0.5 type 3',
          `ip 10.0.0.5 > 198.51.100.7 proto ${protocol} len 40`,
          20 + bytes,
        ),
      ) !== null;
    for (const protocol of [33, 132, 136]) assert.deepEqual([find(protocol, 7), find(protocol, 8)], [false, true]);
    for (const protocol of [47, 50, 51]) assert.ok(find(protocol, 0));
  });

  it('is never that of a later fragment, or of an ICMP error', () => {
    const about = (text: string) => quotedKeysOf(errorAbout('icmp 192.0.2.1 > 10.0.0.5 type 3', text, 60));
    assert.equal(about('ip 10.0.0.5 > 198.51.100.7 proto 50 len 40 offset 64'), null);
    assert.equal(about('icmp 10.0.0.5 > 198.51.100.7 type 3 len 40'), null);
  });

  it('gets another address in every checksum there is, and nothing else, where it has no ports', () => {
    for (const protocol of [33, 47, 50, 132, 136]) {
      const text = `ip 10.0.0.5 > 198.51.100.7 proto ${protocol} len 40`;
      const error = errorAbout('icmp 192.0.2.1 > 10.0.0.5 type 3', text, 100);
      const plane = new Plane({ route: null });
      plane.open([
        (batch) => {
          const quoted = new Quoted();
          assert.ok(quoted.find(batch, 0) && quoted.isSound);
          const { ports } = quoted;
          quoted.rewriteSource(parseIpv4('203.0.113.9'), 0x1234);
          quoted.rewriteDestination(parseIpv4('203.0.113.8'), 0x4321);
          assert.equal(quoted.ports, ports);
          assert.ok(quoted.isSound, 'the checksum of the error follows');
        },
      ]);
      const [{ frame: out }] = plane.passFrames({ port: 0, frame: error });
      const quotation = Buffer.from(out.subarray(42));
      assert.equal(checksum(quotation, 0, 20), 0);
      assert.deepEqual([...quotation.subarray(12, 20)], [203, 0, 113, 9, 203, 0, 113, 8]);
      const differing = [...quotation.subarray(20)].flatMap((byte, at) => (byte === error[62 + at] ? [] : [at]));
      const covered = protocol === 33 || protocol === 136;
      assert.ok(
        differing.every((at) => covered && (at === 6 || at === 7)),
        `protocol ${protocol}: ${differing}`,
      );
      assert.equal(differing.length > 0, covered);
    }
  });
});

describe('path MTU discovery through the firewall', () => {
  const RULES = 'zone lan = { port inside }\nfrom lan accept';

  /** "Fragmentation needed", with the least that a router quotes. */
  function tooBig(packet: string): Uint8Array {
    const bytes = errorAbout('icmp 192.0.2.1 > 10.0.0.5 type 3', packet, 28);
    bytes[14 + 20 + 1] = 4;
    return seal(bytes);
  }

  for (const [name, protocol] of Object.entries({ GRE: 47, ESP: 50, AH: 51, DCCP: 33, SCTP: 132, 'UDP-Lite': 136 })) {
    it(`works for ${name}, and for no packet that nobody sent`, () => {
      const site = new FirewallSite({ rules: RULES });
      const out = `ip 10.0.0.5 > 198.51.100.7 proto ${protocol} len 1400`;
      const error = tooBig(out);
      assert.deepEqual(site.pass({ port: 1, frame: error }), [], 'nothing was sent yet');
      assert.equal(site.pass({ port: 0, frame: frame(out) }).length, 1);
      assert.equal(site.pass({ port: 1, frame: error }).length, 1);
      const forged = tooBig(out.replace('100.7', '100.8'));
      assert.deepEqual(site.pass({ port: 1, frame: forged }), []);
      assert.deepEqual(site.counts()['related'], 1);
      assert.deepEqual(site.counts()['invalid'], 2);
    });
  }

  it('works for TCP behind an authentication header, and ESP, of IPv6', () => {
    const packets = [12, 16, 24, 28].map((bytes) =>
      withExtensions(frame6('tcp 2001:db8::5 4000 > 2001:db8:9::7 80 S len 20'), [{ header: 51, bytes }]),
    );
    packets.push(withExtensions(frame6('udp 2001:db8::5 4000 > 2001:db8:9::7 80 len 20'), [], 50));
    for (const packet of packets) {
      const site = new FirewallSite({ rules: RULES });
      const error = icmpv6Error('2001:db8:7::1', '2001:db8::5', 2, packet);
      assert.equal(site.plane.passFrames({ port: 1, frame: error }).length, 0);
      assert.equal(site.plane.passFrames({ port: 0, frame: packet }).length, 1);
      assert.equal(site.plane.passFrames({ port: 1, frame: error }).length, 1);
    }
  });
});

describe('ICMP errors about protocols that the NAT does not map', () => {
  it('are dropped, and counted', () => {
    for (const protocol of [47, 50, 51, 132]) {
      const site = new NatSite();
      const about = `ip 203.0.113.1 > 198.51.100.7 proto ${protocol} len 40`;
      assert.deepEqual(
        site.pass({ port: 1, frame: errorAbout('icmp 198.51.100.1 > 203.0.113.1 type 3', about, 60) }),
        [],
      );
      assert.deepEqual(site.plane.counts(), { nat_icmp_error: 1 });
    }
  });
});
