import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import type { StateDefinition, StateObject } from '../../../../shm/objects/core/object.js';
import { counter, counterVector } from '../../../../shm/objects/counting/counters.js';
import { graph } from '../../../../shm/objects/graph/graph.js';
import { countMin } from '../../../../shm/objects/sketch/count-min.js';
import { countingBloom } from '../../../../shm/objects/sketch/counting-bloom.js';
import { type Message, Site } from '../site.js';

const NOW = 70_000_000;
const KEYS = 5;
const step = fc.record({
  act: fc.constantFrom('count', 'count', 'count', 'drain', 'cut', 'deliver'),
  worker: fc.nat(1),
  key: fc.nat(KEYS - 1),
  n: fc.integer({ min: 1, max: 1000 }),
});

/**
 * Whatever was counted, drained and cut: no count at a member that has our records lacks more than
 * the bound says.
 */
function bounds<T extends StateObject>(
  name: string,
  definition: StateDefinition<T>,
  count: (object: T, key: number, n: number) => boolean,
  value: (object: T, key: number) => number,
): void {
  it(name, () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const [here, there] = [0, 1].map((i) => new Site(definition, i, 2));
        const sent: { message: Message; sequence: number }[] = [];
        let acknowledged = 0;
        const deliver = (): void => {
          const next = sent.shift();
          if (next === undefined) return;
          there.apply(next.message, 0, NOW);
          acknowledged = next.sequence;
        };
        const check = (): void => {
          const bound = here.receiver.errorBound?.(acknowledged) ?? Number.NaN;
          for (let key = 0; key < KEYS; key++)
            assert.ok(value(here.receiver, key) - value(there.receiver, key) <= bound);
        };
        for (const { act, worker, key, n } of steps) {
          if (act === 'count') assert.ok(count(here.workers[worker], key, n));
          else if (act === 'drain') here.drain(1 + (n % 3));
          else if (act === 'cut') {
            const message = here.cut();
            if (message.length > 0) sent.push({ message, sequence: here.sequence });
          } else deliver();
          check();
        }
        for (const message of here.flush()) sent.push({ message, sequence: here.sequence });
        while (sent.length > 0) {
          deliver();
          check();
        }
        assert.equal(here.receiver.errorBound?.(here.sequence), 0);
      }),
      { numRuns: 40 },
    );
  });
}

describe('the error bound bounds what others lack', () => {
  for (const form of ['totals', 'increments'] as const) {
    bounds(
      `counter, ${form}`,
      counter({ form }),
      (object, _key, n) => object.add(n),
      (object) => object.value(),
    );
    bounds(
      `counter vector, ${form}`,
      counterVector({ length: KEYS, form }),
      (object, key, n) => object.add(key, n),
      (object, key) => object.value(key),
    );
    bounds(
      `count-min sketch, ${form}`,
      countMin({ width: 8, depth: 3, form }),
      (object, key, n) => object.count2(key, 7, n),
      (object, key) => object.value2(key, 7),
    );
    bounds(
      `counting Bloom filter, ${form}`,
      countingBloom({ capacity: 20, form }),
      (object, key, n) => object.count2(key, 7, n),
      (object, key) => object.value2(key, 7),
    );
  }
  bounds(
    'graph',
    graph({ edges: 50, members: 2 }),
    (object, key, n) => object.add(key, key + 1, n, 1, NOW),
    (object, key) => (object.find(key, key + 1, NOW) ? object.packets : 0),
  );
});
