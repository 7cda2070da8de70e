import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { CLOCK_SKEW_GUARD_S, REMEMBERED_S } from '../../../../shm/clock.js';
import { NONE } from '../../../../shm/none.js';
import {
  ALLOCATIONS,
  type Allocation,
  type NatBinding,
  type NatBindingOptions,
  natBinding,
  portAndProtocol,
  Rank,
} from '../../../../shm/objects/nat/nat-binding.js';
import { idleExpiry } from '../../../../shm/objects/table/idle-expiry.js';
import { CLUSTER_SECRET, Replica, type TestRecord } from '../replica.js';
import { entriesOf } from './nat-model.js';

const ICMP = 1;
const TCP = 6;
const UDP = 17;
const NOW = 70_000_000;
const EXTERNAL = 0x010200c0;
const BLOCK = 64;

const swap = (port: number): number => ((port & 0xff) << 8) | (port >>> 8);

function definitionOf(allocation: Allocation, more: Partial<NatBindingOptions> = {}) {
  return natBinding({ addresses: [EXTERNAL], flows: 4096, halfOpen: 4096, allocation, ...more });
}

/** Binds an endpoint; returns its external port, 0 if there was none. */
function bind(object: NatBinding, address: number, port: number, now = NOW, protocol = UDP): number {
  const key = portAndProtocol(swap(port), protocol);
  const slot = object.add(object.hash(address, key), address, key, now, now + 300);
  return slot === NONE ? 0 : swap(object.externalPort(slot));
}

function slotOf(object: NatBinding, address: number, port: number, now = NOW): number {
  const key = portAndProtocol(swap(port), UDP);
  return object.findOutbound(object.hash(address, key), address, key, now);
}

/** Ports of 60 endpoints, the first of each bound in an object of its own. */
function firstPorts(allocation: Allocation, member: number, protocol: number, secret = CLUSTER_SECRET): number[] {
  const definition = definitionOf(allocation, { flows: 64, halfOpen: 64 });
  const { object } = new Replica(definition, member, 2, undefined, secret);
  return Array.from({ length: 60 }, (_, n) => bind(object, 0x0100000a + (n << 24), 40_000 + 7 * n, NOW, protocol));
}

const isOwn = (port: number, member: number): boolean => Math.trunc((port - 1024) / BLOCK) % 2 === member;

