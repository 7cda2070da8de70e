import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BUILD_ID } from '../../workers/engine/build-id.js';
import { needs } from '../support/require.js';

const SYSTEMD = fileURLToPath(new URL('../../../systemd/', import.meta.url));

interface Outcome {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

function run(program: string, ...args: string[]): Outcome {
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8' });
  if (error !== undefined) throw error;
  return { code: status, out: stdout, err: stderr };
}

function succeed(program: string, ...args: string[]): string {
  const { code, out, err } = run(program, ...args);
  assert.equal(code, 0, `${program} ${args.join(' ')}: ${err}`);
  return out;
}

const install = (...args: string[]) => run(join(SYSTEMD, 'install.sh'), ...args);
const uninstall = (...args: string[]) => run(join(SYSTEMD, 'uninstall.sh'), ...args);

/** Where the build of this tree is installed. */
const release = (root: string): string => `${root}/usr/lib/constellation/releases/${BUILD_ID}`;

/** All files below a folder, sorted, by their path in it. */
function files(folder: string): string[] {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length))
    .sort();
}

describe('installation', () => {
  let root = '';

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'constellation-install-'));
  });

  afterEach(() => rmSync(root, { recursive: true, force: true }));

  it('is complete by itself: its programs run', () => {
    const { code, out, err } = install('--destdir', root);
    assert.equal(code, 0, err);
    assert.match(out, /etc\/constellation\/constellation\.yaml, an example: change it/);
    const daemon = `${root}/usr/bin/constellationd`;
    const config = `${root}/etc/constellation/constellation.yaml`;
    assert.equal(succeed(daemon, '--check', '-c', config), `${config}: ok\n`);
    const version = succeed(`${root}/usr/bin/constellation`, '--version');
    assert.match(version, /^\d+\.\d+\.\d+ \(build [0-9a-f]{12}\)\n$/);
    assert.match(out, new RegExp(`^installed build ${BUILD_ID} in ${release(root)}$`, 'm'));
    assert.match(
      readFileSync(config, 'utf8'),
      /\$schema=\/usr\/lib\/constellation\/current\/conf\/constellation\.schema\.json\n/,
    );
    assert.equal(readlinkSync(`${root}/usr/lib/constellation/current`), `releases/${BUILD_ID}`);
    const installed = files(release(root));
    assert.ok(installed.includes('/conf/constellation.schema.json'));
    assert.ok(installed.includes('/dist/workers/native/addon.node'));
    for (const unwanted of [/^\/dist\/test\//, /^\/node_modules\/(typescript|mocha|@biomejs)\//, /^\/dist\/.*\.map$/]) {
      assert.deepEqual(
        installed.filter((file) => unwanted.test(file)),
        [],
      );
    }
  });

  it('can be done again, and leaves the configuration as it is', () => {
    assert.equal(install(`--destdir=${root}`).code, 0);
    const before = files(root);
    writeFileSync(`${root}/etc/constellation/constellation.yaml`, 'mine\n');
    assert.equal(install(`--destdir=${root}`).code, 0);
    assert.deepEqual(files(root), before);
    assert.equal(readFileSync(`${root}/etc/constellation/constellation.yaml`, 'utf8'), 'mine\n');
  });

  it('is removed but for the configuration, or with it', () => {
    assert.equal(install('--destdir', root).code, 0);
    const { code, out } = uninstall('--destdir', root);
    assert.equal(code, 0);
    assert.match(out, /the configuration in .*\/etc\/constellation stays; --purge removes it/);
    assert.deepEqual(files(root), ['/etc/constellation/constellation.yaml']);
    assert.equal(uninstall('--destdir', root, '--purge').code, 0);
    assert.deepEqual(files(root), []);
    assert.equal(uninstall('--destdir', root).code, 0, 'there is nothing, and that is fine');
  });

  it('goes below another prefix', () => {
    assert.equal(install('--destdir', root, '--prefix', '/usr/local').code, 0);
    const unit = readFileSync(`${root}/usr/local/lib/systemd/system/constellation.service`, 'utf8');
    assert.match(unit, /^ExecStart=\/usr\/local\/bin\/constellationd -c \/etc\/constellation\/constellation\.yaml$/m);
    assert.ok(lstatSync(`${root}/usr/local/bin/constellation`).isSymbolicLink());
    assert.equal(uninstall('--destdir', root, '--prefix', '/usr/local', '--purge').code, 0);
    assert.deepEqual(files(root), []);
  });

  it('takes the place of nothing that is not its own', () => {
    mkdirSync(`${root}/usr/bin`, { recursive: true });
    writeFileSync(`${root}/usr/bin/constellation`, 'another program');
    const refused = install('--destdir', root);
    assert.equal(refused.code, 1);
    assert.match(refused.err, /usr\/bin\/constellation is something else; remove it first/);
    assert.deepEqual(files(root), ['/usr/bin/constellation']);
    assert.equal(uninstall('--destdir', root).code, 0);
    assert.deepEqual(files(root), ['/usr/bin/constellation']);

    mkdirSync(`${root}/usr/lib/constellation`, { recursive: true });
    writeFileSync(`${root}/usr/lib/constellation/precious`, '');
    assert.match(uninstall('--destdir', root).err, /is something else and stays/);
    assert.ok(existsSync(`${root}/usr/lib/constellation/precious`));
  });

  it('explains itself, and refuses what it does not know', () => {
    for (const script of [install, uninstall]) {
      const help = script('--help');
      assert.equal(help.code, 0);
      assert.match(help.out, /^usage: systemd\/(un)?install\.sh/);
      assert.equal(script('--bogus').code, 2);
      assert.equal(script('--prefix').code, 2);
      assert.equal(script('--destdir', root, '--prefix', 'relative').code, 1);
      assert.equal(script('--destdir', root, '--prefix', '/a b').code, 1);
    }
    assert.equal(install('--destdir', root, '--purge').code, 2);
  });

  it('has a unit that systemd understands', function () {
    needs(this, 'tool:systemd-analyze');
    assert.equal(install('--destdir', root).code, 0);
    // Verified where it is, but for the program, which is not in /usr/bin here.
    const unit = join(root, 'constellation.service');
    const text = readFileSync(`${root}/usr/lib/systemd/system/constellation.service`, 'utf8');
    writeFileSync(unit, text.replaceAll('/usr/bin/', `${root}/usr/bin/`));
    const { code, err } = run('systemd-analyze', 'verify', '--recursive-errors=no', unit);
    assert.deepEqual([code, err], [0, '']);
  });
});
