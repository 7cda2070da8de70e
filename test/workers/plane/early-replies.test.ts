import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { Phase } from '../../../shm/control.js';
import { swap16 } from '../../../workers/packet/ipv4.js';
import type { Stage } from '../../../workers/plane/chain.js';
import {
  VAIN_OF_SOURCE,
  VAIN_PER_SECOND,
  WAITING_PER_DESTINATION,
  WAITING_PER_SOURCE,
} from '../../../workers/plane/early-bounds.js';
import { createEarlyReplies, WAITING_MAX } from '../../../workers/plane/early-replies.js';
import { frame6 } from '../support/frames6.js';
import { on, Plane, type PlaneOptions, SeenMembers } from '../support/plane.js';

const NEAR = 0;
const FAR = 1;

/**
 * A middlebox whose state is a set of destination ports: packets to others wait, and are dropped at
 * last.
 */
function awaiting(plane: Plane, known: ReadonlySet<number>, sides?: Stage['sides']): Stage {
  const { early, catalogue } = plane;
  const reason = catalogue.column('no_egress');
  const expected = early.expect(1, (words, at) => known.has(words[at]));
  const { batch } = plane;
  const process = (): void => {
    for (let i = 0; i < batch.count; i++) {
      if (batch.egress[i] < 0 || early.follows(i)) continue;
      const to = swap16(batch.ports[i] >>> 16);
      if (known.has(to)) continue;
      expected.key[0] = to;
      if (!expected.wait(i)) batch.drop(i, reason);
    }
  };
  return { name: 'awaiting', process, ...(sides && { sides }) };
}

function planeWith(known: ReadonlySet<number>, options: PlaneOptions = {}): Plane {
  const plane = new Plane({ early: new SeenMembers([false, true]), ...options });
  plane.open([awaiting(plane, known)]);
  return plane;
}

/** A reply to an inside port, with a number. */
function reply(to: number, n = 0, from = '198.51.100.7:53') {
  return on(FAR, `udp ${from} > 10.0.0.5:${to} id ${n} len ${n % 50}`);
}

const idOf = (frame: Uint8Array) => (frame[18] << 8) | frame[19];

function ids(plane: Plane, ...packets: { port: number; frame: Uint8Array }[]): number[] {
  return plane.passFrames(...packets).map(({ frame }) => idOf(frame));
}

/** The state of these destination ports comes. */
function learn(plane: Plane, known: Set<number>, ...ports: number[]): void {
  for (const port of ports) known.add(port);
  plane.applied++;
  plane.nowMs += 5;
}

