/**
 * Held entries: every packet of an entry waits as its first one does, in one worker and in several,
 * and none overtakes another.
 */

import { strict as assert } from 'node:assert';
import { natBinding } from '../../../shm/objects/nat/nat-binding.js';
import { natSessions } from '../../../shm/objects/nat/nat-sessions.js';
import { ENTRY_HELD_MAX, heldEntriesBytes } from '../../../shm/objects/table/held-entries.js';
import { HELD_MAX } from '../../../workers/plane/holds.js';
import { seeded } from '../../../workers/transport/fault.js';
import { FirewallSite } from '../support/firewall-site.js';
import { NatSite } from '../support/nat-site.js';
import { on, type Plane } from '../support/plane.js';
import type { Site } from '../support/site.js';

const INSIDE = 0;
const OUTSIDE = 1;
const HOLD_MS = 50;
const SYMMETRIC = { filtering: 'endpoint-independent' };
const BY_PORT = { filtering: 'address-and-port-dependent', sessions: 4096 };

const natSite = (options: Readonly<Record<string, unknown>> = SYMMETRIC, workers = 1) =>
  new NatSite({ workers, options: { hold_members: 1, hold_ms: HOLD_MS, flows: 8192, half_open: 100, ...options } });
const firewallSite = (workers = 1) =>
  new FirewallSite({
    workers,
    rules: `zone lan = { port inside }\nfrom lan hold 1 within ${HOLD_MS} ms accept`,
    options: { connections: 8192, half_open: 100 },
  });

/** A datagram by which it can be known again. */
const datagram = (id: number, source: number, remote: number) =>
  on(INSIDE, `udp 10.0.0.5:${source} > 198.51.100.7:${remote} id ${id}`);
/** The IP identification of a frame without tags. */
const idOf = (frame: Uint8Array): number => (frame[18] << 8) | frame[19];

function sent(plane: Plane): number[] {
  return plane.driver.sent.splice(0).map(({ frame }) => idOf(frame));
}

/** Lets packets in, in one batch, and returns which leave with it. */
function round(plane: Plane, ...packets: ReturnType<typeof on>[]): number[] {
  for (const { port, frame } of packets) plane.driver.inject(port, frame);
  plane.dataPlane.doWork();
  return sent(plane);
}

/** The other member has everything that a worker has logged by now. */
function acknowledge(site: Site, worker = 0): void {
  site.plane.holdBoard.publish(worker, 1, site.planes[worker].log.position);
}

const SITES: [string, (workers?: number) => Site][] = [
  ['a NAT', (workers) => natSite(SYMMETRIC, workers)],
  ['a NAT that filters', (workers) => natSite(BY_PORT, workers)],
  ['a firewall', firewallSite],
];

