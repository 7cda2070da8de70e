/**
 * No reader misses a current entry while records about it are applied, or another instance's state
 * is merged.
 */

import { strict as assert } from 'node:assert';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { applyVisible, ENTRIES, openVisible, VISIBLE, type VisibleWork } from './visible-hammer.js';

const READY_MS = 20_000;
const HAMMERED_MS = 400;
const RECORDS_MIN = 1000;

describe('current entries stay visible while another thread applies records about them', () => {
  let thread: Worker | null = null;

  afterEach(async () => {
    await thread?.terminate();
    thread = null;
  });

  for (const [name, { definition, reader }] of Object.entries(VISIBLE))
    it(name, async () => {
      const region = new SharedArrayBuffer(definition.bytes);
      const local = new SharedArrayBuffer(definition.localBytes?.(1) ?? 0);
      const control = new Int32Array(new SharedArrayBuffer(8));
      const object = openVisible(name, region, local, 1);
      for (let n = 0; n < ENTRIES; n++) applyVisible(name, object, n);
      const missing = reader(object);
      assert.equal(missing(), -1, 'before');

      const work: VisibleWork = { name, region, local, control: control.buffer as SharedArrayBuffer };
      thread = new Worker(new URL('./visible-worker.js', import.meta.url), { workerData: work });
      await once(thread, 'message', { signal: AbortSignal.timeout(READY_MS) });
      let looks = 0;
      let missed = 0;
      const until = performance.now() + HAMMERED_MS;
      while (performance.now() < until) {
        for (let n = 0; n < 1000; n++) if (missing() >= 0) missed++;
        looks += 1000;
        // An error of the other thread is heard of.
        await sleep(0);
      }
      const ended = once(thread, 'message', { signal: AbortSignal.timeout(READY_MS) });
      Atomics.store(control, 1, 1);
      await ended;
      assert.ok(control[0] > RECORDS_MIN, `${control[0]} records were applied`);
      assert.equal(missed, 0, `of ${looks} looks, while ${control[0]} records were applied`);
    });
});
