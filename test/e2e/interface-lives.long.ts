/**
 * An interface that is deleted and created again very often: the instance follows, and nothing
 * leaks.
 */

import { strict as assert } from 'node:assert';
import { readdirSync, readFileSync } from 'node:fs';
import { needs } from '../support/require.js';
import { eventually } from '../testbed/instance.js';
import type { Testbed } from '../testbed/testbed.js';
import { portIs, reaches, USABLE, withBox } from './one-box.js';

/** How often an interface is deleted and created again. */
const LIVES = 200;
/** By how much memory may have grown then: a worker's packet memory alone has 32 MiB. */
const GROWTH_KIB_MAX = 24 * 1024;

/** Creates the left link, in as few steps as there can be. */
async function createPlain(testbed: Testbed): Promise<void> {
  await testbed.configure(
    'box',
    `link add left type veth peer name eth0 netns ${testbed.namespace('client')}`,
    'link set dev left up',
  );
  await testbed.configure('client', 'link set dev eth0 up', 'addr add 10.9.0.1/24 dev eth0');
}

describe('end to end: the lives of an interface', function () {
  this.timeout(300_000);

  before(function () {
    needs(this, 'af_xdp', 'tool:ping');
  });

  it(`an interface is created again ${LIVES} times, and nothing leaks`, async () => {
    await withBox('wire', async (testbed, instance) => {
      const { pid } = await instance.status();
      const flood = testbed.start('server', 'flood', ['ping', '-q', '-i', '0.01', '10.9.0.1']);
      const descriptors = (): number => readdirSync(`/proc/${pid}/fd`).length;
      const memory = (): number => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
      const live = async (): Promise<void> => {
        await testbed.configure('box', 'link del left');
        await createPlain(testbed);
        await portIs(instance, 'left', USABLE);
      };
      for (let life = 0; life < LIVES / 10; life++) await live();
      // What is open is complete once packets pass: `status` may still be of the life before.
      await reaches(testbed, 'client', '10.9.0.2');
      const before = { descriptors: descriptors(), memory: memory() };
      for (let life = LIVES / 10; life < LIVES; life++) await live();
      // Those of the last attachment are closed once the workers have left it.
      await eventually(`${before.descriptors} descriptors`, async () =>
        descriptors() === before.descriptors ? true : null,
      );
      const grown = memory() - before.memory;
      assert.ok(grown < GROWTH_KIB_MAX, `memory grew by ${grown} KiB`);
      await reaches(testbed, 'client', '10.9.0.2');
      for (const thread of await instance.threads()) assert.deepEqual([thread.restarts, thread.state], [0, 'ready']);
      await flood.stop('SIGINT');
    });
  });
});
