/**
 * A middlebox that changes state with every packet: one count in each wire form, of the same cell,
 * and now and then an element of a set. So whoever looks between two batches finds the sums of both
 * forms equal.
 */

import { coarseSeconds } from '../../../shm/clock.js';
import { counterVector, defineMiddlebox, growSet, option } from '../../../workers/api/api.js';

export default defineMiddlebox({
  name: 'busy',
  help: 'counts packets',
  options: {
    cells: option.count('cells of each form', 1024),
    elements: option.count('elements of the set', 4096),
    members: option.count('members there can be', 2),
  },
  counters: { refused: 'counts refused' },
  state: ({ cells, elements, members }) => ({
    totals: counterVector({ length: cells, members }),
    increments: counterVector({ length: cells, form: 'increments' }),
    set: growSet({ capacity: elements, keyWords: 1 }),
  }),
  open({ options: { cells, elements }, state: { totals, increments, set }, counters, batch }) {
    let draws = coarseSeconds(Date.now()) | 1;
    const key = new Int32Array(1);
    return (now: number): void => {
      for (let i = 0; i < batch.count; i++) {
        draws = (Math.imul(draws, 1664525) + 1013904223) | 0;
        const cell = (draws >>> 8) % cells;
        if (!totals.add(cell, 1) || !increments.add(cell, 1)) batch.count1(counters.refused);
        if ((draws & 0xf000) !== 0) continue;
        key[0] = cell % (elements >>> 1);
        set.add(set.hash(key, 0), key, 0, now, now + 3600);
      }
    };
  },
});
