import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { ringEntries } from '../../../workers/drivers/af-xdp.js';
import { assertQueues, queuesOfWorker } from '../../../workers/drivers/queues.js';

const counts = fc.integer({ min: 1, max: 130 });

describe('queues and workers', () => {
  it('give every queue one worker, and every worker a queue or an error', () => {
    fc.assert(
      fc.property(counts, counts, (queues, workers) => {
        if (queues < workers) return assert.throws(() => assertQueues('eth0', queues, workers), /eth0 has/);
        assertQueues('eth0', queues, workers);
        const shares = Array.from({ length: workers }, (_, worker) => queuesOfWorker(queues, worker, workers));
        assert.deepEqual(
          shares.flat().sort((a, b) => a - b),
          Array.from({ length: queues }, (_, queue) => queue),
        );
        const sizes = shares.map((share) => share.length);
        assert.ok(Math.min(...sizes) >= 1 && Math.max(...sizes) - Math.min(...sizes) <= 1, `${sizes}`);
      }),
    );
  });

  it('share the rings of a port: a power of two each, no more than the port had, at least 64', () => {
    fc.assert(
      fc.property(fc.integer({ min: 6, max: 15 }), counts, (bits, queues) => {
        const entries = ringEntries(2 ** bits, queues);
        assert.equal(entries & (entries - 1), 0);
        assert.ok(entries >= 64);
        assert.ok(entries === 64 || entries * queues <= 2 ** bits);
        if (queues === 1) assert.equal(entries, 2 ** bits);
      }),
    );
  });
});
