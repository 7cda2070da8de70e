import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { CLOCK_SKEW_GUARD_S, REMEMBERED_S } from '../../../../shm/clock.js';
import { NONE } from '../../../../shm/none.js';
import { Applied } from '../../../../shm/objects/core/object.js';
import {
  NAT_BIND,
  type NatBinding,
  natBinding,
  portAndProtocol,
  Rank,
  Refusal,
} from '../../../../shm/objects/nat/nat-binding.js';
import { idleExpiry } from '../../../../shm/objects/table/idle-expiry.js';
import { Replica } from '../replica.js';
import { entriesOf } from './nat-model.js';

const TCP = 6;
const UDP = 17;
const NOW = 70_000_000;
const EXTERNAL = 0x010200c0;

function swap(port: number): number {
  return ((port & 0xff) << 8) | (port >>> 8);
}

/** A host-order port with its protocol, as the object wants it. */
function endpoint(port: number, protocol = UDP): number {
  return portAndProtocol(swap(port), protocol);
}

function bind(object: NatBinding, address: number, port: number, now = NOW, protocol = UDP, lifetime = 300): number {
  const key = endpoint(port, protocol);
  return object.add(object.hash(address, key), address, key, now, now + lifetime);
}

function find(object: NatBinding, address: number, port: number, now = NOW, protocol = UDP): number {
  const key = endpoint(port, protocol);
  return object.findOutbound(object.hash(address, key), address, key, now);
}

function findInbound(object: NatBinding, port: number, now = NOW, protocol = UDP): number {
  return object.findInbound(object.place(EXTERNAL, swap(port), protocol), now);
}

const definition = natBinding({ addresses: [EXTERNAL], flows: 1000, halfOpen: 1000, allocation: 'leased' });

