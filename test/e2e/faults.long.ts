/** Threads that die, daemons that are killed, clients that misbehave: traffic goes on. */

import { strict as assert } from 'node:assert';
import { randomBytes } from 'node:crypto';
import { connect } from 'node:net';
import { needs } from '../support/require.js';
import { fetchAll, startLoad, startServer } from '../testbed/http/fetch.js';
import type { Fetched } from '../testbed/http/load.js';
import { eventually } from '../testbed/instance.js';
import type { Site } from '../testbed/site.js';
import type { Testbed } from '../testbed/testbed.js';
import { assertAllFetched, CLIENTS_OF_A, ORIGIN, withTwoSites } from './support.js';

const LOAD = { origins: [ORIGIN], sources: CLIENTS_OF_A, bytes: 20_000, concurrency: 20 };

describe('end to end: faults', function () {
  this.timeout(120_000);

  before(function () {
    needs(this, 'af_xdp');
  });

  it('a worker that dies under load is started again, and no download fails', async () => {
    await withTwoSites({ routing: 'spread', wan: { delay_ms: 5 } }, async ({ testbed, sites: both }) => {
      await startServer(testbed, 'server');
      const fetched: Fetched[] = [];
      const { program, done } = startLoad(testbed, 'client', LOAD, (one) => fetched.push(one));
      for (let round = 1; round <= 3; round++) {
        const before = fetched.length;
        await eventually('downloads', async () => (fetched.length > before + 10 ? true : null));
        for (const site of both) assert.equal((await site.client('restart', 'worker-0')).code, 0);
        for (const site of both)
          await eventually('the worker', async () => {
            const worker = (await site.threads())[0];
            return worker.restarts === round && worker.state === 'ready' ? true : null;
          });
      }
      const before = fetched.length;
      await eventually('downloads afterwards', async () => (fetched.length > before + 10 ? true : null));
      program.endInput();
      await done;
      assertAllFetched(fetched, fetched.length);
    });
  });

  it('a daemon killed outright leaves its interfaces to the kernel, and starts again', async () => {
    await withTwoSites({ routing: 'by-a', wan: { delay_ms: 5 } }, async ({ testbed, a, b }) => {
      await startServer(testbed, 'server');
      assertAllFetched(await fetchAll(testbed, 'client', { ...LOAD, count: 20 }), 20);
      assert.match(await links(testbed, a), /xdp/);
      a.program.kill('SIGKILL');
      await a.program.exited;
      await eventually('XDP to be detached', async () => (/xdp/.test(await links(testbed, a)) ? null : true));

      // As before: the kernel itself answers, and passes packets on.
      await startServer(testbed, 'site-a', 8080);
      const direct = { ...LOAD, origins: ['http://10.0.1.1:8080'], sources: ['10.0.1.2'], count: 5 };
      assertAllFetched(await fetchAll(testbed, 'client', direct), 5);

      await a.start();
      assertAllFetched(await fetchAll(testbed, 'client', { ...LOAD, count: 20 }), 20);
      await eventually('b to have heard of it', async () =>
        (await b.counters())['state_rx_restarts'] === 1 ? true : null,
      );
    });
  });

  it('stops in order when told to, and says so', async () => {
    await withTwoSites({ routing: 'by-a' }, async ({ testbed, a, b }) => {
      await startServer(testbed, 'server');
      assertAllFetched(await fetchAll(testbed, 'client', { ...LOAD, count: 20 }), 20);
      assert.equal((await a.client('drain')).code, 0);
      assert.deepEqual(await a.stop(), { code: 0, signal: null });
      assert.doesNotMatch(await links(testbed, a), /xdp/);
      assert.equal((await b.client('shutdown')).code, 0);
      assert.deepEqual(await b.program.exited, { code: 0, signal: null });
    });
  });

  it('garbage at the admin socket harms nobody', async () => {
    await withTwoSites({ routing: 'by-a' }, async ({ testbed, a }) => {
      await startServer(testbed, 'server');
      const fetched: Fetched[] = [];
      const { program, done } = startLoad(testbed, 'client', LOAD, (one) => fetched.push(one));
      await Promise.all([
        throwAt(a.socket, randomBytes(100_000)),
        throwAt(a.socket, Buffer.alloc(4 << 20, 'x')),
        throwAt(a.socket, Buffer.from('show counters\n'.repeat(5000)), true),
        throwAt(a.socket, Buffer.from('\0\n\r\n-o\nshow\nshow show\nOK\nERR\nshow flows proto=\n')),
        ...Array.from({ length: 40 }, () => throwAt(a.socket, Buffer.from('status'), true)),
      ]);
      assert.ok(await eventually('an answer', async () => ((await a.isReady()) ? true : null)));
      program.endInput();
      await done;
      assertAllFetched(fetched, fetched.length);
      assert.ok(fetched.length > 0 && a.program.running);
    });
  });
});

async function links(testbed: Testbed, site: Site): Promise<string> {
  return (await testbed.run(site.node, ['ip', 'link', 'show'])).stdout;
}

/** Sends bytes, and hangs up: at once, or when the other side does or has nothing more to say. */
function throwAt(socketPath: string, bytes: Buffer, hangUp = false): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect(socketPath);
    const end = (): void => {
      socket.destroy();
      resolve();
    };
    socket.on('error', end).on('close', end);
    socket.on('connect', () => {
      socket.write(bytes);
      if (hangUp) socket.once('data', end);
    });
    socket.setTimeout(hangUp ? 200 : 1000, end);
    if (!hangUp) socket.resume();
  });
}