for (const [name, open] of SITES)
  describe(`held entries of ${name}`, () => {
    it('hold the packets that follow, of the same batch and of later ones, until the record is acknowledged', () => {
      const site = open();
      const { plane } = site;
      assert.deepEqual(round(plane, datagram(1, 4000, 53), datagram(2, 4000, 53)), []);
      assert.deepEqual(round(plane, datagram(3, 4000, 53)), []);
      plane.nowMs += HOLD_MS - 1;
      assert.deepEqual(round(plane, datagram(4, 4000, 53)), []);
      acknowledge(site);
      assert.deepEqual(round(plane, datagram(5, 4000, 53)), [1, 2, 3, 4, 5]);
      assert.deepEqual(round(plane, datagram(6, 4000, 53)), [6]);
      const { hold_packets, hold_expired } = plane.counts();
      assert.deepEqual({ hold_packets, hold_expired }, { hold_packets: 4, hold_expired: undefined });
    });

    it('hold no packet longer than the first, nor one that comes after', () => {
      const site = open();
      const { plane } = site;
      round(plane, datagram(1, 4000, 53));
      plane.nowMs += HOLD_MS - 1;
      assert.deepEqual(round(plane, datagram(2, 4000, 53)), []);
      plane.nowMs += 1;
      assert.deepEqual(round(plane, datagram(3, 4000, 53)), [1, 2, 3]);
      assert.equal(plane.counts()['hold_expired'], 2);
    });

    it('end where too many packets of one wait; all before leave first, and other entries wait on', () => {
      const site = open();
      const { plane } = site;
      assert.deepEqual(round(plane, datagram(1, 5000, 53)), []);
      const ids = Array.from({ length: ENTRY_HELD_MAX + 3 }, (_, n) => n + 2);
      const left = ids.flatMap((id) => round(plane, datagram(id, 4000, 53)));
      assert.deepEqual(left, ids);
      assert.equal(plane.metrics.total('held_packets'), 1);
      assert.equal(plane.counts()['hold_full'], 3);
      acknowledge(site);
      assert.deepEqual(round(plane), [1]);
    });

    it('keep their order where as many packets wait as may', () => {
      const site = open();
      const { plane } = site;
      for (let n = 1; n <= HELD_MAX; n++) assert.deepEqual(round(plane, datagram(n, 4000 + n, 53)), []);
      const more = HELD_MAX + 1;
      assert.deepEqual(round(plane, datagram(more, 4000 + more, 53)), [more], 'a new entry finds no room');
      assert.deepEqual(round(plane, datagram(more + 1, 4001, 53)), [1, more + 1], 'an entry that waits');
      assert.deepEqual(round(plane, datagram(more + 2, 4000 + more, 53)), [], 'in the room that this made');
      acknowledge(site);
      assert.equal(round(plane).length, HELD_MAX);
      assert.equal(plane.dropped(), 0);
    });

    it('wait in every worker for the one that logged the record', () => {
      const site = open(2);
      const [one, other] = site.planes;
      // Records of other entries, so that the positions of the two logs differ.
      for (let n = 0; n < 5; n++) round(other, datagram(100 + n, 6000 + n, 53));
      acknowledge(site, 1);
      assert.equal(round(other).length, 5);
      assert.deepEqual(round(one, datagram(1, 4000, 53)), []);
      assert.deepEqual(round(other, datagram(2, 4000, 53)), []);
      acknowledge(site, 1);
      assert.deepEqual(round(other, datagram(3, 4000, 53)), [], 'what the other worker logged says nothing');
      acknowledge(site, 0);
      assert.deepEqual(round(other, datagram(4, 4000, 53)), [2, 3, 4]);
      assert.deepEqual(round(one), [1]);
    });

    it('end in every worker, also where the one that logged the record has logged other records since', () => {
      const site = open(2);
      const [one, other] = site.planes;
      assert.deepEqual(round(one, datagram(1, 4000, 53)), []);
      assert.deepEqual(round(other, datagram(2, 4000, 53)), []);
      one.log.claim(0, 1, 1);
      one.log.commit();
      // A round in which nothing is held.
      assert.deepEqual(round(one, on(OUTSIDE, 'udp 198.51.100.9:1 > 203.0.113.1:9 id 9')), []);
      acknowledge(site, 0);
      assert.deepEqual(round(other, datagram(3, 4000, 53)), [2, 3]);
      assert.deepEqual(round(one), [1]);
    });

    it('do not hold packets of the other side', () => {
      const site = open();
      const { plane } = site;
      round(plane, datagram(1, 4000, 53));
      plane.nowMs += HOLD_MS;
      plane.dataPlane.doWork();
      const [{ frame }] = plane.driver.sent.splice(0);
      const port = (frame[34] << 8) | frame[35];
      const address = name === 'a firewall' ? '10.0.0.5' : '203.0.113.1';
      assert.deepEqual(round(plane, on(OUTSIDE, `udp 198.51.100.7:53 > ${address}:${port} id 2`)), [2]);
    });

    it('keep order, wait for the record or the deadline, and lose nothing, whatever happens (property)', () => {
      for (let seed = 1; seed <= 8; seed++) for (const workers of [1, 2]) new Life(open(workers), seed).run();
    });
  });

describe('memory for held entries of a NAT', () => {
  const bytes = (holds: boolean): number => {
    const bindings = natBinding({ addresses: [1], flows: 1024, allocation: 'shared', holds });
    const sessions = natSessions({ sessions: 1024, holds });
    return (bindings.localBytes?.(1) ?? 0) + (sessions.localBytes?.(1) ?? 0);
  };

  it('is there only if entries are to be held, as an instance without refuses to hold any', () => {
    assert.equal(bytes(true) - bytes(false), 2 * heldEntriesBytes(2048));
    const { bindings } = new NatSite();
    assert.throws(() => bindings.held.holdNext(1, 0), /no memory for entries that are held/);
    bindings.held.holdNext(0, 0);
  });
});

/** One random life of a site. */
class Life {
  private readonly site: Site;
  private readonly seed: number;
  private readonly random: () => number;
  /**
   * By packet: its flow, when it came, and before which position of which log its entry's record is
   * not acknowledged.
   */
  private readonly packets: {
    flow: string;
    came: number;
    worker: number;
    entry: { worker: number; before: number; made: number };
  }[] = [];
  private readonly entries = new Map<string, { worker: number; before: number; made: number }>();
  private readonly left = new Set<number>();
  private readonly lastOf = new Map<string, number>();
  private nowMs = 0;

