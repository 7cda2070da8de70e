/**
 * Handshakes: a connection is established only after both of its ends were seen, each at any site.
 */

import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import type { FlowTable } from '../../../../shm/objects/flow/flow-table.js';
import { idleExpiry } from '../../../../shm/objects/table/idle-expiry.js';
import { scaled } from '../../../support/scale.js';
import { FirewallSite } from '../../support/firewall-site.js';
import { frame6 } from '../../support/frames6.js';
import { on } from '../../support/plane.js';

const INSIDE = 0;
const OUTSIDE = 1;
const BOTH = 'policy accept';
const TCP = 6;
const TCP_NEW = 60;

const CLIENT = 'tcp 198.51.100.7:4000 > 10.0.0.5:443';
const SERVER = 'tcp 10.0.0.5:443 > 198.51.100.7:4000';
const SYN = on(OUTSIDE, `${CLIENT} S seq 1000`);
const SYN_ACK = on(INSIDE, `${SERVER} SA seq 5000 ack 1001`);
const ACK = on(OUTSIDE, `${CLIENT} A seq 1001 ack 5001`);
const WRONG_ACK = on(OUTSIDE, `${CLIENT} A seq 1001 ack 99`);

type Packet = ReturnType<typeof on>;

function sites(count: number, options: Readonly<Record<string, unknown>> = {}, rules = BOTH): FirewallSite[] {
  return Array.from({ length: count }, (_, member) => new FirewallSite({ rules, member, members: count, options }));
}

function send(site: FirewallSite, ...packets: Packet[]): number {
  return packets.reduce((sum, packet) => sum + site.plane.passFrames(packet).length, 0);
}

/** Ranks of the connections a site has. */
function ranks(site: FirewallSite, table: FlowTable = site.ipv4): number[] {
  const found: number[] = [];
  table.forEach(site.now, (entry) => found.push(entry[2]));
  return found;
}

/** All that a site has is half-open: within the quota and the timer of such connections. */
function assertHalfOpen(site: FirewallSite): void {
  for (const table of [site.ipv4, site.ipv6]) {
    assert.deepEqual(new Set(ranks(site, table)), new Set(ranks(site, table).length > 0 ? [0] : []));
    const { used, half_open: halfOpen } = table.describe(site.now);
    assert.equal(halfOpen, used, 'all are within the quota');
    table.forEach(site.now, (entry) => {
      const seconds = table === site.ipv6 || (entry[6] & 0xff) === TCP ? TCP_NEW : 600;
      assert.ok(entry[1] - site.now <= idleExpiry(0, seconds), `${entry[1] - site.now} s`);
    });
  }
}