describe('ports proposed by key', () => {
  for (const protocol of [TCP, UDP, ICMP])
    it(`are the same at every member and after a restart: protocol ${protocol}`, () => {
      const ports = firstPorts('keyed', 0, protocol);
      assert.deepEqual(firstPorts('keyed', 1, protocol), ports);
      assert.deepEqual(firstPorts('keyed', 0, protocol), ports);
      const another = firstPorts('keyed', 0, protocol, Int32Array.of(1, 2, 3, 5));
      assert.ok(another.filter((port, n) => port === ports[n]).length <= 1, 'another secret gives others');
    });

  it('are those of the member for TCP alone, where it is hybrid, and the same after a restart', () => {
    for (const member of [0, 1]) {
      const ports = firstPorts('hybrid', member, TCP);
      assert.ok(ports.every((port) => isOwn(port, member)));
      assert.deepEqual(firstPorts('hybrid', member, TCP), ports);
      for (const protocol of [UDP, ICMP])
        assert.deepEqual(firstPorts('hybrid', member, protocol), firstPorts('keyed', 0, protocol));
    }
  });

  it('are leased ones, at random, where there is no secret', () => {
    const nothing = new Int32Array(4);
    for (const allocation of ['keyed', 'hybrid'] as const)
      for (const member of [0, 1]) {
        const ports = firstPorts(allocation, member, UDP, nothing);
        assert.ok(ports.every((port) => isOwn(port, member)));
        assert.notDeepEqual(firstPorts(allocation, member, UDP, nothing), ports);
      }
    assert.equal(new Replica(definitionOf('keyed'), 0, 2, undefined, nothing).object.proposesByKey, false);
    assert.equal(new Replica(definitionOf('keyed')).object.proposesByKey, true);
    assert.equal(new Replica(definitionOf('leased')).object.proposesByKey, false);
  });

  it('follow a secret that changes while the thread runs; bindings stay', () => {
    const secret = Int32Array.from(CLUSTER_SECRET);
    const { object } = new Replica(definitionOf('keyed'), 0, 2, undefined, secret);
    const before = bind(object, 5, 4000);
    secret[0]++;
    assert.equal(bind(object, 5, 4000), before);
    const fresh = new Replica(definitionOf('keyed'), 0, 2, undefined, secret).object;
    assert.equal(bind(object, 6, 4000), bind(fresh, 6, 4000));
    assert.notEqual(bind(fresh, 5, 4000), before);
  });

  for (const allocation of ALLOCATIONS)
    it(`keep parity and the well-known range: ${allocation} (RFC 4787 REQ-3, REQ-4)`, () => {
      const { object } = new Replica(definitionOf(allocation), 1, 2);
      for (let n = 0; n < 200; n++)
        for (const protocol of [TCP, UDP]) {
          const port = bind(object, n, 5000 + n, NOW, protocol);
          assert.ok(port >= 1024 && (port & 1) === (n & 1), `${port}`);
          const known = bind(object, n, 100 + n, NOW, protocol);
          assert.ok(known > 0 && known < 1024 && (known & 1) === (n & 1), `${known}`);
        }
    });

  it('are spread evenly over all ports, for endpoints next to each other too', () => {
    const { object } = new Replica(definitionOf('keyed', { flows: 1 << 15, halfOpen: 1 << 15 }), 0, 2);
    const counts = new Array(16).fill(0);
    const all = 16_000;
    for (let n = 0; n < all; n++) counts[Math.trunc((bind(object, n >> 8, 30_000 + (n & 255)) - 1024) / 4032)]++;
    // The standard deviation of each is 31.
    for (const count of counts) assert.ok(Math.abs(count - all / 16) < 150, `${counts}`);
  });

  it('are tried one after the other, then leased ones are taken, then any, until none is left', () => {
    const definition = definitionOf('keyed', { portRange: { first: 2048, last: 2048 + 511 } });
    const members = [0, 1].map((member) => new Replica(definition, member, 2).object);
    // Half of the ports, in the same order: nearly all find a proposal free, and all of these are
    // the same at both.
    const ports = members.map((object) => Array.from({ length: 256 }, (_, n) => bind(object, n, 3000 + n)));
    const differ = ports[0].filter((port, n) => port !== ports[1][n]).length;
    assert.ok(differ <= 5, `${differ} of 256 differ`);
    assert.equal(new Set(ports[0]).size, 256);
    for (const object of members) {
      for (let n = 256; n < 512; n++) assert.notEqual(bind(object, n, 3000 + n), 0);
      assert.equal(bind(object, 512, 3000), 0);
    }
  });

  it('are of the address that the host is paired with, at every member', () => {
    const addresses = Array.from({ length: 8 }, (_, i) => EXTERNAL + (i << 24));
    const members = [0, 1].map((member) => new Replica(definitionOf('keyed', { addresses }), member, 2).object);
    for (let host = 0; host < 50; host++)
      for (const port of [4000, 4001, 80]) {
        const [a, b] = members.map((object) => {
          assert.notEqual(bind(object, host, port), 0);
          return object.externalAddress(slotOf(object, host, port));
        });
        assert.equal(a, b);
      }
  });
});