describe('early replies', () => {
  it('wait until their state is here, then go on in order, and were received once', () => {
    const known = new Set<number>();
    const plane = planeWith(known);
    assert.deepEqual(ids(plane, reply(1000, 1), reply(1000, 2), reply(2000, 3)), []);
    assert.equal(plane.metrics.total('waiting_replies'), 3);
    learn(plane, known, 1000);
    assert.deepEqual(ids(plane, reply(1000, 4)), [1, 2, 4], 'before what came later');
    assert.deepEqual(plane.counts(), { early_replies: 3, early_replies_known: 2, waiting_replies: 1 });
    learn(plane, known, 2000);
    assert.deepEqual(ids(plane), [3]);
    assert.equal(plane.metrics.total('port1_rx_packets'), 4);
    assert.equal(plane.metrics.total('port0_tx_packets'), 4);
  });

  it('leave as they would have left at once', () => {
    const options = { route: null } satisfies PlaneOptions;
    const tagged = (bytes: Uint8Array) => Uint8Array.of(...bytes.subarray(0, 12), 0x81, 0, 0, 7, ...bytes.subarray(12));
    const long = frame6(`udp 2001:db8::7 53 > fd00::5 1000 len 1400`);
    const frames = [reply(1000, 1).frame, long, tagged(reply(1000, 2).frame), tagged(long)];
    const packets = frames.map((frame) => ({ port: FAR, frame }));
    for (const [mode, own] of [
      ['wire', options],
      ['route', {}],
    ] as const) {
      const known = new Set<number>([99]);
      const plane = planeWith(known, own);
      const text = (sent: { port: number; frame: Uint8Array }[]) =>
        sent.map(({ port, frame }) => `${port} ${Buffer.from(frame).toString('hex')}`).toSorted();
      const expected = planeWith(new Set([1000]), own).passFrames(...packets);
      assert.deepEqual(plane.passFrames(...packets), [], mode);
      // Whatever comes into their place.
      plane.passFrames(...Array.from({ length: 64 }, (_, n) => on(NEAR, `udp 10.0.0.9:1 > 10.0.0.8:99 id ${n}`)));
      learn(plane, known, 1000);
      assert.deepEqual(text(plane.passFrames()), text(expected), mode);
    }
  });

  it('wait for no longer than two round trips to the farthest member and a margin', () => {
    const seen = new SeenMembers([false, true]);
    for (const [roundTripMs, ms] of [
      [20, 90],
      [100, 250],
      [1000, 250],
      [-1, 250],
    ]) {
      seen.roundTripMs = roundTripMs;
      const plane = planeWith(new Set(), { early: seen });
      ids(plane, reply(1000));
      plane.nowMs += ms - 1;
      ids(plane);
      assert.equal(plane.metrics.total('waiting_replies'), 1, `${roundTripMs} ms`);
      plane.nowMs += 1;
      ids(plane);
      assert.deepEqual(
        plane.counts(),
        { early_replies: 1, early_replies_expired: 1, no_egress: 1 },
        `${roundTripMs} ms`,
      );
    }
  });

  it('do not wait if no other member is heard', () => {
    const seen = new SeenMembers([false, false]);
    const plane = planeWith(new Set(), { early: seen });
    ids(plane, reply(1000));
    assert.deepEqual(plane.counts(), { no_egress: 1 });
    seen.heard[1] = true;
    plane.idle(600);
    ids(plane, reply(1000));
    assert.equal(plane.metrics.total('waiting_replies'), 1);
    seen.heard[1] = false;
    plane.idle(600);
    ids(plane, reply(1000));
    assert.equal(plane.metrics.total('no_egress'), 3);
  });

  it('wait behind the first of their tuple also within the batch in which its state comes', () => {
    const known = new Set<number>();
    const plane = new Plane({ early: new SeenMembers([false, true]) });
    const stage = awaiting(plane, known);
    let isLearned = false;
    const { early } = plane;
    // The receive thread applies the record between the lookups of two packets.
    const process = (now: number): void => {
      const { follows } = early;
      early.follows = (i) => {
        if (i === 1 && !isLearned) learn(plane, known, 1000);
        if (i === 1) isLearned = true;
        return follows(i);
      };
      stage.process(now);
      early.follows = follows;
    };
    plane.open([{ name: 'awaiting', process }]);
    assert.deepEqual(ids(plane, reply(1000, 1), reply(1000, 2)), [1, 2]);
    assert.equal(plane.metrics.total('early_replies'), 2, 'though the second had its state');
  });

  it('keep the worker from sleeping for long', () => {
    const known = new Set<number>();
    const plane = planeWith(known, { idle: 'sleep' });
    const sleeps: number[] = [];
    plane.driver.wait = (ms) => {
      sleeps.push(ms);
      plane.nowMs++;
      if (sleeps.length === 2) learn(plane, known, 1000);
      if (sleeps.length === 3) plane.control.setPhase(Phase.QUIET);
    };
    plane.driver.inject(FAR, reply(1000, 1).frame);
    plane.dataPlane.run();
    assert.deepEqual(sleeps, [1, 1, 100]);
    assert.deepEqual(ids(plane), [1]);
  });

  it('are dropped and counted when the worker ends', () => {
    const plane = planeWith(new Set());
    ids(plane, reply(1000), reply(2000));
    plane.control.setPhase(Phase.QUIET);
    plane.dataPlane.run();
    assert.deepEqual(plane.counts(), { early_replies: 2, early_replies_lost: 2 });
  });

  it('are counted by the next thread of the slot if the worker was killed', () => {
    const members = new SeenMembers([false, true]);
    const plane = planeWith(new Set(), { early: members });
    ids(plane, reply(1000), reply(2000));
    createEarlyReplies({
      batch: plane.batch,
      driver: plane.driver,
      members: members.members,
      progress: () => 0,
      msMax: () => 250,
      row: plane.metrics.row(0),
      catalogue: plane.catalogue,
      every: () => {},
      clock: () => plane.monotonicMs,
    });
    assert.deepEqual(plane.counts(), { early_replies: 2, early_replies_lost: 2 });
  });

  it('are dropped by the middleboxes behind that would have dropped them, and take what these do to them', () => {
    const known = new Set<number>();
    const plane = new Plane({ early: new SeenMembers([false, true]) });
    const seen: number[] = [];
    const { batch } = plane;
    const note = (): void => {
      for (let i = 0; i < batch.count; i++) if (batch.egress[i] >= 0) seen.push(swap16(batch.ports[i] >>> 16));
    };
    plane.open([{ name: 'before', process: note }, awaiting(plane, known), { name: 'behind', process: note }]);
    ids(plane, reply(1000));
    assert.deepEqual(seen, [1000], 'what stands before saw it when it came');
    learn(plane, known, 1000);
    ids(plane);
    assert.deepEqual(seen, [1000, 1000], 'and what stands behind when it went on');
  });

  it('that wait at two stages have one deadline', () => {
    const known = new Set<number>();
    const plane = new Plane({ early: new SeenMembers([false, true]) });
    plane.open([awaiting(plane, known), awaiting(plane, new Set())]);
    ids(plane, reply(1000));
    plane.nowMs += 110;
    ids(plane, reply(2000));
    learn(plane, known, 1000);
    ids(plane);
    plane.nowMs += 34;
    ids(plane);
    assert.equal(plane.metrics.total('waiting_replies'), 2);
    plane.nowMs += 1;
    ids(plane);
    assert.deepEqual(plane.counts(), {
      early_replies: 3,
      early_replies_known: 1,
      early_replies_expired: 1,
      waiting_replies: 1,
      no_egress: 1,
    });
  });

  it('go on in the direction they came by, where the chain has two ends', () => {
    const known = new Set<number>();
    const order: string[] = [];
    const plane = new Plane({ early: new SeenMembers([false, true]) });
    const { batch } = plane;
    const noting = (name: string): Stage => ({
      name,
      process: () => {
        for (let i = 0; i < batch.count; i++) if (batch.egress[i] >= 0) order.push(`${name} ${batch.port[i]}`);
      },
    });
    plane.open([noting('a'), awaiting(plane, known, { near: [NEAR], far: [FAR] }), noting('b')]);
    ids(plane, reply(1000, 1));
    ids(plane, on(NEAR, 'udp 10.0.0.5:9 > 198.51.100.7:2000'));
    assert.deepEqual(order.splice(0), ['b 1', 'a 0']);
    learn(plane, known, 1000, 2000);
    assert.equal(ids(plane).length, 2);
    assert.deepEqual(order, ['a 1', 'b 0']);
  });

  describe('are bounded', () => {
    const address = (n: number) => `198.${n >> 16}.${(n >> 8) & 255}.${n & 255}`;

    function fill(packets: { port: number; frame: Uint8Array }[]): Record<string, number> {
      const plane = planeWith(new Set());
      ids(plane, ...packets);
      return plane.counts();
    }

    it('in all', () => {
      const packets = Array.from({ length: WAITING_MAX + 10 }, (_, n) =>
        reply(1000 + (n % 1000), 0, `${address(n)}:53`),
      );
      assert.deepEqual(fill(packets), {
        early_replies: WAITING_MAX,
        early_replies_rate: 10,
        no_egress: 10,
        waiting_replies: WAITING_MAX,
      });
    });

    it('in bytes', () => {
      const packets = Array.from({ length: WAITING_MAX }, (_, n) =>
        on(FAR, `udp ${address(n)}:53 > 10.0.0.5:${1000 + (n % 1000)} len 1400`),
      );
      const { early_replies, early_replies_full } = fill(packets);
      // Six cells each, of 8192.
      assert.deepEqual([early_replies, early_replies_full], [1365, WAITING_MAX - 1365]);
    });

    it('of one source', () => {
      const packets = Array.from({ length: WAITING_PER_SOURCE + 7 }, (_, n) => reply(1000 + n));
      const { early_replies, early_replies_source } = fill(packets);
      assert.deepEqual([early_replies, early_replies_source], [WAITING_PER_SOURCE, 7]);
    });

    it('to one destination, where more of a tuple that waits are dropped', () => {
      const packets = Array.from({ length: WAITING_PER_DESTINATION + 7 }, (_, n) => reply(1000, n));
      assert.deepEqual(fill(packets), {
        early_replies: WAITING_PER_DESTINATION,
        early_replies_destination: 7,
        early_replies_behind: 7,
        waiting_replies: WAITING_PER_DESTINATION,
      });
    });

    it('in how many wait in vain in a second', () => {
      const plane = planeWith(new Set(), { early: new SeenMembers([false, true]) });
      let sent = 0;
      for (let ms = 0; ms < 2000; ms += 10) {
        plane.nowMs += 10;
        ids(plane, ...Array.from({ length: 100 }, () => reply(1000 + (sent % 1000), 0, `${address(sent++)}:53`)));
        plane.idle(0);
      }
      const waited = plane.metrics.total('early_replies');
      assert.ok(waited <= WAITING_MAX + 2.1 * VAIN_PER_SECOND, `${waited}`);
      assert.ok(waited >= 2 * VAIN_PER_SECOND, `${waited}`);
      assert.equal(
        sent,
        waited + plane.metrics.total('early_replies_rate') + plane.metrics.total('early_replies_full'),
      );
    });

    it('in how many of one source wait in vain: it leaves room for those of others', () => {
      const plane = planeWith(new Set(), { early: new SeenMembers([false, true]) });
      let sent = 0;
      let others = 0;
      // Sources whose hash, with a secret drawn at the start, is that of the one.
      let alike = 0;
      for (let ms = 0; ms < 4000; ms += 10) {
        plane.nowMs += 10;
        ids(plane, ...Array.from({ length: 50 }, () => reply(1000 + (sent++ % 1000), 0)));
        const before = plane.metrics.total('early_replies');
        if (ms % 100 === 0) ids(plane, reply(1000, 0, `${address(1000 + others++)}:53`));
        if (ms % 100 === 0 && plane.metrics.total('early_replies') === before) alike++;
        plane.idle(0);
      }
      // Each of 40 is alike with a probability of 1 in 1024: more than three are one run in 10⁷.
      assert.ok(alike <= 3, `${alike} of ${others} others found no room`);
      const waited = plane.metrics.total('early_replies') - (others - alike);
      assert.ok(waited <= (WAITING_MAX + 4.1 * VAIN_PER_SECOND) * VAIN_OF_SOURCE, `${waited}`);
    });
  });

  it('keep their order, wait no longer than the bound, and leave or are dropped once, whatever comes', () => {
    const step = fc.record({
      ms: fc.integer({ min: 0, max: 40 }),
      packets: fc.array(fc.record({ tuple: fc.nat(5), many: fc.integer({ min: 1, max: 30 }) }), { maxLength: 4 }),
      learn: fc.array(fc.record({ stage: fc.nat(1), tuple: fc.nat(5) }), { maxLength: 2 }),
      forget: fc.option(fc.record({ stage: fc.nat(1), tuple: fc.nat(5) }), { freq: 5 }),
      hasMemory: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.boolean(), (steps, hasEnds) => {
        const known = [new Set<number>(), new Set<number>()];
        const plane = new Plane({ early: new SeenMembers([false, true]) });
        const sides = hasEnds ? { near: [NEAR], far: [FAR] } : undefined;
        plane.open([awaiting(plane, known[0], sides), awaiting(plane, known[1])]);
        const insert = plane.driver.insert.bind(plane.driver);
        const came: { ms: number; tuple: number }[] = [];
        const last = new Map<number, number>();
        let left = 0;
        let hadMemory = true;
        for (const { ms, packets, learn: learned, forget, hasMemory } of steps) {
          plane.nowMs += ms;
          let room = 3;
          hadMemory &&= hasMemory;
          plane.driver.insert = (...them) => (hasMemory || room-- > 0) && insert(...them);
          for (const { stage, tuple } of learned) known[stage].add(1000 + tuple);
          if (learned.length > 0) plane.applied++;
          if (forget !== null) known[forget.stage].delete(1000 + forget.tuple);
          const frames = packets.flatMap(({ tuple, many }) =>
            Array.from({ length: many }, () => {
              came.push({ ms: plane.nowMs, tuple });
              return reply(1000 + tuple, came.length - 1);
            }),
          );
          for (const id of ids(plane, ...frames)) {
            const { tuple, ms: since } = came[id];
            assert.ok((last.get(tuple) ?? -1) < id, `${id} of tuple ${tuple} behind ${last.get(tuple)}`);
            last.set(tuple, id);
            left++;
            // A step is longer than it takes to look.
            assert.ok(plane.nowMs - since <= 100 + ms + 40 || !hadMemory, `${plane.nowMs - since} ms`);
          }
          const waiting = plane.metrics.total('waiting_replies');
          assert.equal(came.length, left + plane.dropped() + waiting);
          assert.equal(plane.early.waiting, waiting);
        }
        plane.driver.insert = insert;
        plane.nowMs += 1000;
        ids(plane);
        assert.equal(plane.metrics.total('waiting_replies'), 0, 'nothing is forgotten');
      }),
      { numRuns: 60 },
    );
  });
});