describe('firewall: handshakes', () => {
  const oneSided = fc.record({
    at: fc.nat(1),
    source: fc.constantFrom(4000, 4000, 4000, 4001),
    flags: fc.constantFrom('S', 'S', 'S', 'SA', 'A', 'A', 'PA', 'FA', 'FA', 'R', 'RA', 'PU', 'SF'),
    sequence: fc.constantFrom(1000, 1001, 5001, 0x7fff_0000),
    acknowledged: fc.constantFrom(0, 1001, 5001),
    length: fc.constantFrom(0, 0, 10),
    kind: fc.constantFrom('tcp', 'tcp', 'tcp', 'tcp6', 'udp', 'icmp', 'gre'),
    pause: fc.constantFrom(0, 0, 0, 0, 0, 1, 30, 70),
  });

  /** With the second and the third, what is picked up may be the responder's. */
  const rules = fc.constantFrom(BOTH, 'iif inside accept', 'iif outside accept');

  for (const pickup of ['strict', 'loose'])
    for (const from of [OUTSIDE, INSIDE])
      it(`no packets from side ${from} alone leave the quota or the timer of half-open connections (${pickup})`, function () {
        this.timeout(60_000);
        fc.assert(
          fc.property(fc.array(oneSided, { minLength: 5, maxLength: 25 }), rules, (packets, text) => {
            const pair = sites(2, { pickup }, text);
            for (const { at, source, flags, sequence, acknowledged, length, kind, pause } of packets) {
              for (const site of pair) site.later(pause);
              const numbers = `${flags} seq ${sequence} ack ${acknowledged} len ${length}`;
              const [near, far] = from === OUTSIDE ? ['198.51.100.7', '10.0.0.5'] : ['10.0.0.5', '198.51.100.7'];
              const packet =
                kind === 'tcp6'
                  ? { port: from, frame: frame6(`tcp fd00::${from} ${source} > fd00::9 443 ${numbers}`) }
                  : kind === 'tcp'
                    ? on(from, `tcp ${near}:${source} > ${far}:443 ${numbers}`)
                    : kind === 'udp'
                      ? on(from, `udp ${near}:${source} > ${far}:443 len ${length}`)
                      : kind === 'gre'
                        ? on(from, `ip ${near} > ${far} proto 47 len 20`)
                        : on(from, `icmp ${near} > ${far} ${flags.includes('A') ? 'reply' : 'echo'} ${source}`);
              send(pair[at], packet);
              FirewallSite.settle(...pair);
              for (const site of pair) assertHalfOpen(site);
            }
            assert.equal(pair[0].ipv4.digest(pair[0].now), pair[1].ipv4.digest(pair[1].now));
          }),
          { numRuns: scaled(15, 40) },
        );
      });

  it('costs no record but its first and its second where one site sees both directions', () => {
    const [site] = sites(1);
    assert.equal(send(site, SYN, SYN_ACK, ACK), 3);
    site.plane.idle(2000, 100);
    assert.deepEqual(ranks(site), [1]);
    assert.equal(site.replicateTo(), 2);
  });

  it('is established at two sites though it stays idle, in whichever order packets and records come', () => {
    for (const late of [false, true]) {
      const [a, b] = sites(2);
      send(a, SYN);
      a.replicateTo(b);
      assert.equal(send(b, SYN_ACK), 1);
      if (late) {
        b.plane.idle(700, 100);
        b.replicateTo(a);
      }
      assert.equal(send(a, ACK), 1);
      assert.deepEqual(ranks(a), [late ? 1 : 0]);
      FirewallSite.settle(a, b);
      assert.deepEqual([ranks(a), ranks(b)], [[1], [1]]);
      assert.equal(a.ipv4.digest(a.now), b.ipv4.digest(b.now));
    }
  });

  it('is established at once by a responder that acknowledges data, at the site that sees it', () => {
    const [a, b] = sites(2);
    send(a, SYN);
    a.replicateTo(b);
    send(b, SYN_ACK);
    send(a, ACK, on(OUTSIDE, `${CLIENT} PA seq 1001 ack 5001 len 10`));
    send(b, on(INSIDE, `${SERVER} A seq 5001 ack 1011`));
    assert.deepEqual(ranks(b), [1]);
    assert.equal(b.replicateTo(a), 1);
    assert.deepEqual(ranks(a), [1]);
    FirewallSite.settle(a, b);
    assert.equal(a.replicateTo() + b.replicateTo(), 0, 'and costs no other record');
  });

  it('is begun by the FIN of either end once both were seen', () => {
    for (const fin of [on(OUTSIDE, `${CLIENT} FA seq 1001 ack 5001`), on(INSIDE, `${SERVER} FA seq 5001 ack 1001`)]) {
      const [site] = sites(1);
      send(site, SYN, SYN_ACK, fin);
      assert.deepEqual(ranks(site), [2]);
    }
    const [a, b] = sites(2);
    send(a, SYN);
    a.replicateTo(b);
    send(b, SYN_ACK);
    send(a, on(OUTSIDE, `${CLIENT} FA seq 1001 ack 5001`));
    assert.deepEqual(ranks(a), [0]);
    FirewallSite.settle(a, b);
    assert.deepEqual([ranks(a), ranks(b)], [[2], [2]]);
  });

  it('knows a simultaneous open', () => {
    const [site] = sites(1);
    send(site, SYN, on(INSIDE, `${SERVER} S seq 5000`), SYN_ACK, on(OUTSIDE, `${CLIENT} SA seq 1000 ack 5001`));
    assert.deepEqual(ranks(site), [0]);
    send(site, ACK);
    assert.deepEqual(ranks(site), [1]);
  });

  describe('a stranger who forges the initiator of a server that answers', () => {
    /**
     * What a server sends to whoever is forged: it answers SYNs, and acknowledges again what is out
     * of the window.
     */
    const AGAIN = on(INSIDE, `${SERVER} A seq 5001 ack 1001`);
    const RST = on(INSIDE, `${SERVER} R seq 99`);

    it('has to guess the number of its SYN-ACK', () => {
      const [site] = sites(1);
      assert.equal(send(site, SYN, SYN_ACK, WRONG_ACK, RST), 4);
      assert.deepEqual(ranks(site), [0]);
      send(site, on(OUTSIDE, `${CLIENT} A seq 90000 ack 99`), AGAIN);
      assert.deepEqual(ranks(site), [0], 'an answer that says no more');
      send(site, ACK);
      assert.deepEqual(ranks(site), [1]);
    });

    it('has to guess it at two sites, too', () => {
      const [a, b] = sites(2);
      send(a, SYN);
      a.replicateTo(b);
      send(b, SYN_ACK);
      send(a, WRONG_ACK);
      send(b, AGAIN);
      FirewallSite.settle(a, b);
      assert.deepEqual([ranks(a), ranks(b)], [[0], [0]]);
      send(a, WRONG_ACK);
      FirewallSite.settle(a, b);
      assert.deepEqual([ranks(a), ranks(b)], [[0], [0]]);
      send(a, ACK);
      assert.deepEqual(ranks(a), [1]);
    });

    it('does not get more records by it than half-open connections have', () => {
      const options = { connections: 4096, half_open: 100, half_open_records: 100 };
      const [a, b] = sites(2, options);
      for (let n = 0; n < 1000; n++) send(a, on(OUTSIDE, `tcp 198.51.100.7:${4000 + n} > 10.0.0.5:443 S seq 1000`));
      assert.ok(a.replicateTo(b) <= 100);
      for (let n = 0; n < 1000; n++)
        send(b, on(INSIDE, `tcp 10.0.0.5:443 > 198.51.100.7:${4000 + n} SA seq 5000 ack 1001`));
      // Of its own budget, in this second and the next.
      b.plane.idle(1000, 100);
      assert.ok(b.replicateTo(a) <= 200);
      assert.equal(a.ipv4.describe(a.now)['half_open'], a.ipv4.describe(a.now)['used']);
    });
  });

  it('does not believe a SYN-ACK that acknowledges another SYN', () => {
    const [site] = sites(1);
    send(site, SYN, on(INSIDE, `${SERVER} SA seq 7000 ack 555`), on(OUTSIDE, `${CLIENT} A seq 1001 ack 7001`));
    assert.deepEqual(ranks(site), [0]);
    send(site, SYN_ACK, ACK);
    assert.deepEqual(ranks(site), [1]);
  });

  it('establishes what is picked up once both ends were seen, at one site or two', () => {
    const data = [on(OUTSIDE, `${CLIENT} PA seq 9 ack 8 len 5`), on(INSIDE, `${SERVER} A seq 8 ack 14`)];
    for (const order of [data, data.toReversed()]) {
      const [site] = sites(1, { pickup: 'loose' });
      send(site, order[0], order[0], order[0]);
      assert.deepEqual(ranks(site), [0]);
      send(site, order[1], order[0]);
      assert.deepEqual(ranks(site), [1]);
      const [a, b] = sites(2, { pickup: 'loose' });
      for (let n = 0; n < 3; n++) {
        send(a, order[0]);
        send(b, order[1]);
        FirewallSite.settle(a, b);
      }
      assert.deepEqual([ranks(a), ranks(b)], [[1], [1]]);
    }
  });
});
