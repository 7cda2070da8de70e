/** Whoever sees an entry that another worker makes, sees also that it is held, and until when. */

import { strict as assert } from 'node:assert';
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { createLogRing, LogConsumer } from '../../shm/log.js';
import { NONE } from '../../shm/none.js';
import { CAPACITY, findHeld, HELD, type HeldWork, HOLD, NOW, openHeld } from './held-hammer.js';

const READY_MS = 20_000;
const HAMMERED_MS = 400;
/** If threads share a core, it takes longer to see these. */
const FOUND_MIN = 40;
/** Looks between two looks at the clock. */
const LOOKS = 2000;

describe('held entries that another worker makes', () => {
  let thread: Worker | null = null;

  afterEach(async () => {
    await thread?.terminate();
    thread = null;
  });

  for (const [name, { bytes, localBytes }] of Object.entries(HELD))
    it(`are held from the moment they are seen: ${name}`, async () => {
      const region = new SharedArrayBuffer(bytes);
      const local = new SharedArrayBuffer(localBytes?.(2) ?? 0);
      const control = new Int32Array(new SharedArrayBuffer(8));
      const ring = createLogRing(1 << 16);
      const log = new LogConsumer(ring);
      const object = openHeld(name, region, local, 2, null);
      const work: HeldWork = { name, region, local, control: control.buffer as SharedArrayBuffer, ring };
      thread = new Worker(new URL('./held-worker.js', import.meta.url), { workerData: work });
      await once(thread, 'message', { signal: AbortSignal.timeout(READY_MS) });
      const ended = once(thread, 'message', { signal: AbortSignal.timeout(READY_MS) });

      let found = 0;
      const wrong: string[] = [];
      let before = 0;
      const start = performance.now();
      while (found < FOUND_MIN || performance.now() < start + HAMMERED_MS) {
        assert.ok(performance.now() < start + READY_MS, `${found} were seen`);
        Atomics.store(control, 0, found);
        let slot: number = NONE;
        for (let look = 0; look < LOOKS && slot === NONE; look++) slot = findHeld(name, object, found, NOW);
        if (slot === NONE) continue;
        const { held } = object;
        if (!held.wasHeld(slot, NOW)) wrong.push(`${found} was not held`);
        else if (held.membersOf(slot) !== HOLD.members || held.deadlineOf(slot) !== HOLD.deadline)
          wrong.push(`${found} is held otherwise`);
        else if (held.logger(slot) !== 0 || held.position(slot) <= before)
          wrong.push(`${found} waits for another record`);
        before = held.position(slot);
        found++;
        while (log.next());
        log.release();
        if (found === CAPACITY) break;
      }
      Atomics.store(control, 1, 1);
      await ended;
      assert.deepEqual(wrong.slice(0, 3), [], `${wrong.length} of ${found}`);
    });
});
