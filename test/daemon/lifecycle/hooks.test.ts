import { strict as assert } from 'node:assert';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLog } from '../../../daemon/base/log.js';
import { Hooks, type HooksConfig } from '../../../daemon/lifecycle/hooks.js';

const LOST = { member: { name: 'b', id: 2, address: '10.0.0.2' }, reason: 'silent' } as const;

describe('hooks', () => {
  let folder = '';
  let logged = '';

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'constellation-hooks-'));
    logged = '';
  });

  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  function hooks(config: Partial<HooksConfig>): Hooks {
    const sink = {
      write: (line: string) => {
        logged += line;
      },
    };
    return new Hooks({ timeout_s: 10, ...config }, 'demo', 'a', createLog('info', 'journal', sink));
  }

  /** A program that waits for what its words say and then writes them into a file. */
  const shell = (script: string): string[] => ['/bin/sh', '-c', script];

  it('are told what happened, and what they say is logged', async () => {
    const names = ['EVENT', 'CLUSTER', 'SELF', 'MEMBER', 'MEMBER_ID', 'MEMBER_ADDRESS', 'REASON'];
    const script = `echo ${names.map((name) => `$CONSTELLATION_${name}`).join(' ')}; echo trouble >&2`;
    const both = hooks({ on_ready: shell(script), on_member_lost: shell(script) });
    await both.run('ready');
    await both.run('member_lost', LOST);
    await both.run('drain');
    assert.match(logged, /^<6>hook on_ready: ready demo a$/m);
    assert.match(logged, /^<6>hook on_member_lost: member_lost demo a b 2 10\.0\.0\.2 silent$/m);
    assert.match(logged, /^<6>hook on_ready: trouble$/m);
    assert.match(logged, /^<6>hook on_ready: done$/m);
    assert.doesNotMatch(logged, /on_drain/);
  });

  it('get their words as they are: no shell looks at them', async () => {
    const file = join(folder, 'it');
    await hooks({ on_drain: ['/usr/bin/printf', '%s|', '$HOME', `; touch ${file}`, 'a b'] }).run('drain');
    assert.ok(logged.includes(`hook on_drain: $HOME|; touch ${file}|a b|`), logged);
    assert.ok(!existsSync(file));
  });

  it('run one after the other, and not beyond their time, with all they started', async () => {
    const file = join(folder, 'order');
    const slow = hooks({
      on_ready: shell(`(sleep 60; echo late >> ${file}) & echo first >> ${file}; wait`),
      on_drain: shell(`echo second >> ${file}`),
      timeout_s: 0.3,
    });
    await Promise.all([slow.run('ready'), slow.run('drain')]);
    assert.equal(readFileSync(file, 'utf8'), 'first\nsecond\n');
    assert.match(logged, /^<3>hook on_ready: not done after 0\.3 s; it is ended$/m);
    assert.match(logged, /^<3>hook on_ready: \/bin\/sh was ended by SIGTERM$/m);
  });

  it('that fail are logged and stop nothing', async () => {
    const broken = hooks({ on_ready: ['/nowhere/program'], on_drain: shell('exit 3') });
    await broken.run('ready');
    await broken.run('drain');
    assert.match(logged, /^<3>hook on_ready: \/nowhere\/program cannot be run: spawn \/nowhere\/program ENOENT$/m);
    assert.match(logged, /^<3>hook on_drain: \/bin\/sh ended with 3$/m);
  });

  it('that say too much are cut short', async () => {
    await hooks({ on_ready: shell('i=0; while [ $i -lt 300 ]; do echo $i; i=$((i+1)); done') }).run('ready');
    assert.ok(logged.split('\n').length < 110, `${logged.split('\n').length} lines`);
    assert.match(logged, /says more, which is not logged/);
  });
});
