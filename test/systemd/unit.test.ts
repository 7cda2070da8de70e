import { strict as assert } from 'node:assert';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { askJson } from '../../daemon/admin/client.js';
import type { Status } from '../../daemon/views/source.js';
import { needs } from '../support/require.js';

const SYSTEMD = fileURLToPath(new URL('../../../systemd/', import.meta.url));
/** Some user without rights of its own, as `constellation` is. */
const NOBODY = 65_534;
const NAMESPACE = `ct-unit-${process.pid}`;

/**
 * Runs a program as the unit would. A container may not let even root raise the limit; there the
 * usual one has to do.
 */
const AS_SERVICE = `
ulimit -l unlimited 2>/dev/null || true
exec setpriv --reuid=${NOBODY} --regid=${NOBODY} --clear-groups --no-new-privs \\
  --inh-caps="-all,$1" --ambient-caps="-all,$1" --bounding-set="-all,$1" node "$2" -c "$3"`;

/** A setting of the unit. */
function setting(name: string): string {
  const unit = readFileSync(`${SYSTEMD}constellation.service`, 'utf8');
  const value = new RegExp(`^${name}=(.*)$`, 'm').exec(unit)?.[1];
  assert.ok(value, `the unit has no ${name}=`);
  return value;
}

function ip(...args: string[]): void {
  execFileSync('ip', args);
}

describe('unit', () => {
  let folder = '';
  const children: ChildProcess[] = [];

  beforeEach(function () {
    needs(this, 'root');
    needs(this, 'af_xdp');
    needs(this, 'tool:setpriv');
    needs(this, 'tool:socat');
    folder = mkdtempSync(join(tmpdir(), 'constellation-unit-'));
    ip('netns', 'add', NAMESPACE);
    ip('-n', NAMESPACE, 'link', 'set', 'lo', 'up');
    for (const name of ['in0', 'out0']) {
      ip('-n', NAMESPACE, 'link', 'add', name, 'type', 'veth', 'peer', 'name', `${name}-far`);
      ip('-n', NAMESPACE, 'link', 'set', name, 'up');
      ip('-n', NAMESPACE, 'link', 'set', `${name}-far`, 'up');
    }
  });

  afterEach(async () => {
    await Promise.all(children.splice(0).map(ended));
    if (folder === '') return;
    ip('netns', 'del', NAMESPACE);
    rmSync(folder, { recursive: true, force: true });
    folder = '';
  });

  async function ended(child: ChildProcess): Promise<void> {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exit = new Promise((resolve) => child.once('exit', resolve));
    child.kill();
    await exit;
  }

  it('gives the rights that the daemon needs, and it tells systemd how it is', async () => {
    assert.equal(execFileSync(`${SYSTEMD}install.sh`, ['--destdir', folder], { encoding: 'utf8' }).length > 0, true);
    const runtime = join(folder, 'run');
    mkdirSync(runtime);
    chownSync(runtime, NOBODY, NOBODY);
    chmodSync(folder, 0o755);
    const config = join(folder, 'site.yaml');
    const socket = join(runtime, 'admin.sock');
    writeFileSync(
      config,
      `cluster: { id: unit, self: a, members: [{ name: a, id: 1, address: 127.0.0.1 }] }
packet_io: { driver: af_xdp, ring_size: 256, frames: 1024 }
ports:
  inside: { interface: in0, next_hop: 02:00:00:00:00:01 }
  outside: { interface: out0, next_hop: 02:00:00:00:00:02 }
middleboxes:
  - nat: { inside: inside, outside: outside, external: [203.0.113.1], flows: 1024 }
admin: { socket: ${socket} }
`,
    );
    const notify = join(folder, 'notify');
    const manager = spawn('socat', ['-u', `UNIX-RECV:${notify},mode=666`, 'STDOUT'], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    children.push(manager);
    let told = '';
    manager.stdout?.on('data', (bytes) => {
      told += bytes;
    });
    await eventually(
      () => existsSync(notify),
      () => 'socat does not listen',
    );

    const capabilities = setting('AmbientCapabilities')
      .split(' ')
      .map((name) => `+${name.replace(/^CAP_/, '').toLowerCase()}`);
    const program = `${folder}/usr/lib/constellation/current/dist/daemon/constellationd.js`;
    const daemon = spawn(
      'ip',
      ['netns', 'exec', NAMESPACE, 'sh', '-c', AS_SERVICE, 'sh', capabilities.join(','), program, config],
      {
        env: { PATH: process.env['PATH'], NOTIFY_SOCKET: notify, WATCHDOG_USEC: '400000' },
        stdio: ['ignore', 'ignore', 'pipe'],
      },
    );
    children.push(daemon);
    let said = '';
    daemon.stderr?.on('data', (bytes) => {
      said += bytes;
    });
    const why = () => `the daemon said: ${said}\nand told systemd: ${told}`;
    await eventually(() => /READY=1\nSTATUS=.*WATCHDOG=1WATCHDOG=1/s.test(told), why, daemon);

    const [status] = (await askJson(socket, 'status')) as Status[];
    assert.equal(status.state, 'ready', why());
    assert.equal(status.threads_ready, status.threads);
    daemon.kill('SIGTERM');
    await eventually(() => daemon.exitCode !== null || daemon.signalCode !== null, why);
    assert.equal(daemon.exitCode, 0, why());
    assert.match(told, /STOPPING=1/);
    assert.ok(!existsSync(socket), 'the admin socket is gone');
  });
});

async function eventually(holds: () => boolean, why: () => string, running?: ChildProcess): Promise<void> {
  for (let i = 0; i < 1000 && (running?.exitCode ?? null) === null; i++) {
    if (holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.ok(holds(), why());
}