describe('nat binding', () => {
  it('binds an endpoint and finds it from both sides', () => {
    const { object } = new Replica(definition);
    const slot = bind(object, 0x0100000a, 40_001);
    assert.notEqual(slot, NONE);
    assert.equal(find(object, 0x0100000a, 40_001), slot);
    assert.equal(object.externalAddress(slot), EXTERNAL);
    const port = swap(object.externalPort(slot));
    assert.ok(port >= 1024);
    assert.equal(port & 1, 1, 'parity is kept');
    assert.equal(findInbound(object, port), slot);
    assert.equal(object.internalAddress(slot), 0x0100000a);
    assert.equal(object.internalPort(slot), swap(40_001));
    assert.equal(findInbound(object, port, NOW, TCP), NONE, 'another protocol is another port');
    assert.equal(find(object, 0x0100000a, 40_001, NOW, TCP), NONE);
    assert.equal(bind(object, 0x0100000a, 40_001), slot, 'bound already');
    assert.equal(find(object, 0x0100000a, 40_001, NOW + 300), NONE, 'expired');
    assert.equal(findInbound(object, port, NOW + 300), NONE);
  });

  it('replicates by one record', () => {
    const a = new Replica(definition, 0, 2);
    const b = new Replica(definition, 1, 2);
    const slot = bind(a.object, 5, 4000);
    const records = a.drain();
    assert.equal(records.length, 1);
    assert.equal(records[0].op, NAT_BIND);
    assert.ok(records[0].words.length <= 7);
    assert.equal(b.apply(records[0], NOW), Applied.CHANGED);
    assert.equal(b.apply(records[0], NOW), Applied.UNCHANGED);
    const there = find(b.object, 5, 4000);
    assert.equal(b.object.externalPort(there), a.object.externalPort(slot));
    assert.equal(a.object.digest(NOW, true), b.object.digest(NOW, true));
    assert.equal(a.object.refusal, Refusal.NONE);
    assert.equal(a.object.rank(slot), Rank.NEW);
  });

  describe('choice of ports', () => {
    const bindMany = (object: NatBinding, count: number, first = 1024, protocol = UDP): Set<number> => {
      const ports = new Set<number>();
      for (let n = 0; n < count; n++) {
        const slot = bind(object, n, first + n, NOW, protocol);
        assert.notEqual(slot, NONE, `${n}: ${object.refusal}`);
        const port = swap(object.externalPort(slot));
        assert.ok(!ports.has(port), `port ${port} twice`);
        ports.add(port);
      }
      return ports;
    };

    it('keeps parity and the well-known range, as long as there are such ports (RFC 4787 REQ-3, REQ-4)', () => {
      const { object } = new Replica(definition);
      for (let n = 0; n < 200; n++) {
        const port = swap(object.externalPort(bind(object, n, 5000 + n)));
        assert.equal(port & 1, n & 1);
        assert.ok(port >= 1024);
        const known = swap(object.externalPort(bind(object, n, 100 + n)));
        assert.equal(known & 1, n & 1);
        assert.ok(known > 0 && known < 1024);
      }
    });

    it('is not easily guessed: differs between threads and runs (RFC 6888 REQ-15)', () => {
      const [one, other] = [0, 1].map(() => [...bindMany(new Replica(definition).object, 50)]);
      assert.notDeepEqual(one, other);
      const steps = one.slice(1).map((port, i) => port - one[i]);
      assert.ok(new Set(steps).size > 25, 'no even steps');
    });

    it('takes ports of its own lease first, then any', () => {
      const few = natBinding({
        addresses: [EXTERNAL],
        flows: 1000,
        halfOpen: 1000,
        portRange: { first: 2048, last: 2048 + 511 },
        allocation: 'leased',
      });
      const members = [0, 1].map((i) => new Replica(few, i, 2));
      const isOwn = (port: number, member: number): boolean => ((port - 2048) >> 6) % 2 === member;
      members.forEach(({ object }, member) => {
        const own = bindMany(object, 256);
        assert.ok([...own].every((port) => isOwn(port, member)));
        const rest = bindMany(object, 256, 3000);
        assert.ok([...rest].every((port) => !isOwn(port, member)));
        assert.equal(bind(object, 77_777, 9999), NONE);
        assert.equal(object.refusal, Refusal.EXHAUSTED);
        assert.equal(object.describe(NOW)['exhausted'], 1);
      });
    });

    it('shares all ports from the start when asked to', () => {
      const few = natBinding({
        addresses: [EXTERNAL],
        flows: 1000,
        halfOpen: 1000,
        portRange: { first: 2048, last: 2048 + 511 },
        allocation: 'shared',
      });
      const ports = bindMany(new Replica(few, 0, 2).object, 256);
      assert.ok([...ports].some((port) => ((port - 2048) >> 6) % 2 === 1));
    });

    it('gives an inside host the same external address for all its flows, at every member (RFC 4787 REQ-2)', () => {
      const addresses = Array.from({ length: 8 }, (_, i) => EXTERNAL + (i << 24));
      const many = natBinding({ addresses, flows: 1000, halfOpen: 1000, allocation: 'leased' });
      const members = [0, 1].map((i) => new Replica(many, i, 2).object);
      const used = new Set<number>();
      for (let host = 0; host < 50; host++) {
        const external = new Set<number>();
        members.forEach((object, member) => {
          for (const port of [4000, 4001, 80])
            external.add(object.externalAddress(bind(object, host, port + member, NOW, member === 0 ? UDP : TCP)));
        });
        assert.equal(external.size, 1);
        used.add([...external][0]);
      }
      assert.equal(used.size, 8, 'hosts are spread over the addresses');
    });

    it('goes on to other addresses when those of its own are exhausted', () => {
      const two = natBinding({
        addresses: [EXTERNAL, EXTERNAL + 1],
        flows: 1000,
        halfOpen: 1000,
        portRange: { first: 3000, last: 3009 },
        allocation: 'leased',
      });
      const { object } = new Replica(two);
      for (let n = 0; n < 20; n++) assert.notEqual(bind(object, 5, 4000 + n), NONE);
      assert.equal(bind(object, 5, 5000), NONE);
      assert.equal(object.refusal, Refusal.EXHAUSTED);
      assert.equal(entriesOf(object, NOW).filter((e) => e.externalAddress === EXTERNAL).length, 10);
    });

    it('stays with the address a host is paired with when asked to (RFC 6888 REQ-2)', () => {
      const two = natBinding({
        addresses: [EXTERNAL, EXTERNAL + 1],
        flows: 1000,
        halfOpen: 1000,
        portRange: { first: 3000, last: 3009 },
        allocation: 'leased',
        pooling: 'paired',
      });
      const { object } = new Replica(two);
      for (let n = 0; n < 10; n++) assert.notEqual(bind(object, 5, 4000 + n), NONE);
      assert.equal(bind(object, 5, 5000), NONE);
      assert.equal(object.refusal, Refusal.EXHAUSTED);
      assert.equal(new Set(entriesOf(object, NOW).map((e) => e.externalAddress)).size, 1);
    });

    it('does not give a port to another before its binding is over for the guard', () => {
      const one = natBinding({
        addresses: [EXTERNAL],
        flows: 10,
        portRange: { first: 3000, last: 3000 },
        allocation: 'leased',
      });
      const { object } = new Replica(one);
      assert.notEqual(bind(object, 1, 4000), NONE);
      assert.equal(bind(object, 2, 4000), NONE);
      assert.equal(bind(object, 2, 4000, NOW + 300 + CLOCK_SKEW_GUARD_S - 1), NONE);
      const later = NOW + 300 + CLOCK_SKEW_GUARD_S;
      assert.notEqual(bind(object, 2, 4000, later), NONE, 'an exhausted region is looked at again');
      assert.equal(find(object, 1, 4000, later), NONE);
      assert.equal(object.describe(later)['collisions'], 0);
    });

    it('gives a binding that ran out its port again, if nobody else took it', () => {
      const { object } = new Replica(definition);
      const port = object.externalPort(bind(object, 1, 4000));
      const again = bind(object, 1, 4000, NOW + 1000);
      assert.equal(object.externalPort(again), port);
      assert.equal(object.expires(again), NOW + 1300);
    });

    it('binds ICMP identifiers whatever their number', () => {
      const { object } = new Replica(definition);
      for (const identifier of [0, 1, 500, 65_535]) {
        const slot = bind(object, 1, identifier, NOW, 1);
        assert.notEqual(slot, NONE);
        assert.equal(findInbound(object, swap(object.externalPort(slot)), NOW, 1), slot);
      }
      assert.equal(bind(object, 1, 5, NOW, 47), NONE);
      assert.equal(object.refusal, Refusal.UNSUPPORTED);
    });
  });

  describe('life of a binding', () => {
    it('refreshes by rank and an eighth of the timeout, with a record that says all', () => {
      const here = new Replica(definition);
      const there = new Replica(definition);
      const slot = bind(here.object, 1, 4000);
      here.drain();
      assert.ok(here.object.refresh(slot, Rank.NEW, NOW, 300));
      assert.equal(here.drain().length, 1, 'promises an eighth of the timeout more');
      assert.ok(here.object.refresh(slot, Rank.NEW, NOW + 37, 300));
      assert.deepEqual(here.drain(), []);
      assert.ok(here.object.refresh(slot, Rank.NEW, NOW + 38, 300));
      assert.ok(here.object.refresh(slot, Rank.ESTABLISHED, NOW + 38, 7440));
      const records = here.drain();
      assert.equal(records.length, 2);
      assert.equal(there.apply(records[1], NOW), Applied.CHANGED, 'the binding itself was lost');
      assert.equal(here.object.digest(NOW + 40, true), there.object.digest(NOW + 40, true));
      assert.ok(here.object.refresh(slot, Rank.CLOSING, NOW + 50, 240));
      assert.equal(here.object.expires(slot), idleExpiry(NOW + 50, 240));
      assert.ok(here.object.renew(slot, NOW + 60, 240));
      assert.equal(here.object.rank(slot), Rank.NEW);
      assert.equal(here.object.refresh(slot, Rank.NEW, NOW + 600, 240), false, 'expired');
    });

    it('cannot be made to live for ever by renewing it all the time', () => {
      const { object } = new Replica(definition);
      const slot = bind(object, 1, 4000);
      let renewed = 0;
      for (let i = 0; i < 1000; i++) if (object.renew(slot, NOW, 240)) renewed++;
      assert.equal(renewed, 240);
      assert.equal(object.expires(slot), idleExpiry(NOW, 240));
      assert.ok(object.refresh(slot, Rank.ESTABLISHED, NOW, 7440), 'all else goes on');
      assert.ok(object.renew(slot, NOW + 1, 240), 'once a second');
      assert.equal(object.expires(slot), idleExpiry(NOW + 1, 240));
    });

    it('refuses what is over its capacity and puts nobody out (RFC 6888 REQ-11)', () => {
      const small = natBinding({ addresses: [EXTERNAL], flows: 50, halfOpen: 50, allocation: 'leased' });
      const { object } = new Replica(small);
      for (let n = 0; n < 50; n++) assert.ok(object.refresh(bind(object, n, 4000), Rank.ESTABLISHED, NOW, 300));
      assert.equal(bind(object, 50, 4000), NONE);
      assert.equal(object.refusal, Refusal.TABLE_FULL);
      for (let n = 0; n < 50; n++) assert.notEqual(find(object, n, 4000), NONE);
      assert.equal(object.describe(NOW)['used'], 50);
      assert.notEqual(bind(object, 50, 4000, idleExpiry(NOW, 300) + 2), NONE);
    });

    it('changes nothing when the log has no room', () => {
      const replica = new Replica(definition, 0, 1, 1);
      const { object } = replica;
      let n = 0;
      while (bind(object, n, 4000) !== NONE) n++;
      assert.equal(object.refusal, Refusal.LOG_FULL);
      assert.equal(find(object, n, 4000), NONE);
      assert.equal(object.refresh(find(object, 0, 4000), 1, NOW, 7440), false);
      assert.equal(object.describe(NOW)['log_full'], 2);
      assert.equal(entriesOf(object, NOW).length, n);
      assert.equal(replica.drain().length, n);
      assert.notEqual(bind(object, n, 4000), NONE);
      assert.equal(object.locksHeld(), 0);
    });

    it('shows its entries in host order, filtered', () => {
      const { object } = new Replica(definition);
      bind(object, 0x0100000a, 40_001, NOW, TCP);
      bind(object, 0x0200000a, 40_002);
      const [entry, ...others] = entriesOf(object, NOW, ({ protocol }) => protocol === TCP);
      assert.deepEqual(others, []);
      assert.equal(entry.internalAddress, 0x0100000a);
      assert.equal(entry.internalPort, 40_001);
      assert.equal(entry.externalAddress, EXTERNAL);
      assert.equal(entry.externalPort & 1, 1);
      assert.equal(entry.expires, NOW + 300);
      assert.equal(entry.dead, false);
    });
  });

  it('finds whole columns of packets as it finds each', () => {
    const addresses = [EXTERNAL, EXTERNAL + (7 << 24)];
    const { object } = new Replica(natBinding({ addresses, flows: 300, allocation: 'leased' }));
    // Expired, closing, dead and live ones.
    for (let n = 0; n < 200; n++) bind(object, n % 50, 4000 + n, NOW - (n % 5) * 100, n % 3 === 0 ? TCP : UDP);
    for (let n = 0; n < 60; n++) {
      const words = Int32Array.of(999, endpoint(n), EXTERNAL, 1024 + n * 7, NOW, 9 << 8, NOW + 50);
      object.apply(NAT_BIND, words, 0, words.length, 1, NOW);
    }
    const draws = Array.from({ length: 64 }, (_, i) => i);
    const from = object.outboundLookup(64);
    const to = object.inboundLookup(64);
    for (let round = 0; round < 20; round++) {
      // To ports that are bound, mostly; to others; and to an address that is not ours.
      const bound = entriesOf(object, NOW - 500);
      for (const i of draws) {
        const n = (i * 13 + round * 31) % 220;
        from.addresses[i] = n % 50;
        from.keys[i] = endpoint(4000 + n, n % 3 === 0 ? TCP : UDP);
        const { externalAddress, externalPort, protocol } = bound[(i * 3 + round) % bound.length];
        to.addresses[i] = i % 9 === 0 ? 77 : externalAddress;
        to.keys[i] = i % 7 === 0 ? endpoint(i * 900, i % 2 === 0 ? 47 : 1) : endpoint(externalPort, protocol);
      }
      from.slots.fill(0);
      from.find(60, NOW);
      to.find(60, NOW);
      const { addresses: inside, keys, hashes, slots } = from;
      const { addresses: external, keys: outside, places, slots: owners } = to;
      for (let i = 0; i < 60; i++) {
        assert.equal(hashes[i], object.hash(inside[i], keys[i]));
        assert.equal(slots[i], object.findOutbound(hashes[i], inside[i], keys[i], NOW));
        assert.equal(places[i], object.place(external[i], outside[i] & 0xffff, outside[i] >>> 16));
        assert.equal(owners[i], object.findInbound(places[i], NOW));
      }
      assert.ok(slots.some((slot) => slot > 0) && slots.includes(NONE));
      assert.ok(owners.some((slot) => slot > 0) && owners.includes(NONE));
      assert.equal(slots[60], 0, 'no more than asked');
    }
  });

  it('drops, counts and survives any words that are no record', () => {
    const word = fc.oneof(fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }), fc.integer({ min: 0, max: 70_000 }));
    const replica = new Replica(definition);
    const { object, region } = replica;
    bind(object, 1, 4000);
    const digest = object.digest(NOW, true);
    fc.assert(
      fc.property(fc.nat({ max: 255 }), fc.array(word, { maxLength: 9 }), (op, words) => {
        const malformed = object.describe(NOW)['malformed'];
        const before = region.i32().slice(16);
        const applied = replica.apply({ op, words }, NOW);
        if (op !== NAT_BIND || words.length !== 7) assert.equal(applied, Applied.MALFORMED);
        if (applied === Applied.MALFORMED) {
          assert.equal(object.describe(NOW)['malformed'], malformed + 1);
          assert.equal(Buffer.compare(Buffer.from(before.buffer), Buffer.from(region.i32().slice(16).buffer)), 0);
        }
      }),
      { numRuns: 100 },
    );
    assert.equal(object.locksHeld(), 0);

    const good = [5, endpoint(4000), EXTERNAL, 4000, NOW, 1 << 8, NOW + 10];
    const wrong: [number, number, string][] = [
      [1, endpoint(4000, 47), 'protocol'],
      [3, -1, 'negative port'],
      [3, 65_536, 'port past the last'],
      [3, 0, 'port 0'],
      [4, 0, 'no generation'],
      [4, NOW + 11, 'generation after expiry'],
      [5, 0, 'no claim'],
      [5, (1 << 8) | 6, 'rank'],
      [6, -1, 'expiry'],
      [6, 2 ** 31 - 1, 'expiry out of all reason'],
    ];
    for (const [index, value, why] of wrong)
      assert.equal(replica.apply({ op: NAT_BIND, words: good.with(index, value) }, NOW), Applied.MALFORMED, why);
    assert.equal(replica.apply({ op: 1, words: good.toSpliced(2, 1) }, NOW), Applied.MALFORMED, 'a record by place');
    const foreign = object.describe(NOW)['foreign_address'];
    assert.equal(replica.apply({ op: NAT_BIND, words: good.with(2, 77) }, NOW), Applied.FULL, 'no address of ours');
    assert.equal(object.describe(NOW)['foreign_address'], foreign + 1);
    assert.equal(object.digest(NOW, true), digest);
    assert.equal(replica.apply({ op: NAT_BIND, words: good }, NOW), Applied.CHANGED);
    const late = [6, endpoint(4000), EXTERNAL, 4001, NOW - 90, 1 << 8, NOW - REMEMBERED_S];
    assert.equal(replica.apply({ op: NAT_BIND, words: late }, NOW), Applied.CHANGED, 'its claim counts');
    assert.equal(find(object, 6, 4000, NOW - 80), NONE, 'its flow is not worth remembering');
  });

  it('pauses at least every thousand slots while it shows entries', () => {
    const { object } = new Replica(
      natBinding({ addresses: [EXTERNAL], flows: 3000, halfOpen: 3000, allocation: 'leased' }),
    );
    for (let n = 0; n < 2500; n++) bind(object, n, 4000, NOW - (n % 2 === 0 ? 1000 : 0));
    let shown = 0;
    let pauses = 0;
    for (const entry of object.entries(NOW, ({ internalAddress }) => internalAddress % 501 === 0))
      if (entry === null) pauses++;
      else shown++;
    assert.equal(shown, 2, 'filtered and expired ones are passed over');
    assert.ok(pauses >= 5 && pauses <= 8, `${pauses} pauses in ${object.describe(NOW)['slots']} slots`);
    assert.equal([...object.entries(NOW + 10_000)].length, 8);
  });

  it('says what is wrong with its options', () => {
    const base = { addresses: [EXTERNAL], flows: 10, allocation: 'leased' } as const;
    assert.throws(() => natBinding({ ...base, addresses: [] }), /0 external addresses/);
    assert.throws(() => natBinding({ ...base, addresses: [1, 1] }), /twice/);
    assert.throws(() => natBinding({ ...base, portRange: { first: 5, last: 4 } }), /port range/);
    assert.throws(() => natBinding({ ...base, portRange: { first: 0, last: 4 } }), /port range/);
    assert.throws(() => natBinding({ ...base, flows: 1.5 }), /capacity 1.5/);
  });

  it('is read only where it was opened so', () => {
    const { region } = new Replica(definition);
    const object = definition.open({
      id: 0,
      region,
      secret: Int32Array.of(1, 2, 3, 4),
      writer: null,
      memberIndex: 0,
      memberCount: 1,
    });
    assert.equal(find(object, 1, 4000), NONE);
    assert.throws(() => bind(object, 1, 4000), /read only/);
  });
});
