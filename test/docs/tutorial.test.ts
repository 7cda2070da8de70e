/**
 * The tutorial, done as it says: its files are written, its commands run, and its guard stands at
 * two sites.
 */

import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadConfig } from '../../daemon/config/config.js';
import { loadMiddlebox } from '../../workers/plane/load.js';
import { on } from '../workers/support/plane.js';
import { INSIDE, OUTSIDE, Site } from '../workers/support/site.js';
import { BLOCKS, tutorialFile } from './tutorial.js';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const knock = (port: number, from = '198.51.100.9') => on(OUTSIDE, `udp ${from}:5000 > 10.0.0.5:${port}`);
const connect = (from = '198.51.100.9') => on(OUTSIDE, `tcp ${from}:5000 > 10.0.0.5:22 S`);
const LET_IN = ['0: tcp 198.51.100.9:5000 > 10.0.0.5:22 S ttl 63'];
const REFUSED = ['1: tcp 10.0.0.5:22 > 198.51.100.9:5000 RA'];

describe('the tutorial', () => {
  let home = '';
  const site = async (member: number): Promise<Site> => {
    const { config, errors } = await loadConfig(join(home, 'knock/a.yaml'));
    assert.deepEqual(errors, undefined);
    const [{ module = '', options }] = config?.middleboxes ?? [];
    return new Site({
      chain: [{ middlebox: await loadMiddlebox(module), options }],
      member,
      members: 2,
      ...(config && { shared: config.shared }),
    });
  };

  before(() => {
    home = mkdtempSync(join(tmpdir(), 'constellation-tutorial-'));
  });
  after(() => rmSync(home, { recursive: true, force: true }));

  it('has commands and files that work as they stand', function () {
    this.timeout(60_000);
    assert.deepEqual(
      BLOCKS.map(({ language, file }) => file ?? language),
      ['sh', 'guard.mjs', 'a.yaml', 'sh'],
    );
    for (const { file, text } of BLOCKS) {
      if (file !== undefined) {
        writeFileSync(join(home, 'knock', file), text);
        continue;
      }
      const { status, stdout, stderr } = spawnSync('sh', ['-ec', text], {
        cwd: ROOT,
        env: { ...process.env, HOME: home },
        encoding: 'utf8',
      });
      assert.equal(status, 0, stderr);
      if (text.includes('--check')) assert.equal(stdout, `${home}/knock/a.yaml: ok\n`);
    }
  });

  it('has a guard of about forty lines, with the right types', function () {
    this.timeout(60_000);
    const lines = tutorialFile('guard.mjs').split('\n').length;
    assert.ok(lines > 30 && lines < 60, `${lines} lines`);
    const strict = ['--strict', '--noImplicitAny', 'false', '--allowJs', '--checkJs', '--noEmit', '--skipLibCheck'];
    const modules = ['--target', 'ES2023', '--module', 'NodeNext', '--types', ''];
    const program = join(ROOT, 'node_modules/.bin/tsc');
    const check = () =>
      spawnSync(program, [...strict, ...modules, 'guard.mjs'], { cwd: join(home, 'knock'), encoding: 'utf8' });
    const { status, stdout } = check();
    assert.equal(status, 0, stdout);
  });

  it('opens the port at one site to who knocked at the other', async () => {
    const [a, b] = [await site(0), await site(1)];
    assert.deepEqual(b.pass(connect()), REFUSED);
    assert.deepEqual(a.pass(knock(7003), knock(7001), knock(7002)), [], 'knocks are for the guard alone');
    assert.deepEqual(b.pass(connect()), REFUSED, 'b has not heard yet');
    assert.equal(a.replicateTo(b), 3);
    assert.deepEqual(b.pass(connect()), LET_IN);
    assert.deepEqual(b.pass(connect('198.51.100.10')), ['1: tcp 10.0.0.5:22 > 198.51.100.10:5000 RA']);
    assert.equal(a.receiver[0].digest(a.now), b.receiver[0].digest(b.now));
    assert.deepEqual(a.plane.counts(), { guard_knocked: 3, guard_opened: 1 });
    assert.deepEqual(b.plane.counts(), { guard_refused: 3 });
  });

  it('counts knocks made at either site, and starts anew after a wrong one', async () => {
    const [a, b] = [await site(0), await site(1)];
    a.pass(knock(7003));
    a.replicateTo(b);
    b.pass(knock(7001));
    b.replicateTo(a);
    a.pass(knock(7002));
    assert.deepEqual(a.pass(connect()), LET_IN);

    const other = '198.51.100.20';
    for (let port = 7000; port < 7010; port++) a.pass(knock(port, other));
    for (let port = 7000; port < 7010; port++) a.pass(knock(port, other));
    assert.match(a.pass(connect(other))[0], /^1: .* RA$/, 'a scan is no knock');
    a.pass(knock(7003, other), knock(7001, other), knock(7002, other));
    assert.match(a.pass(connect(other))[0], /^0: /);
  });

  it('closes the port again, but not to who is heard, and keeps its table and its log', async () => {
    const a = await site(0);
    a.pass(knock(7003), knock(7001), knock(7002));
    for (let n = 0; n < 4; n++) {
      a.later(200);
      assert.deepEqual(a.pass(connect()), LET_IN);
    }
    a.plane.idle(60_000, 200);
    const [line] = a.plane.logged.read().slice(-1);
    assert.equal(line.text, 'guard: hosts');
    assert.equal((line.fields?.['guard'] as Record<string, number>)['used'], 1);
    a.later(300);
    assert.deepEqual(a.pass(connect()), REFUSED);
    a.later(120);
    a.plane.idle(65_000, 100);
    assert.equal(a.objects[0].describe(a.now)['used'], 0);
  });

  it('lets all else pass', async () => {
    const a = await site(0);
    for (const packet of [
      'udp 8.8.8.8:53 > 10.0.0.5:53',
      'tcp 8.8.8.8:80 > 10.0.0.5:5000 SA',
      'icmp 8.8.8.8 > 10.0.0.5 echo 1',
    ])
      assert.deepEqual(a.pass(on(OUTSIDE, packet)), [`0: ${packet} ttl 63`]);
    assert.equal(a.pass(on(INSIDE, 'tcp 10.0.0.5:22 > 198.51.100.9:5000 SA')).length, 1);
  });
});
