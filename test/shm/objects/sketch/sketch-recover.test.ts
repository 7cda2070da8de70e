import { strict as assert } from 'node:assert';
import type { StateDefinition, StateObject } from '../../../../shm/objects/core/object.js';
import { graph, type TrafficGraph } from '../../../../shm/objects/graph/graph.js';
import { type HyperLogLog, hyperLogLog } from '../../../../shm/objects/sketch/hyperloglog.js';
import { Death } from '../dying.js';
import { Site } from '../site.js';

const NOW = 70_000_000;
const TIMEOUT = 10;

/**
 * Kills a worker at each step of `operate` in turn, on a site that `prepare` has set up; then
 * mends, and looks with `check` at the site and at another that was told all it logged. Returns how
 * many steps there were to die at.
 */
function killAtEachStep<T extends StateObject>(
  definition: StateDefinition<T>,
  prepare: (object: T) => void,
  operate: (object: T) => void,
  check: (here: T, there: T) => void,
): number {
  for (let steps = 1; ; steps++) {
    const [here, there] = [0, 1].map((i) => new Site(definition, i, 2, 2));
    prepare(here.workers[0]);
    here.countdown.set(steps);
    let died = false;
    try {
      operate(here.workers[0]);
    } catch (error) {
      assert.ok(error instanceof Death);
      died = true;
    }
    here.buryWorker(0);
    for (const message of here.flush()) there.apply(message, 0, NOW);
    check(here.receiver, there.receiver);
    // The next one, and its neighbour, find nothing in the way.
    for (const worker of here.workers) operate(worker);
    for (const message of here.flush()) there.apply(message, 0, NOW);
    check(here.receiver, there.receiver);
    if (!died) return steps - 1;
  }
}

function assertWhole(traffic: TrafficGraph, now: number): void {
  assert.equal(traffic.locksHeld(), 0);
  const degrees = new Map<number, [number, number]>();
  const of = (node: number): [number, number] => {
    const there = degrees.get(node) ?? [0, 0];
    degrees.set(node, there);
    return there;
  };
  traffic.forEachEdge(now, (from, to, packets, bytes) => {
    assert.equal(bytes, 100 * packets);
    of(from)[0]++;
    of(to)[1]++;
  });
  traffic.forEachNode((node, out, into) => {
    assert.deepEqual([out, into], degrees.get(node));
    degrees.delete(node);
  });
  assert.equal(degrees.size, 0);
}

describe('what a dead worker leaves', () => {
  const definition = graph({ edges: 100, timeout: TIMEOUT, members: 2 });
  const both = (here: TrafficGraph, there: TrafficGraph): void => {
    assertWhole(here, NOW);
    assertWhole(there, NOW);
    assert.equal(there.digest(NOW), here.digest(NOW));
  };

  it('of a new edge between new nodes is all or nothing', () => {
    const steps = killAtEachStep(
      definition,
      (object) => assert.ok(object.add(1, 2, 1, 100, NOW)),
      (object) => assert.ok(object.add(3, 4, 1, 100, NOW)),
      both,
    );
    assert.ok(steps > 40);
  });

  it('of an edge seen again is all or nothing', () => {
    const steps = killAtEachStep(
      definition,
      (object) => assert.ok(object.add(1, 2, 1, 100, NOW)),
      (object) => assert.ok(object.add(1, 2, 3, 300, NOW)),
      both,
    );
    assert.ok(steps > 10);
  });

  it('of reclaiming edges is all or nothing, for degrees too', () => {
    const steps = killAtEachStep(
      definition,
      (object) => {
        for (const [from, to] of [
          [1, 2],
          [1, 3],
          [5, 5],
        ])
          assert.ok(object.add(from, to, 1, 100, NOW - 100));
        assert.ok(object.add(1, 4, 1, 100, NOW));
      },
      (object) => object.sweep(NOW, 256),
      (here, there) => {
        assert.equal(here.locksHeld(), 0);
        here.sweep(NOW, 256);
        there.sweep(NOW, 256);
        both(here, there);
      },
    );
    assert.ok(steps > 40);
  });

  it('of a key that HyperLogLog counts is all or nothing', () => {
    const steps = killAtEachStep<HyperLogLog>(
      hyperLogLog({ precision: 6 }),
      (object) => assert.ok(object.add2(1, 1)),
      (object) => assert.ok(object.add2(2, 2)),
      (here, there) => assert.equal(there.digest(), here.digest()),
    );
    assert.ok(steps > 5);
  });
});