describe('a port that a member takes', () => {
  const PORTS = { first: 512, last: 512 + 2047 };
  const site = fc.record({
    allocation: fc.constantFrom('leased' as const, 'hybrid' as const),
    members: fc.integer({ min: 2, max: 4 }),
    addresses: fc.integer({ min: 1, max: 2 }),
    /** Linux chooses even ports for connections, as long as there are any. */
    step: fc.constantFrom(1, 2),
    source: fc.constantFrom(100, 4000),
    reuseAfterS: fc.constantFrom(0, 120),
    /** Seconds that a binding lasts: short ones leave ports that rest. */
    lifetime: fc.constantFrom(20, 3600),
  });

  type SiteOptions = typeof site extends fc.Arbitrary<infer A> ? A : never;

  /**
   * Member 0 binds endpoints until it finds no port. Returns how many ports it took of the others.
   */
  function fill({ allocation, members, addresses, step, source, reuseAfterS, lifetime }: SiteOptions): number {
    const definition = definitionOf(allocation, {
      addresses: Array.from({ length: addresses }, (_, i) => EXTERNAL + (i << 24)),
      portRange: PORTS,
      reuseAfterS,
    });
    const [first, ...others] = Array.from({ length: members }, (_, member) => new Replica(definition, member, members));
    let now = NOW;
    let foreign = 0;
    for (let n = 0; n < 4000; n++) {
      if (n % 8 === 0) now++;
      const key = portAndProtocol(swap(source + step * (n % 100)), TCP);
      const slot = first.object.add(first.object.hash(n, key), n, key, now, now + lifetime);
      if (slot === NONE) break;
      first.object.refresh(slot, Rank.ESTABLISHED, now, lifetime);
      const place = first.object.place(first.object.externalAddress(slot), first.object.externalPort(slot), TCP);
      if (first.object.leases.owner(place) !== 0) foreign++;
      for (const { object } of others)
        assert.ok(
          object.leases.mayBeBoundElsewhere(place, now, () => true),
          `the ${n}th, at ${place & 0xffff}`,
        );
      for (const record of first.drain()) for (const other of others) other.apply(record, now);
    }
    return foreign;
  }

  it('can be its own as every other member sees it before the record comes, also when its leases are used up', () => {
    let foreign = 0;
    fc.assert(
      fc.property(site, (options) => {
        foreign += fill(options);
      }),
      { numRuns: 15 },
    );
    assert.ok(foreign > 0, 'ports of others were taken');
  });

  it('is of its own lease as long as one of either parity is free there', () => {
    const flows = 8192;
    const portRange = { first: 2048, last: 2048 + 8191 };
    const { object } = new Replica(definitionOf('leased', { portRange, flows, halfOpen: flows }), 0, 2, 1 << 18);
    for (let n = 0; n < 4096; n++)
      assert.equal(object.leases.owner(object.place(EXTERNAL, swap(bind(object, n, 4000)), UDP)), 0, `the ${n}th`);
    assert.equal(object.leases.owner(object.place(EXTERNAL, swap(bind(object, 4096, 4000)), UDP)), 1);
  });
});

describe('an endpoint that is bound again', () => {
  const establish = (object: NatBinding, host: number): number => {
    const port = bind(object, host, 4000);
    assert.ok(object.refresh(slotOf(object, host, 4000), Rank.ESTABLISHED, NOW, 300));
    return port;
  };
  const end = idleExpiry(NOW, 300);

  it('gets its own port back while that rests for others (RFC 6888 REQ-8)', () => {
    const { object } = new Replica(definitionOf('keyed', { portRange: { first: 3000, last: 3000 }, reuseAfterS: 120 }));
    assert.equal(establish(object, 5), 3000);
    const later = end + REMEMBERED_S;
    object.sweep(later, object.tableSlots);
    assert.equal(object.describe(later)['used'], 0, 'forgotten');
    assert.equal(bind(object, 6, 4000, later), 0, 'it rests');
    assert.equal(bind(object, 5, 4000, later), 3000);
    assert.equal(object.describe(later)['collisions'], 0);
  });

  it('gets it back at once after the binding was evicted, by a quota or for want of ports', () => {
    const { object } = new Replica(definitionOf('keyed', { halfOpen: 1, reuseAfterS: 120 }));
    const port = bind(object, 5, 4000);
    const later = NOW + CLOCK_SKEW_GUARD_S;
    assert.notEqual(bind(object, 6, 4000, later), 0);
    assert.equal(slotOf(object, 5, 4000, later), NONE, 'evicted');
    const again = later + CLOCK_SKEW_GUARD_S;
    assert.equal(bind(object, 5, 4000, again), port);
    // Both directions agree.
    const place = object.place(EXTERNAL, swap(port), UDP);
    assert.equal(object.findInbound(place, again), slotOf(object, 5, 4000, again));
  });
});