  constructor(site: Site, seed: number) {
    this.site = site;
    this.seed = seed;
    this.random = seeded(seed);
  }

  run(): void {
    const { planes } = this.site;
    for (let step = 0; step < 300; step++) {
      const move = this.draw(10);
      if (move < 2) this.pass(this.draw(12));
      else if (move === 2 && this.draw(3) === 0) this.burst();
      else if (move === 3) this.acknowledge();
      for (const [worker, plane] of planes.entries()) {
        if (this.draw(3) > 0) this.inject(worker);
        const send = plane.driver.send.bind(plane.driver);
        const takes = this.draw(8);
        if (takes === 0) plane.driver.send = () => false;
        plane.dataPlane.doWork();
        if (takes === 0) plane.driver.send = send;
        this.observe(worker, takes === 0);
      }
    }
    // Nothing stays.
    this.pass(HOLD_MS);
    for (const [worker, plane] of planes.entries()) {
      plane.dataPlane.doWork();
      this.observe(worker, false);
      assert.equal(plane.metrics.total('held_packets'), 0);
    }
    const dropped = planes.reduce((sum, plane) => sum + plane.dropped(), 0);
    assert.equal(this.left.size + dropped, this.packets.length, this.what());
  }

  private what(): string {
    return `seed ${this.seed}, ${this.site.planes.length} workers, ${this.nowMs} ms`;
  }

  private draw(below: number): number {
    return Math.floor(this.random() * below);
  }

  private pass(ms: number): void {
    this.nowMs += ms;
    for (const plane of this.site.planes) plane.nowMs += ms;
  }

  /** The other member has what some worker had logged, or has all of it. */
  private acknowledge(): void {
    const worker = this.draw(this.site.planes.length);
    this.site.plane.holdBoard.publish(worker, 1, this.site.planes[worker].log.position);
  }

  /** Packets of a few sockets to a few remotes; each flow comes to a worker of its own. */
  private inject(worker: number): void {
    for (let n = this.draw(4); n > 0; n--) {
      const remote = worker + this.site.planes.length * this.draw(3);
      this.add(worker, 4000 + this.draw(6) + 10 * Math.trunc(this.nowMs / 200), 50 + remote);
    }
  }

  private burst(): void {
    const port = 4000 + this.draw(6) + 10 * Math.trunc(this.nowMs / 200);
    for (let n = 0; n < 50; n++) this.add(0, port, 50);
  }

  private add(worker: number, source: number, remote: number): void {
    const plane = this.site.planes[worker];
    const id = this.packets.length;
    const flow = `${source}-${remote}`;
    // Of a NAT that filters, the session may be newer than the binding: then this is the weaker
    // condition.
    const key = this.site instanceof FirewallSite ? flow : String(source);
    let entry = this.entries.get(key);
    if (entry === undefined) {
      entry = { worker, before: plane.log.position, made: this.nowMs };
      this.entries.set(key, entry);
    }
    this.packets.push({ flow, came: this.nowMs, worker, entry });
    const { port, frame } = datagram(id, source, remote);
    plane.driver.inject(port, frame);
  }

  private observe(worker: number, isBlocked: boolean): void {
    const plane = this.site.planes[worker];
    const isFull = plane.metrics.total('hold_full') > 0;
    for (const id of sent(plane)) {
      assert.ok(!this.left.has(id), `${id} left twice: ${this.what()}`);
      this.left.add(id);
      const { flow, entry } = this.packets[id];
      const last = this.lastOf.get(flow) ?? -1;
      assert.ok(id > last, `${id} of flow ${flow} left after ${last}: ${this.what()}`);
      this.lastOf.set(flow, id);
      const published = this.site.plane.holdBoard.position(entry.worker, 1);
      const isAcknowledged = ((published - entry.before) | 0) > 0;
      const isPast = this.nowMs >= entry.made + HOLD_MS;
      assert.ok(isAcknowledged || isPast || isFull, `${id} of flow ${flow} did not wait: ${this.what()}`);
    }
    if (isBlocked || plane.dropped() > 0) return;
    for (const [id, packet] of this.packets.entries())
      if (packet.worker === worker && this.nowMs >= packet.came + HOLD_MS)
        assert.ok(this.left.has(id), `${id} of flow ${packet.flow} waits since ${packet.came}: ${this.what()}`);
  }
}
