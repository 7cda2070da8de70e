/**
 * Tests that the demo does what the README says: it ends by itself, with exit code 0, and reports
 * what happened.
 */

import { strict as assert } from 'node:assert';
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { needs } from '../support/require.js';
import { findCompiler } from '../testbed/compile.js';
import { distribution } from '../testbed/distribution.js';
import { columns, share } from './table.js';

const MAIN = fileURLToPath(new URL('main.js', import.meta.url));

interface Ended {
  readonly code: number;
  readonly output: string;
}

function demo(...options: string[]): Promise<Ended> {
  return new Promise((resolve) => {
    execFile(process.execPath, [MAIN, ...options], (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), output: stdout + stderr });
    });
  });
}

describe('demo', function () {
  this.timeout(120_000);

  it('on real packets: every download right, no first reply lost, both sites the same', async function () {
    needs(this, 'af_xdp');
    const { code, output } = await demo('--once', '--packets', 'live');
    assert.equal(code, 0, output);
    assert.match(output, /^90 of 90 downloads brought the right bytes/m);
    // Without a remedy nearly all are lost. A connection that a stall delayed looks as if its reply
    // was lost.
    const lost = (server: string): number => Number(new RegExp(`^${server} .*\\((\\d+) %\\)`, 'm').exec(output)?.[1]);
    assert.ok(lost('near') < 50 && lost('far') < 50, output);
    assert.match(output, /^DNS stub.* 24 +0 /m, output);
    assert.match(output, /Both sites hold the same in the end: yes/);
  });

  it('over capture files, without privileges', async function () {
    if (findCompiler() === null) needs(this, 'tool:cc');
    const { code, output } = await demo('--once', '--packets', 'files');
    assert.equal(code, 0, output);
    assert.match(output, /^200 of 200 clients got their answer/m);
    assert.match(output, /in the end both hold the same/);
  });

  it('explains itself and refuses what it does not know', async () => {
    const help = await demo('--help');
    assert.equal(help.code, 0);
    assert.match(help.output, /--once/);
    assert.equal((await demo('--wan', 'far')).code, 1);
    assert.equal((await demo('--packets', 'pigeon')).code, 1);
  });

  it('lines up its tables and figures', () => {
    assert.deepEqual(
      columns(
        ['site', 'packets'],
        [
          ['a', 12_345],
          ['bb', Number.NaN],
        ],
      ),
      ['site   packets', 'a       12,345', 'bb           -'],
    );
    assert.equal(share(1, 3), '1 (33 %)');
    assert.equal(share(0, 0), '-');
    assert.deepEqual(distribution([4, 1, 3, 2]), { count: 4, min: 1, p50: 2, p95: 4, max: 4 });
    assert.equal(Number.isNaN(distribution([]).p50), true);
  });
});
