import { strict as assert } from 'node:assert';
import { REMEMBERED_S } from '../../../shm/clock.js';
import { flowTable, growSet } from '../../../workers/api/api.js';
import { defineMiddlebox } from '../../../workers/api/middlebox.js';
import { Site } from '../support/site.js';

const ENTRIES = 500;
const LIFETIME_S = 10;
/** Each slot is looked at within this time. */
const SWEPT_WITHIN_S = 60;

const keeper = defineMiddlebox({
  name: 'keeper',
  help: 'Keeps entries, and never removes any.',
  options: {},
  counters: {},
  state: () => ({
    flows: flowTable({ capacity: 1024, keyWords: 1, valueWords: 0 }),
    set: growSet({ capacity: 1024, keyWords: 1 }),
  }),
  open: ({ state: { flows, set }, batch }) => {
    const key = new Int32Array(1);
    return (now) => {
      for (let n = 0; batch.count > 0 && n < ENTRIES; n++) {
        key[0] = n;
        flows.add(flows.hash(key, 0), key, 0, key, 0, 1, now, now + LIFETIME_S);
        set.add(set.hash(key, 0), key, 0, now, now + LIFETIME_S);
      }
    };
  },
});

describe('tables of middleboxes', () => {
  it('lose expired entries though no packet comes, in one worker', () => {
    const site = new Site({ chain: [{ middlebox: keeper as never, options: {} }], workers: 2 });
    const used = (): number[] => site.objects.map((object) => object.describe(site.now)['used']);
    site.pass({ port: 0, frame: new Uint8Array(64) });
    assert.deepEqual(used(), [ENTRIES, ENTRIES]);
    const [first, second] = site.planes;
    for (const plane of [second, first]) {
      plane.idle((LIFETIME_S + REMEMBERED_S + SWEPT_WITHIN_S + 5) * 1000, 40);
      assert.deepEqual(used(), plane === second ? [ENTRIES, ENTRIES] : [0, 0]);
    }
  });
});
