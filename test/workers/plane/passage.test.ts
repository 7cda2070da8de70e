import { strict as assert } from 'node:assert';
import { formatIpv4, portNumber } from '../../../workers/api/api.js';
import { defineMiddlebox } from '../../../workers/api/middlebox.js';
import { Unreachable } from '../../../workers/api/replies.js';
import firewall from '../../../workers/middleboxes/firewall/index.js';
import nat from '../../../workers/middleboxes/nat/index.js';
import { parseIpv4 } from '../../../workers/packet/ipv4.js';
import type { Link } from '../../../workers/plane/chain.js';
import { checksums, describeFrame } from '../support/frames.js';
import { HOST_MAC, on, type PlaneOptions, ROUTER_MAC, routePort } from '../support/plane.js';
import { INSIDE, OUTSIDE, Site } from '../support/site.js';

/** What the witnesses of a chain saw, in order. */
const seen: string[] = [];

/**
 * Writes down every packet it is given, and answers those to port 7 with a reset, those to port 9
 * with an error.
 */
function witnessCalled(name: string): Link {
  const middlebox = defineMiddlebox({
    name: 'witness',
    help: 'Looks on.',
    addresses: 'watches',
    options: {},
    counters: {},
    state: () => ({}),
    open:
      ({ batch, replies }) =>
      () => {
        for (let i = 0; i < batch.count; i++) {
          if (batch.skips(i)) continue;
          const { source, destination, ports, port, egress } = batch;
          const from = `${formatIpv4(source[i])}:${portNumber(ports[i] & 0xffff)}`;
          const to = `${formatIpv4(destination[i])}:${portNumber(ports[i] >>> 16)}`;
          seen.push(`${name}: ${from} > ${to} by ${port[i]} to ${egress[i]}`);
          if (portNumber(ports[i] >>> 16) === 7) replies.reset(i);
          if (portNumber(ports[i] >>> 16) === 9) replies.unreachable(i, Unreachable.PORT);
        }
      },
  });
  return { middlebox: middlebox as never, options: {}, name };
}

const EXTERNAL = '203.0.113.1';

const natted: Link = {
  middlebox: nat as never,
  options: { inside: INSIDE, outside: OUTSIDE, external: [parseIpv4(EXTERNAL)], flows: 1024 },
};

function site(chain: readonly Link[], plane: PlaneOptions = {}): Site {
  seen.length = 0;
  return new Site({ chain, plane });
}

const MAPPED = {
  protocol: 0,
  externalAddress: parseIpv4('203.0.113.2'),
  externalPort: 0,
  internalAddress: parseIpv4('10.0.0.9'),
  internalPort: 0,
};
const PORT_7 = { ...MAPPED, protocol: 6, externalPort: 5007, internalPort: 7 };
const BACK = `to ${HOST_MAC} from ${ROUTER_MAC}`;
const OUT = 'tcp 10.0.0.5:4000 > 198.51.100.7:80';

/** Has an endpoint inside bound, and says to which external one. */
function bind({ plane }: Site, endpoint: string, kind = 'udp'): string {
  const [sent] = plane.pass(on(INSIDE, `${kind} ${endpoint} > 198.51.100.7:80${kind === 'tcp' ? ' S' : ''}`));
  const [, external] = /^1: \w+ (\S+) > /.exec(sent ?? '') ?? [];
  assert.ok(external, `${sent}: bound`);
  seen.length = 0;
  return external;
}

