/**
 * What runs inside the virtual machine (main.ts): the instance between real drivers' ports, client
 * and server in network namespaces of their own. Writes a line for each case: `passed: …`, or
 * `failed: …` with what was seen below.
 */

import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { createWriteStream, mkdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { stringify } from 'yaml';
import { askJson } from '../../daemon/admin/client.js';
import type { CounterRow, Status } from '../../daemon/views/source.js';

const SOCKET = '/tmp/socket';
const LOG = '/tmp/log';
const FILE_BYTES = 3_000_000;
const START_MS_MAX = 400_000;
/** A machine that emulates another is slow. */
const DOWNLOAD_S = 120;
const CLIENT = '10.0.1.5';
const SERVER = '198.51.100.1';
const EXTERNAL = '203.0.113.1';

const driver = basename(readlinkSync('/sys/class/net/eth1/device/driver'));

function ip(...argv: string[]): void {
  execFileSync('/usr/bin/ip', argv, { stdio: 'pipe' });
}

/** Runs a program in a namespace; returns whether it succeeded, and what it wrote. */
function inside(namespace: string, ...argv: string[]): { ok: boolean; output: string } {
  const { status, stdout, stderr } = spawnSync('/usr/bin/ip', ['netns', 'exec', namespace, ...argv], {
    encoding: 'utf8',
  });
  return { ok: status === 0, output: `${stdout}${stderr}`.trim() };
}

/** How many of three echo requests of this size, which nobody may fragment, are answered. */
function pings(bytes = 56): number {
  const argv = ['/usr/bin/ping', '-n', '-M', 'do', '-s', `${bytes}`, '-c', '3', '-i', '0.5', '-W', '5', SERVER];
  return Number(/(\d+) received/.exec(inside('client', ...argv).output)?.[1] ?? 0);
}

/** Whether all come back, once the data plane knows the next hops: until then it drops. */
function pass(bytes?: number): boolean {
  for (let tries = 0; tries < 5; tries++) if (pings(bytes) === 3) return true;
  return false;
}

function download(): boolean {
  return (
    inside('client', 'timeout', `${DOWNLOAD_S}`, 'wget', '-q', '-O', '/tmp/got', `http://${SERVER}/file`).ok &&
    readFileSync('/tmp/got').length === FILE_BYTES
  );
}

function assert(is: boolean, what: string): void {
  if (!is) throw new Error(what);
}

class Box {
  private readonly process: ChildProcess;
  private ended = false;

  constructor(sections: Record<string, unknown>) {
    writeFileSync(
      '/tmp/box.yaml',
      stringify({
        cluster: { id: 'vm', self: 'a', members: [{ name: 'a', id: 1, address: '127.0.0.1' }] },
        transport: { kind: 'unicast' },
        replication: { join_wait_ms: 200 },
        admin: { socket: SOCKET },
        ...sections,
      }),
    );
    const log = createWriteStream(LOG);
    this.process = spawn(process.execPath, ['dist/daemon/constellationd.js', '-c', '/tmp/box.yaml'], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.process.stdout?.pipe(log);
    this.process.stderr?.pipe(log);
    this.process.once('exit', () => {
      this.ended = true;
    });
  }

  /** Returns when all threads are ready; throws with the log's end if the daemon gave up. */
  async ready(): Promise<void> {
    const deadline = performance.now() + START_MS_MAX;
    for (;;) {
      await sleep(500);
      if (this.ended) throw new Error(readFileSync(LOG, 'utf8').trim().split('\n').at(-1));
      if (performance.now() > deadline) throw new Error('it is not ready yet');
      const status = await this.status();
      if (status?.state === 'ready' && status.threads_ready === status.threads) return;
    }
  }

  async status(): Promise<Status | null> {
    try {
      return (await askJson(SOCKET, 'status', { silence_ms: 20_000 }))[0] as Status;
    } catch {
      return null; // it does not listen yet
    }
  }

  async counters(): Promise<string> {
    const rows = (await askJson(SOCKET, 'show counters', { silence_ms: 20_000 })) as CounterRow[];
    return rows
      .filter(({ name, total }) => total > 0 && !name.startsWith('state_'))
      .map(({ name, total }) => `${name} ${total}`)
      .join(', ');
  }

  async stop(): Promise<void> {
    if (this.ended) return;
    this.process.kill('SIGTERM');
    for (let waited = 0; !this.ended && waited < 60_000; waited += 100) await sleep(100);
    if (!this.ended) this.process.kill('SIGKILL');
  }
}

const NAT = {
  ports: { inside: { interface: 'eth1' }, outside: { interface: 'eth2', next_hop: SERVER } },
  middleboxes: [{ nat: { inside: 'inside', outside: 'outside', external: [EXTERNAL] } }],
};

/**
 * Runs the cases of one instance. What the instance counted and logged is shown where one fails.
 */
async function withBox(
  sections: Record<string, unknown>,
  what: string,
  cases: readonly [name: string, test: (box: Box) => Promise<void>][],
): Promise<void> {
  const box = new Box(sections);
  try {
    await report(`${what}: starts`, box, () => box.ready());
    for (const [name, test] of cases) await report(`${what}: ${name}`, box, () => test(box));
  } catch {
    for (const [name] of cases) console.log(`failed: ${what}: ${name} (not tried)`);
  } finally {
    await box.stop();
  }
}

async function report(name: string, box: Box, test: () => Promise<void>): Promise<void> {
  try {
    await test();
    console.log(`passed: ${name}`);
  } catch (error) {
    console.log(`failed: ${name}: ${(error as Error).message}`);
    console.log(`  ${await box.counters().catch(() => 'no counters')}`);
    for (const line of readFileSync(LOG, 'utf8').trim().split('\n').slice(-30)) console.log(`  ${line.slice(0, 300)}`);
    if (name.endsWith(': starts')) throw error;
  }
}

function buildNetwork(): void {
  for (const [namespace, name, address] of [
    ['client', 'eth0', `${CLIENT}/24`],
    ['server', 'eth3', `${SERVER}/24`],
  ]) {
    ip('netns', 'add', namespace);
    ip('link', 'set', name, 'netns', namespace);
    ip('-n', namespace, 'link', 'set', 'lo', 'up');
    ip('-n', namespace, 'addr', 'add', address, 'dev', name);
    ip('-n', namespace, 'link', 'set', name, 'up');
  }
  for (const name of ['eth1', 'eth2']) ip('link', 'set', name, 'up');
  mkdirSync('/tmp/www');
  writeFileSync('/tmp/www/file', Buffer.alloc(FILE_BYTES, 7));
  spawn('/usr/bin/ip', ['netns', 'exec', 'server', 'httpd', '-f', '-p', '80', '-h', '/tmp/www'], {
    stdio: 'ignore',
  }).unref();
}

/** The box is a router between two subnets. */
function route(): void {
  ip('addr', 'add', '10.0.1.1/24', 'dev', 'eth1');
  ip('addr', 'add', '198.51.100.2/24', 'dev', 'eth2');
  ip('-n', 'client', 'route', 'replace', '198.51.100.0/24', 'via', '10.0.1.1');
  ip('-n', 'server', 'route', 'replace', EXTERNAL, 'via', '198.51.100.2');
}

/** The box is a wire: client and server are on one link. */
function wire(): void {
  for (const name of ['eth1', 'eth2']) ip('addr', 'flush', 'dev', name);
  ip('-n', 'client', 'route', 'replace', '198.51.100.0/24', 'dev', 'eth0');
  ip('-n', 'server', 'route', 'replace', '10.0.1.0/24', 'dev', 'eth3');
}

function setMtu(bytes: number): void {
  ip('-n', 'client', 'link', 'set', 'eth0', 'mtu', `${bytes}`);
  ip('-n', 'server', 'link', 'set', 'eth3', 'mtu', `${bytes}`);
  for (const name of ['eth1', 'eth2']) ip('link', 'set', name, 'mtu', `${bytes}`);
}

async function nat(): Promise<void> {
  await withBox(NAT, 'NAT', [
    ['ping', async () => assert(pass(), 'not all came back')],
    ['download', async () => assert(download(), 'it did not complete')],
    [
      'link down and up',
      async () => {
        ip('link', 'set', 'eth1', 'down');
        assert(pings() === 0, 'the link is down, and pings came back');
        ip('link', 'set', 'eth1', 'up');
        assert(pass() || pass(), 'nothing passes since the link is up again');
        assert(download(), 'a download did not complete since the link is up again');
      },
    ],
  ]);
}

async function firewall(): Promise<void> {
  writeFileSync('/tmp/rules', 'policy drop\niif inside tcp dport 80 accept\n');
  const sections = {
    mode: 'wire',
    ports: { inside: { interface: 'eth1' }, outside: { interface: 'eth2' } },
    middleboxes: [{ firewall: { rules: '/tmp/rules' } }],
  };
  await withBox(sections, 'wire firewall', [
    ['drops what the rules do not allow', async () => assert(pings() === 0, 'pings came back')],
    ['passes what they allow', async () => assert(download(), 'the download did not complete')],
  ]);
}

/** Either frames of this size pass, or the instance refuses to start and says why. */
async function jumbo(): Promise<void> {
  const box = new Box(NAT);
  try {
    const refusal = await box.ready().then(
      () => null,
      (error: Error) => error.message,
    );
    if (refusal !== null) {
      const isExplained = /MTU 9000/.test(refusal);
      console.log(`${isExplained ? 'passed' : 'failed'}: MTU 9000: refused: ${refusal}`);
      return;
    }
    await report('MTU 9000: pings of 9000 bytes', box, async () => assert(pass(8972), 'not all came back'));
    await report('MTU 9000: download', box, async () => assert(download(), 'it did not complete'));
  } finally {
    await box.stop();
  }
}

console.log(`\n  Linux ${readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim()}, ports of ${driver}`);
buildNetwork();
setMtu(1500);
route();
await nat();
wire();
await firewall();
route();
setMtu(9000);
await jumbo();
console.log('guest: finished');
process.exit(0);