describe('a port that two members gave away at once', () => {
  it('is the larger endpoint’s; the other is bound anew within the same second, and stays though ports are short', () => {
    const definition = definitionOf('shared', { portRange: { first: 5000, last: 5001 } });
    const members = [new Replica(definition, 0, 2), new Replica(definition, 1, 2)];
    const ports = members.map(({ object }, n) => bind(object, 5 + n, 4000));
    assert.deepEqual(ports, [5000, 5000]);
    const records = members.map((member) => member.drain());
    members.forEach((member, n) => {
      for (const record of records[1 - n]) member.apply(record, NOW);
    });
    const { object } = members[0];
    assert.equal(object.collisions, 1);
    assert.equal(slotOf(object, 5, 4000), NONE, 'lost its port');
    assert.equal(bind(object, 5, 4000), 5001);
    for (const now of [NOW, NOW + 1])
      for (let n = 0; n < 6; n++) {
        object.room.keepFree(now);
        assert.notEqual(slotOf(object, 5, 4000, now), NONE, 'too young to be evicted');
      }
  });
});

describe('an endpoint whose first packets leave by several members at once', () => {
  const HOSTS = 12;
  const member = fc.nat({ max: 2 });
  const action = fc.oneof(
    { weight: 6, arbitrary: fc.record({ member, host: fc.nat({ max: HOSTS - 1 }), rank: fc.nat({ max: 2 }) }) },
    { weight: 3, arbitrary: fc.record({ member, deliver: fc.nat({ max: 5 }) }) },
    { weight: 1, arbitrary: fc.record({ wait: fc.integer({ min: 1, max: 20 }) }) },
  );
  type Action = typeof action extends fc.Arbitrary<infer A> ? A : never;

  /**
   * Runs the actions at three members whose records are late. Returns the ports that each endpoint
   * was seen with.
   */
  function run(allocation: Allocation, actions: readonly Action[], seed: number) {
    const definition = definitionOf(allocation, { flows: 64, halfOpen: 64 });
    const sites = [0, 1, 2].map((i) => new Replica(definition, i, 3));
    const queues: TestRecord[][] = [[], [], []];
    const ports = Array.from({ length: HOSTS }, () => new Set<number>());
    let now = NOW;
    let drawn = seed;
    const draw = (below: number): number => {
      drawn = (Math.imul(drawn, 1664525) + 1013904223) | 0;
      return (drawn >>> 8) % below;
    };
    const deliver = (to: number, count: number): void => {
      for (let i = 0; i < count && queues[to].length > 0; i++)
        sites[to].apply(queues[to].splice(draw(queues[to].length), 1)[0], now);
    };
    for (const one of actions)
      if ('wait' in one) now += one.wait;
      else if ('deliver' in one) deliver(one.member, one.deliver);
      else {
        const { object } = sites[one.member];
        ports[one.host].add(bind(object, one.host, 4000, now));
        object.refresh(slotOf(object, one.host, 4000, now), one.rank, now, 3600);
        for (const record of sites[one.member].drain())
          for (const [i, queue] of queues.entries()) if (i !== one.member) queue.push(record);
      }
    for (const to of [0, 1, 2]) deliver(to, Number.POSITIVE_INFINITY);
    return { sites: sites.map(({ object }) => object), ports, now };
  }

  it('has one port at all of them, ever, if it is proposed by key; whatever the delays', () => {
    fc.assert(
      fc.property(fc.array(action, { maxLength: 80 }), fc.integer(), (actions, seed) => {
        const { sites, ports, now } = run('keyed', actions, seed);
        for (const [host, seen] of ports.entries()) assert.ok(seen.size <= 1, `host ${host}: ${[...seen]}`);
        for (const object of sites) {
          assert.equal(object.splits, 0);
          assert.equal(object.collisions, 0);
          assert.equal(object.digest(now), sites[0].digest(now));
        }
      }),
      { numRuns: 100 },
    );
  });

  it('ends with one of two ports at all of them if it is leased, and each of them counts it', () => {
    const definition = definitionOf('leased');
    const [a, b, c] = [0, 1, 2].map((i) => new Replica(definition, i, 3));
    const first = [a, b].map(({ object }) => bind(object, 5, 4000));
    assert.notEqual(first[0], first[1]);
    const [ofA, ofB] = [a.drain(), b.drain()];
    for (const record of [...ofB, ...ofB]) for (const to of [a, c]) to.apply(record, NOW);
    for (const record of [...ofA, ...ofA]) for (const to of [b, c]) to.apply(record, NOW);
    const kept = Math.max(...first);
    const lost = Math.min(...first);
    for (const { object } of [a, b, c]) {
      assert.deepEqual([object.splits, object.collisions], [1, 0], 'once, though its record came twice');
      assert.equal(bind(object, 5, 4000), kept);
      assert.equal(entriesOf(object, NOW).length, 1);
      assert.equal(object.findInbound(object.place(EXTERNAL, swap(lost), UDP), NOW), NONE);
      assert.equal(object.digest(NOW), a.object.digest(NOW));
    }
    // The binding that went on with another port is noted where that was.
    const losing = first[0] === lost ? a.object : b.object;
    for (const object of [a.object, b.object, c.object]) {
      const isMoved = object === losing || (object === c.object && first[1] === lost);
      assert.equal(object.moves.next() !== NONE, isMoved);
    }
  });

  it('leaves the port that it loses unused for a while, at every member', () => {
    const one = (first: number): ReturnType<typeof definitionOf> =>
      definitionOf('shared', { portRange: { first, last: first }, reuseAfterS: 120 });
    // Each has one port to propose, and both are valid for the other.
    const both = definitionOf('shared', { portRange: { first: 3000, last: 3001 }, reuseAfterS: 120 });
    const [a, b] = [new Replica(one(3000), 0, 2), new Replica(one(3001), 1, 2)];
    const bound = [a, b].map(({ object }) => {
      const port = bind(object, 5, 4000);
      object.refresh(slotOf(object, 5, 4000), Rank.ESTABLISHED, NOW, 300);
      return port;
    });
    assert.deepEqual(bound, [3000, 3001]);
    const [ofA, ofB] = [a.drain(), b.drain()];
    const third = new Replica(both, 1, 2);
    for (const [records, to] of [
      [ofB, a],
      [ofA, b],
      [ofA, third],
      [ofB, third],
    ] as const)
      for (const record of records) to.apply(record, NOW);
    assert.equal(bind(a.object, 6, 4000), 0, 'where it was bound');
    assert.equal(bind(third.object, 6, 4000), 0, 'and where it was heard of');
    assert.notEqual(bind(third.object, 6, 4000, NOW + 120), 0);
  });
});

describe('moves of bindings', () => {
  it('are read once by each thread, the latest ones if there were too many', () => {
    const { object } = new Replica(definitionOf('keyed'));
    const { moves } = object;
    assert.equal(moves.any, false);
    for (let n = 0; n < 3000; n++) moves.note(n, 100 + n, n & 3);
    const read: number[] = [];
    while (moves.any) {
      const slot = moves.next();
      assert.deepEqual([moves.generation, moves.rank], [100 + slot, slot & 3]);
      read.push(slot);
    }
    assert.deepEqual(
      read,
      Array.from({ length: 512 }, (_, i) => 2488 + i),
    );
    assert.equal(moves.next(), NONE);
  });
});
