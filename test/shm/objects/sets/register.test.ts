import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { coarseSeconds } from '../../../../shm/clock.js';
import { Applied } from '../../../../shm/objects/core/object.js';
import {
  type Extreme,
  type LastWriter,
  largest,
  lastWriter,
  NUMBER_MAX,
  smallest,
} from '../../../../shm/objects/sets/register.js';
import { Death } from '../dying.js';
import { type Message, Site } from '../site.js';

const REGISTERS = 3;
const SITES = 3;
const START_MS = Date.UTC(2026, 5, 1);
const NOW = coarseSeconds(START_MS);
const RUNS = { numRuns: 200 };

const step = fc.record({
  kind: fc.constantFrom('set', 'set', 'set', 'drain', 'cut', 'deliver', 'deliver'),
  site: fc.nat(SITES - 1),
  worker: fc.nat(1),
  register: fc.nat(REGISTERS - 1),
  n: fc.integer(),
});
type Step = typeof step extends fc.Arbitrary<infer S> ? S : never;

/** Runs steps at sites, then tells everybody everything, the last things first and some twice. */
function converge<T extends LastWriter | Extreme>(
  sites: readonly Site<T>[],
  steps: readonly Step[],
  set: (object: T, step: Step, ms: number) => void,
): void {
  const sent: Message[][] = sites.map(() => []);
  steps.forEach((one, i) => {
    const at = sites[one.site];
    const from = (one.site + 1 + one.register) % SITES;
    if (one.kind === 'set') set(at.workers[one.worker], one, START_MS + 10 * i);
    else if (one.kind === 'drain') at.drain(Math.abs(one.n) % 5);
    else if (one.kind === 'cut') sent[one.site].push(at.cut());
    else if (sent[from].length > 0 && from !== one.site)
      at.apply(sent[from][Math.abs(one.n) % sent[from].length], from, NOW);
  });
  sites.forEach((site, from) => {
    sent[from].push(site.cut(), ...site.flush());
    sites.forEach((other, to) => {
      if (to !== from)
        for (const message of [...sent[from].toReversed(), ...sent[from]]) other.apply(message, from, NOW);
    });
  });
  for (const site of sites) {
    assert.equal(site.sender.digest(), sites[0].sender.digest());
    assert.equal(site.receiver.locksHeld(), 0);
    assert.equal(site.receiver.describe(NOW)['malformed'], 0);
  }
}

