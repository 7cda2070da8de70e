/**
 * Releases beside each other: which is started, which files stay, and what an instance does whose
 * release was replaced.
 */

import { strict as assert } from 'node:assert';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BUILD_ID } from '../../workers/engine/build-id.js';
import { MAC } from '../demo/capture.js';
import { installBuild, makeBuild, nameBuild, type Patch } from '../support/builds.js';
import { freePort } from '../support/ports.js';
import { eventually, Instance } from '../testbed/instance.js';
import { Program } from '../testbed/program.js';

/** A middlebox that says from which release it has its API. */
const OWN = `import * as api from 'constellation';
export default api.defineMiddlebox({
  name: 'own',
  help: 'Forwards all.',
  options: {},
  counters: {},
  state: () => ({}),
  open: () => () => {},
});
if (api.later !== undefined) throw new Error('has the API of a later release');
`;
/** The API of a later release has something more. */
const LATER: Patch = { file: 'workers/api/api.js', find: '\n', replace: '\nexport const later = 1;\n' };

/** Only what never happens takes so long: the machine may be busy. */
const WAIT_MS_MAX = 120_000;

describe('releases', function () {
  this.timeout(600_000);
  let folder = '';
  let root = '';
  const programs: Program[] = [];

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'constellation-releases-'));
    root = join(folder, 'root');
    mkdirSync(root);
  });

  afterEach(async function () {
    if (this.currentTest?.state === 'failed') for (const program of programs) console.log(program.tail());
    await Promise.all(programs.splice(0).map((program) => program.stop('SIGKILL')));
    rmSync(folder, { recursive: true, force: true });
  });

  const lib = (): string => join(root, 'usr/lib/constellation');
  const current = (): string => readlinkSync(join(lib(), 'current'));
  const releases = (): string[] => readdirSync(join(lib(), 'releases')).sort();

  const sourceOf = (kind: 'first' | 'later'): string => join(folder, `source-${kind}`);

  /** Installs the build of this tree, or one that is later, under an id. */
  function put(id: string, kind: 'first' | 'later' = 'later'): string {
    const source = sourceOf(kind);
    if (existsSync(source)) nameBuild(source, id);
    else makeBuild(source, id, kind === 'later' ? [LATER] : []);
    return installBuild(source, root);
  }

  /** Starts an instance as its unit would, with a middlebox of the user's own. */
  async function start(name: string): Promise<Instance> {
    const etc = join(folder, 'etc');
    if (!existsSync(etc)) {
      mkdirSync(join(etc, 'node_modules'), { recursive: true });
      symlinkSync(join(lib(), 'current'), join(etc, 'node_modules/constellation'));
      writeFileSync(join(etc, 'own.mjs'), OWN);
    }
    const socket = join(folder, `${name}.sock`);
    const file = join(etc, `${name}.yaml`);
    const config = {
      cluster: { id: name, self: 'a', members: [{ name: 'a', id: 1, address: '127.0.0.1' }] },
      transport: { kind: 'unicast', port: await freePort() },
      packet_io: { driver: 'pcap' },
      ports: {
        inside: { mac: MAC.inside, next_hop: MAC.client },
        outside: { mac: MAC.outside, next_hop: MAC.router },
      },
      middleboxes: [{ './own.mjs': {} }],
      admin: { socket },
    };
    writeFileSync(file, JSON.stringify(config));
    const argv = [join(root, 'usr/bin/constellationd'), '-c', file];
    const program = new Program(name, argv, join(folder, `${name}.log`));
    programs.push(program);
    const instance = new Instance(name, socket);
    await instance.attach(program);
    return instance;
  }

  const version = (): string => execFileSync(join(root, 'usr/bin/constellationd'), ['--version'], { encoding: 'utf8' });

  const client = (instance: Instance, ...words: string[]): string =>
    execFileSync(join(root, 'usr/bin/constellation'), ['-s', instance.socket, ...words], { encoding: 'utf8' });

  async function restartWorker(instance: Instance): Promise<void> {
    const before = (await instance.threads())[0].restarts;
    client(instance, 'restart', 'worker-0');
    const isBack = async (): Promise<true | null> => {
      const [worker] = await instance.threads();
      return worker.restarts > before && worker.state === 'ready' ? true : null;
    };
    await eventually('the worker to run again', isBack, WAIT_MS_MAX);
  }

  it('stay while an instance runs from them; threads that start again are of the same', async () => {
    put(BUILD_ID, 'first');
    const instance = await start('kept');
    assert.equal((await instance.status()).build, BUILD_ID);

    // An installation that fails changes nothing.
    const source = sourceOf('later');
    makeBuild(source, 'later', [LATER]);
    const file = join(source, 'dist/daemon/base/version.js');
    const text = readFileSync(file, 'utf8');
    writeFileSync(file, `throw new Error('broken');\n${text}`);
    const failed = spawnSync(join(source, 'systemd/install.sh'), ['--destdir', root], { encoding: 'utf8' });
    assert.equal(failed.status, 1);
    assert.match(failed.stderr, /what would be installed does not run; nothing was changed/);
    assert.deepEqual([current(), ...releases()], [`releases/${BUILD_ID}`, BUILD_ID]);
    writeFileSync(file, text);

    for (const [i, id] of ['x1', 'x2', 'x3'].entries()) {
      mkdirSync(join(lib(), 'releases', id));
      utimesSync(join(lib(), 'releases', id), i, i);
    }
    utimesSync(join(lib(), 'releases', BUILD_ID), 0, 0);
    const said = put('later');
    assert.equal(current(), 'releases/later');
    const runs = `^process ${instance.program.pid} runs from .*/releases/${BUILD_ID} until it is restarted`;
    assert.match(said, new RegExp(runs, 'm'));
    assert.deepEqual(releases(), [BUILD_ID, 'later', 'x2', 'x3'], 'one that runs stays, and the last three');

    await restartWorker(instance);
    assert.equal((await instance.status()).build, BUILD_ID);

    // Files that are replaced all the same.
    const id = join(lib(), 'releases', BUILD_ID, 'dist/build-id');
    writeFileSync(id, 'other\n');
    client(instance, 'restart', 'worker-0');
    const problem = `the instance runs build ${BUILD_ID}, and its files in .*/releases/${BUILD_ID} are of build other now: restart the instance`;
    const isDegraded = async (): Promise<true | null> => {
      const { state, state_reason } = await instance.status();
      return state === 'degraded' && new RegExp(`thread worker-0 is down: ${problem}`).test(state_reason) ? true : null;
    };
    await eventually('it to be degraded', isDegraded, WAIT_MS_MAX);
    const logged = instance.program.output.match(new RegExp(`worker-0 cannot be started again: ${problem}`, 'g'));
    assert.equal(logged?.length, 1);
    writeFileSync(id, `${BUILD_ID}\n`);
    const isReady = async (): Promise<true | null> => ((await instance.status()).state === 'ready' ? true : null);
    await eventually('it to be ready', isReady, WAIT_MS_MAX);

    const argv = ['--destdir', root];
    const refused = spawnSync(join(source, 'systemd/uninstall.sh'), argv, { encoding: 'utf8' });
    assert.equal(refused.status, 1);
    assert.match(refused.stderr, /process \d+ runs from .*: stop it first/);

    await instance.program.stop();
    put('later2');
    assert.deepEqual(releases(), ['later', 'later2', 'x3'], 'nothing runs from it any more');
    execFileSync(join(lib(), 'releases/later/systemd/install.sh'), argv);
    assert.equal(current(), 'releases/later', 'the install.sh of a release goes back to it');
    assert.match(version(), /\(build later\)/);
    assert.deepEqual(releases(), ['later', 'later2', 'x3']);
  });

  it('are never changed, and take the place of a version that had none', () => {
    put('old', 'first');
    // As it was laid out before.
    const former = join(folder, 'former');
    renameSync(join(lib(), 'releases/old'), former);
    rmSync(lib(), { recursive: true });
    renameSync(former, lib());
    rmSync(join(root, 'usr/bin/constellationd'));
    symlinkSync('../lib/constellation/dist/daemon/constellationd.js', join(root, 'usr/bin/constellationd'));
    put('new', 'first');
    assert.deepEqual(readdirSync(lib()).sort(), ['current', 'releases', 'systemd']);
    assert.match(version(), /\(build new\)/);

    const file = join(lib(), 'releases/new/dist/daemon/base/version.js');
    writeFileSync(file, `${readFileSync(file, 'utf8')}\n// damaged\n`);
    for (let time = 0; time < 2; time++) {
      put('new', 'first');
      assert.deepEqual([current(), ...releases()], ['releases/new-2', 'new', 'new-2']);
    }
  });
});