describe('passing the chain', () => {
  it('goes from the end a packet comes in by to the other, so each middlebox sees one pair of addresses', () => {
    const { plane } = site([witnessCalled('left'), natted, witnessCalled('right')]);
    const [out] = plane.pass(on(INSIDE, `${OUT} S`));
    const [, external] = /^1: tcp (203.0.113.1:\d+) > 198.51.100.7:80 S ttl 63$/.exec(out) ?? [];
    const home = `tcp 198.51.100.7:80 > ${external} SA`;
    assert.deepEqual(plane.pass(on(OUTSIDE, home)), ['0: tcp 198.51.100.7:80 > 10.0.0.5:4000 SA ttl 63']);
    assert.deepEqual(seen, [
      'left: 10.0.0.5:4000 > 198.51.100.7:80 by 0 to 1',
      `right: ${external} > 198.51.100.7:80 by 0 to 1`,
      `right: 198.51.100.7:80 > ${external} by 1 to 0`,
      'left: 198.51.100.7:80 > 10.0.0.5:4000 by 1 to 0',
    ]);
  });

  it('does so when a batch has packets of both, and shows nobody another’s', () => {
    const both = site([witnessCalled('left'), natted, witnessCalled('right')]);
    const external = bind(both, '10.0.0.5:4000', 'tcp');
    const home = `tcp 198.51.100.7:80 > ${external}`;
    const { plane } = both;
    const out = plane.pass(
      on(OUTSIDE, `${home} SA`),
      on(INSIDE, `${OUT} A`),
      on(OUTSIDE, 'tcp 198.51.100.7:80 > 203.0.113.1:1 A'),
      on(OUTSIDE, `${home} A`),
      on(INSIDE, `${OUT} A len 5`),
    );
    assert.equal(out.length, 4);
    assert.deepEqual(plane.counts(), { nat_bound: 1, nat_outbound: 3, nat_inbound: 2, nat_unsolicited: 1 });
    assert.deepEqual(
      seen.map((line) => line.replace(/ > .*/, '')),
      [
        ...['left: 10.0.0.5:4000', 'left: 10.0.0.5:4000', `right: ${external}`, `right: ${external}`],
        ...['right: 198.51.100.7:80', 'right: 198.51.100.7:80', 'right: 198.51.100.7:80'],
        ...['left: 198.51.100.7:80', 'left: 198.51.100.7:80'],
      ],
    );
  });

  it('has a hairpinned packet go back through what it passed, and pass nothing behind', () => {
    const hairpin = site([witnessCalled('left'), natted, witnessCalled('right')]);
    const first = bind(hairpin, '10.0.0.5:4000');
    const second = bind(hairpin, '10.0.0.6:5000');
    const { plane } = hairpin;
    assert.deepEqual(plane.pass(on(INSIDE, `udp 10.0.0.5:4000 > ${second}`)), [
      `0: udp ${first} > 10.0.0.6:5000 ttl 63`,
    ]);
    assert.deepEqual(plane.pass(on(INSIDE, `udp 10.0.0.6:5000 > ${first}`)), [
      `0: udp ${second} > 10.0.0.5:4000 ttl 63`,
    ]);
    assert.deepEqual(seen, [
      `left: 10.0.0.5:4000 > ${second} by 0 to 1`,
      `left: ${first} > 10.0.0.6:5000 by 0 to 0`,
      `left: 10.0.0.6:5000 > ${first} by 0 to 1`,
      `left: ${second} > 10.0.0.5:4000 by 0 to 0`,
    ]);
  });

  it('gives a reply from behind the NAT the addresses that its receiver knows', () => {
    // From inside: the answer is to the external endpoint, and has to get inside.
    const { plane } = site([natted, witnessCalled('right')]);
    const [reset] = plane.passFrames(on(INSIDE, 'tcp 10.0.0.5:4000 > 198.51.100.7:7 S'));
    assert.equal(describeFrame(reset.frame, { macs: true }), `tcp 198.51.100.7:7 > 10.0.0.5:4000 RA ${BACK}`);
    assert.equal(reset.port, INSIDE);
    assert.deepEqual(checksums(reset.frame), { ip: true, transport: true });
    // From outside: the answer is from the inside endpoint, and has to look as from the external
    // one.
    const chain = [witnessCalled('left'), { ...natted, options: { ...natted.options, static: [MAPPED] } }];
    assert.deepEqual(site(chain).pass(on(OUTSIDE, 'tcp 198.51.100.7:1234 > 203.0.113.2:7 S')), [
      '1: tcp 203.0.113.2:7 > 198.51.100.7:1234 RA',
    ]);
  });

  it('lets a reply from before the NAT go at once, unseen', () => {
    const { plane } = site([witnessCalled('left'), natted, witnessCalled('right')]);
    assert.deepEqual(plane.pass(on(INSIDE, 'tcp 10.0.0.5:4000 > 198.51.100.7:7 S')), [
      '0: tcp 198.51.100.7:7 > 10.0.0.5:4000 RA',
    ]);
    assert.deepEqual(seen, ['left: 10.0.0.5:4000 > 198.51.100.7:7 by 0 to 1']);
  });

  it('hairpins a reply to what was hairpinned', () => {
    const chain = [witnessCalled('left'), { ...natted, options: { ...natted.options, static: [PORT_7] } }];
    const { plane } = site(chain);
    assert.deepEqual(plane.pass(on(INSIDE, 'tcp 10.0.0.5:4000 > 203.0.113.2:5007 S')), [
      '0: tcp 203.0.113.2:5007 > 10.0.0.5:4000 RA',
    ]);
    assert.equal(seen.length, 3);
    assert.match(seen[2], /^left: 203\.0\.113\.2:5007 > 10\.0\.0\.5:4000 /, 'it is seen as the answer that it is');
  });

  it('translates the packet that an error from behind the NAT quotes', () => {
    const { plane } = site([natted, witnessCalled('right')], {
      route: [routePort({ address: parseIpv4('10.0.0.1') }), routePort({ address: parseIpv4('203.0.113.254') })],
    });
    const [error] = plane.passFrames(on(INSIDE, 'udp 10.0.0.5:4000 > 198.51.100.7:9 len 20'));
    assert.equal(error.port, INSIDE);
    const quoted = Buffer.from(error.frame.subarray(14 + 28));
    assert.equal(quoted.subarray(12, 20).toString('hex'), '0a000005c6336407', 'as it was sent');
    assert.equal(quoted.readUInt16BE(20), 4000);
    assert.deepEqual(checksums(error.frame), { ip: true, transport: true });
  });

  it('runs in the order of the configuration where nobody has sides', () => {
    const { plane } = site([witnessCalled('first'), witnessCalled('second')]);
    plane.pass(on(INSIDE, `${OUT} S`), on(OUTSIDE, 'tcp 198.51.100.7:80 > 10.0.0.5:4000 SA'));
    assert.deepEqual(
      seen.map((line) => line.split(':')[0]),
      ['first', 'first', 'second', 'second'],
    );
  });

  it('names the middlebox that throws, on the way back too', () => {
    const failing = defineMiddlebox({
      name: 'failing',
      help: 'Throws.',
      options: {},
      counters: {},
      state: () => ({}),
      open:
        ({ batch }) =>
        () => {
          if (batch.source[0] === parseIpv4(EXTERNAL)) throw new Error('no');
        },
    });
    const hairpin = site([{ middlebox: failing as never, options: {} }, natted]);
    const external = bind(hairpin, '10.0.0.6:5000');
    assert.throws(
      () => hairpin.pass(on(INSIDE, `udp 10.0.0.5:4000 > ${external}`)),
      /middlebox failing failed on a batch of 1 packets: no/,
    );
  });

  it('lets a firewall in front of the NAT follow connections by the addresses inside', () => {
    const rules = 'zone lan = { port inside }\npolicy drop\nfrom lan accept\n';
    const source = { file: null, text: rules, ports: ['inside', 'outside'] };
    const options = { rules: source, connections: 1024, connections_ipv6: 256 };
    const guarded = site([{ middlebox: firewall as never, options }, natted]);
    const external = bind(guarded, '10.0.0.5:4000', 'tcp');
    const { plane } = guarded;
    plane.pass(on(OUTSIDE, `tcp 198.51.100.7:80 > ${external} SA`));
    plane.pass(on(INSIDE, `${OUT} A`));
    // Bound at the NAT, but of no connection.
    assert.deepEqual(plane.pass(on(OUTSIDE, `tcp 198.51.100.9:80 > ${external} S`)), []);
    assert.deepEqual(plane.counts(), {
      firewall_opened: 1,
      firewall_passed: 2,
      firewall_denied: 1,
      nat_bound: 1,
      nat_outbound: 2,
      nat_inbound: 2,
    });
  });
});