describe('last-writer registers', () => {
  const definition = lastWriter({ length: REGISTERS, valueWords: 2 });
  const sitesOf = (): Site<LastWriter>[] => Array.from({ length: SITES }, (_, i) => new Site(definition, i, SITES));

  it('hold what was written last, by the clock, whatever order it comes in', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const model = new Map<number, number>();
        const sites = sitesOf();
        converge(sites, steps, (object, { register, n }, ms) => {
          assert.ok(object.set(register, Int32Array.of(n, ~n), 0, ms));
          model.set(register, n);
        });
        const out = new Int32Array(2);
        for (let register = 0; register < REGISTERS; register++) {
          assert.equal(sites[0].receiver.read(register, out, 0), model.has(register));
          if (model.has(register)) assert.deepEqual([...out], [model.get(register), ~(model.get(register) ?? 0)]);
        }
      }),
      RUNS,
    );
  });

  it('agree though clocks do not, and never go back at one instance', () => {
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 60 }),
        fc.array(fc.integer({ min: -5000, max: 5000 }), { minLength: 60 }),
        (steps, skews) => {
          let i = 0;
          const out = new Int32Array(2);
          converge(sitesOf(), steps, (object, { register, n }) => {
            object.set(register, Int32Array.of(n, 0), 0, START_MS + skews[i++]);
            object.read(register, out, 0);
            assert.equal(out[0], n);
          });
        },
      ),
      RUNS,
    );
  });

  it('merge in any grouping to the same', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const [a, b, c] = sitesOf();
        steps.forEach(({ site, register, n }, i) => {
          [a, b, c][site].workers[0].set(register, Int32Array.of(n, 1), 0, START_MS + (i % 4));
        });
        c.receiver.merge(b.region, NOW);
        a.receiver.merge(c.region, NOW);
        b.receiver.merge(a.region, NOW);
        c.receiver.merge(a.region, NOW);
        assert.equal(c.receiver.merge(b.region, NOW), 0);
        assert.equal(a.sender.digest(), b.sender.digest());
        assert.equal(a.sender.digest(), c.sender.digest());
      }),
      RUNS,
    );
  });

  it('are whole, and told whole or not at all, when a writer dies at any step', () => {
    for (let steps = 1; ; steps++) {
      const [here, there] = [0, 1].map((i) => new Site(definition, i, 2));
      here.workers[0].set(0, Int32Array.of(1, 1), 0, START_MS);
      here.countdown.set(steps);
      let died = false;
      try {
        here.workers[0].set(0, Int32Array.of(2, 2), 0, START_MS + 1);
      } catch (error) {
        assert.ok(error instanceof Death);
        died = true;
      }
      here.buryWorker(0);
      assert.equal(here.receiver.locksHeld(), 0);
      const out = new Int32Array(2);
      assert.ok(here.receiver.read(0, out, 0));
      assert.equal(out[0], out[1]);
      for (const message of here.flush()) there.apply(message, 0, NOW);
      assert.equal(there.sender.digest(), here.sender.digest());
      assert.ok(here.workers[1].set(0, Int32Array.of(3, 3), 0, START_MS));
      if (!died) break;
    }
  });

  it('refuse with a full log, and say so', () => {
    const site = new Site(definition, 0, 1, 1);
    let set = 0;
    while (site.workers[0].set(0, Int32Array.of(set, 0), 0, START_MS)) set++;
    const out = new Int32Array(2);
    site.receiver.read(0, out, 0);
    assert.equal(out[0], set - 1);
    assert.equal(site.receiver.describe(NOW)['log_full'], 1);
    assert.equal(site.workers[0].set(REGISTERS, out, 0, START_MS), false);
  });

  it('survive hostile records', () => {
    fc.assert(
      fc.property(fc.nat(2), fc.array(fc.integer(), { minLength: 1, maxLength: 8 }), (op, words) => {
        const { receiver } = new Site(definition, 0, 2);
        const before = receiver.digest();
        const applied = receiver.apply(op, Int32Array.from(words), 0, words.length, 1, NOW);
        if (applied === Applied.MALFORMED) assert.equal(receiver.digest(), before);
      }),
      RUNS,
    );
    const { receiver } = new Site(definition, 0, 2);
    const future = Int32Array.of(0, 0, 0x1f_ffff, 0, 1, 1);
    assert.equal(receiver.apply(1, future, 0, future.length, 1, NOW), Applied.MALFORMED);
  });

  it('are refused where they cannot be', () => {
    assert.throws(() => lastWriter({ valueWords: 0 }), /value words/);
    assert.throws(() => lastWriter({ valueWords: 33 }), /value words/);
    assert.throws(() => lastWriter({ length: 0, valueWords: 1 }), /registers/);
  });
});

for (const [name, define, pick] of [
  ['largest', largest, Math.max],
  ['smallest', smallest, Math.min],
] as const)
  describe(`${name} registers`, () => {
    it('hold it, whatever order it comes in', () => {
      fc.assert(
        fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
          const model = new Map<number, number>();
          const sites = Array.from({ length: SITES }, (_, i) => new Site(define(REGISTERS), i, SITES));
          converge(sites, steps, (object, { register, n }) => {
            assert.ok(object.offer(register, n));
            model.set(register, pick(model.get(register) ?? n, n));
          });
          for (let register = 0; register < REGISTERS; register++)
            assert.equal(sites[0].receiver.value(register), model.get(register) ?? Number.NaN);
        }),
        RUNS,
      );
    });

    it('take whole numbers of ±2^52 - 1', () => {
      const site = new Site(define(), 0, 1);
      for (const value of [0.5, Number.NaN, 2 ** 52, -(2 ** 52), Number.POSITIVE_INFINITY])
        assert.equal(site.workers[0].offer(0, value), false);
      assert.ok(Number.isNaN(site.receiver.value(0)));
      for (const value of [0, -0, NUMBER_MAX, -NUMBER_MAX]) assert.ok(site.workers[0].offer(0, value));
      assert.equal(site.receiver.value(0), pick(NUMBER_MAX, -NUMBER_MAX));
      assert.equal(site.workers[0].offer(1, 1), false);
    });
  });
