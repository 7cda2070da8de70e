/**
 * The health of an instance as an operator sees it: states, reasons, exit codes and hooks, when
 * ports and threads fail.
 */

import { strict as assert } from 'node:assert';
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { needs } from '../support/require.js';
import { PROJECT } from '../testbed/compile.js';
import { eventually, type Instance } from '../testbed/instance.js';
import { ping } from '../testbed/ping.js';
import { CLIENT } from '../testbed/site.js';
import type { Testbed } from '../testbed/testbed.js';
import { reaches, withBox } from './one-box.js';

/** A middlebox that throws at every packet while a file exists. */
const fragile = (file: string): string => `import { existsSync } from 'node:fs';
import { defineMiddlebox } from 'constellation';
export default defineMiddlebox({
  name: 'fragile',
  help: 'Fails as long as a file exists.',
  options: {},
  counters: {},
  state: () => ({}),
  open: ({ batch }) => () => {
    if (batch.count > 0 && existsSync('${file}')) throw new Error('fails as it was told');
  },
});
`;

const EVENTS = ['ready', 'degraded', 'recovered', 'drain'];

describe('end to end: the health of an instance', function () {
  this.timeout(120_000);

  before(function () {
    needs(this, 'af_xdp', 'tool:ping', 'tool:curl');
  });

  it('follows its ports and threads in status, exit codes and hooks', async () => {
    const file = (testbed: Testbed, name: string): string => join(testbed.folder, name);
    const sections = (testbed: Testbed): Record<string, unknown> => {
      mkdirSync(file(testbed, 'node_modules'));
      symlinkSync(PROJECT, file(testbed, 'node_modules/constellation'));
      writeFileSync(file(testbed, 'fragile.mjs'), fragile(file(testbed, 'fail')));
      const note = `echo "$CONSTELLATION_EVENT: $CONSTELLATION_REASON" >> ${file(testbed, 'events')}`;
      return {
        middleboxes: [{ [file(testbed, 'fragile.mjs')]: {} }],
        hooks: Object.fromEntries(EVENTS.map((event) => [`on_${event}`, ['sh', '-c', note]])),
      };
    };
    await withBox(
      'wire',
      async (testbed, instance) => {
        const command = async (...words: string[]) =>
          testbed.run('box', [process.execPath, CLIENT, '-s', instance.socket, ...words], true);
        const events = (): string[] => {
          const path = file(testbed, 'events');
          return existsSync(path)
            ? readFileSync(path, 'utf8')
                .trim()
                .split(/:? *\n/)
            : [];
        };
        const becomes = async (state: string, reason: RegExp): Promise<void> => {
          await stateIs(instance, state, reason);
          const code = state === 'ready' ? 0 : 3;
          assert.equal((await command('status')).code, code);
          assert.equal((await command('join')).code, code);
        };
        await becomes('ready', /^/);
        await reaches(testbed, 'client', '10.9.0.2');
        await eventually('the first hook', async () => (events().length === 1 ? true : null));

        await testbed.configure('box', 'link set dev right down');
        await becomes('degraded', /^port right is unusable: the interface is down/);
        await testbed.configure('box', 'link set dev right up');
        await becomes('ready', /^/);

        writeFileSync(file(testbed, 'fail'), '');
        const flood = testbed.start('client', 'pings', ['ping', '-i', '0.05', '10.9.0.2']);
        await becomes('degraded', /^thread worker-0 is down/);
        rmSync(file(testbed, 'fail'));
        await becomes('ready', /^/);
        await flood.stop('SIGINT');
        assert.ok((await ping(testbed, 'client', '10.9.0.2', 2)).received > 0);

        assert.equal((await command('drain')).code, 0);
        assert.equal((await command('status')).code, 4);
        assert.deepEqual(events(), [
          'ready',
          'degraded: port right is unusable: the interface is down',
          'recovered',
          'degraded: thread worker-0 is down',
          'recovered',
          'drain:',
        ]);
      },
      sections,
    );
  });
});

async function stateIs(instance: Instance, state: string, reason: RegExp): Promise<void> {
  await eventually(`the state ${state}`, async () => {
    const status = await instance.status();
    return status.state === state && reason.test(status.state_reason) ? true : null;
  });
}
