import { strict as assert } from 'node:assert';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { COMMANDS } from '../../daemon/admin/commands/index.js';
import { AdminServer } from '../../daemon/admin/server.js';
import { RIGHT } from '../conf/fake-nat.js';
import { needs } from '../support/require.js';
import { FakeSource } from './admin/fake-source.js';

const PROGRAM = fileURLToPath(new URL('../../daemon/constellation.js', import.meta.url));

interface Outcome {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

describe('constellation', () => {
  let folder = '';
  let socket = '';
  let source: FakeSource;
  let server: AdminServer;

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'constellation-client-'));
    socket = join(folder, 'admin.sock');
    source = new FakeSource();
    server = await AdminServer.listen(socket, source, { commands: COMMANDS });
  });

  after(async () => {
    await server.close();
    rmSync(folder, { recursive: true, force: true });
  });

  function run(args: readonly string[], environment: NodeJS.ProcessEnv = {}): Promise<Outcome> {
    return runProgram(process.execPath, [PROGRAM, ...args], { CONSTELLATION_SOCKET: socket, ...environment });
  }

  it('prints the answer, as text or JSON', async () => {
    const text = await run(['show', 'peers']);
    assert.deepEqual([text.code, text.err], [0, '']);
    assert.match(text.out, /^PEER +ID .*\nb +2 .*\nlong-name .*\n$/);
    const json = await run(['show', 'counters', 'nat_*', '-o', 'json']);
    assert.deepEqual(
      json.out
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line).name),
      ['nat_exhausted', 'nat_hostile'],
    );
    const before = await run(['-o', 'json', '-s', socket, 'status'], { CONSTELLATION_SOCKET: '/nowhere' });
    assert.equal(JSON.parse(before.out).state, 'ready');
  });

  it('finds the socket through the configuration', async () => {
    const file = join(folder, 'site.yaml');
    writeFileSync(file, `${RIGHT}admin: { socket: admin.sock }\n`);
    const found = await run(['-c', file, 'status'], { CONSTELLATION_SOCKET: '/nowhere' });
    assert.deepEqual([found.code, found.err], [0, '']);
    writeFileSync(file, `${RIGHT}admin: { sockt: admin.sock }\n`);
    const wrong = await run(['-c', file, 'status']);
    assert.equal(wrong.code, 78);
    assert.match(wrong.err, /site\.yaml:12:10: admin\.sockt: unknown setting "sockt"; did you mean "socket"\?/);
  });

  it('has exit codes that mean something', async () => {
    source.drained = { complete: false, unacknowledged_records: 3 };
    const failed = await run(['drain']);
    assert.equal(failed.code, 1);
    assert.match(failed.err, /^constellation: some members do not have everything: 3 records/);
    const usage = await run(['show', 'peer']);
    assert.equal(usage.code, 2);
    assert.match(usage.err, /did you mean "show peers"/);
    assert.equal((await run(['status', '--bogus'])).code, 2);
    assert.equal((await run([])).code, 2);
    assert.equal((await run(['-o', 'xml', 'status'])).code, 2);
    for (const words of [['--help'], ['--version'], ['help'], ['help', 'show', 'flows']]) {
      const { code, out, err } = await run(words, { CONSTELLATION_SOCKET: '/nowhere' });
      assert.deepEqual([code, err], [0, ''], words.join(' '));
      assert.notEqual(out, '');
    }
    assert.equal((await run(['help', 'nothing'])).code, 2);
  });

  it('says what to do when there is no instance', async () => {
    const none = await run(['-s', join(folder, 'none.sock'), 'status']);
    assert.equal(none.code, 69);
    assert.match(none.err, /no instance has its admin socket there; is it running/);
    const file = join(folder, 'file');
    writeFileSync(file, '');
    assert.equal((await run(['-s', file, 'status'])).code, 69);
  });

  it('says that it may not speak to the instance', async function () {
    needs(this, 'root');
    needs(this, 'tool:setpriv');
    // Others may look into the folder, but the socket is the owner's and the group's.
    const args = [
      '--reuid=65534',
      '--regid=65534',
      '--clear-groups',
      process.execPath,
      PROGRAM,
      '-s',
      socket,
      'status',
    ];
    await runProgram('chmod', ['755', folder]);
    const refused = await runProgram('setpriv', args);
    assert.equal(refused.code, 77, refused.err);
    assert.match(refused.err, /no permission; run this as root or as a member of the socket's group/);
  });

  it('gives up on an instance that is silent, or goes away in the middle', async () => {
    const path = join(folder, 'silent.sock');
    const silent = createServer((client) => {
      client.once('data', (bytes) => {
        if (String(bytes).startsWith('status')) client.end('half an answer\n');
      });
    });
    await new Promise<void>((resolve) => silent.listen(path, resolve));
    const gone = await run(['-s', path, 'status']);
    assert.deepEqual([gone.code, gone.out], [69, 'half an answer\n']);
    assert.match(gone.err, /closed the connection in the middle of its answer/);
    const quiet = await run(['-s', path, '-t', '0.2', 'show', 'peers']);
    assert.equal(quiet.code, 69);
    assert.match(quiet.err, /it does not answer/);
    await new Promise((resolve) => silent.close(resolve));
  });

  it('waits as long as it takes for what ends by itself', async () => {
    let open = (): void => {};
    source.gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    setTimeout(open, 1500);
    const reloaded = await run(['-t', '0.2', 'reload', 'rules']);
    assert.deepEqual([reloaded.code, reloaded.err], [0, '']);
    assert.match(reloaded.out, /site\.rules/);
  });

  it('is quiet when its reader has enough', async () => {
    source.flowCount = 100_000;
    const head = await runProgram('sh', ['-c', `'${process.execPath}' '${PROGRAM}' show flows | head -n 3`], {
      CONSTELLATION_SOCKET: socket,
    });
    assert.deepEqual([head.code, head.err], [0, '']);
    assert.equal(head.out.split('\n').length, 4);
  });

  it('asks again and again', async () => {
    const watching = spawn(process.execPath, [PROGRAM, '-s', socket, 'status', '-w', '0.05'], { stdio: 'pipe' });
    let out = '';
    await new Promise<void>((resolve) => {
      watching.stdout.on('data', (bytes) => {
        out += bytes;
        if (out.split('state_reason').length > 3) resolve();
      });
    });
    watching.kill();
  });
});

function runProgram(file: string, args: readonly string[], environment: NodeJS.ProcessEnv = {}): Promise<Outcome> {
  return new Promise((resolve) => {
    const child = spawn(file, args, { env: { ...process.env, ...environment }, stdio: ['ignore', 'pipe', 'pipe'] });
    let out = '';
    let err = '';
    child.stdout.on('data', (bytes) => {
      out += bytes;
    });
    child.stderr.on('data', (bytes) => {
      err += bytes;
    });
    child.on('close', (code) => resolve({ code, out, err }));
  });
}
