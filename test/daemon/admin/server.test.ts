import { strict as assert } from 'node:assert';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, lstatSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ask, askAll, askJson, CommandError, UnreachableError } from '../../../daemon/admin/client.js';
import { COMMANDS } from '../../../daemon/admin/commands/index.js';
import { AdminServer, type AdminServerOptions } from '../../../daemon/admin/server.js';
import { FakeSource } from './fake-source.js';

let folder = '';
let path = '';
let source: FakeSource;
let server: AdminServer | undefined;

async function listen(options: Partial<AdminServerOptions> = {}): Promise<void> {
  server = await AdminServer.listen(path, source, { commands: COMMANDS, ...options });
}

/** Sends bytes, ends its own side, and returns everything that comes back. */
async function exchange(bytes: string | Buffer): Promise<string> {
  const socket = connect({ path, allowHalfOpen: true });
  socket.end(bytes);
  return await rest(socket);
}

async function rest(socket: Socket): Promise<string> {
  let text = '';
  socket.setEncoding('utf8');
  socket.on('data', (piece) => {
    text += piece;
  });
  // Cut off in the middle of what it was sending: what came before counts.
  socket.on('error', () => undefined);
  await gone(socket);
  return text;
}

function gone(socket: Socket): Promise<void> {
  return new Promise((resolve) => socket.once('close', () => resolve()));
}

describe('admin socket', () => {
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'constellation-admin-'));
    path = join(folder, 'admin.sock');
    source = new FakeSource();
  });

  afterEach(async () => {
    await server?.close();
    server = undefined;
    rmSync(folder, { recursive: true, force: true });
  });

  describe('commands', () => {
    beforeEach(() => listen());

    it('status', async () => {
      const text = await exchange('status\n');
      assert.match(text, /^state +ready\nstate_reason +takes packets\n/);
      assert.match(text, /\nports +inside = in0 \(native\), outside = out0 \(generic\)\n/);
      assert.ok(text.endsWith('\nOK ready\n'));
      const [json] = (await askJson(path, 'status')) as { member: string; rx_packets: number }[];
      assert.equal(json.member, 'a');
      assert.equal(json.rx_packets, 1000);
    });

    it('show peers', async () => {
      assert.deepEqual(await askAll(path, 'show peers'), [
        'PEER       ID  ADDRESS      STATE      RTT MS  LEAST  HEARD MS AGO  CLOCK MS  KEY  BUILD         ATTACHED  UNACKED  BACKLOG  MISSING',
        'b           2  10.255.0.2   reachable   101.3  100.0            12        -4    2  ba9876543210  backlog         7        5        0',
        'long-name  30  10.255.0.30  never           -      -             -         -    -  -             yes        123456        0        0',
      ]);
      const json = (await askJson(path, 'show peers')) as { rtt_ms: number | null }[];
      assert.deepEqual(
        json.map((peer) => peer.rtt_ms),
        [101.26, null],
      );
    });

    it('show rejects', async () => {
      assert.deepEqual(await askAll(path, 'show rejects'), [
        'FROM        REFUSED  INHERITED  LAST REASON  S AGO',
        '192.0.2.66     1000          3  seal_forged    1.5',
      ]);
    });

    it('show rules', async () => {
      assert.deepEqual(await askAll(path, 'show rules hits'), [
        'MIDDLEBOX  LINE  PACKETS  BYTES  RULE',
        'firewall      3        5    300  tcp dport 443 accept',
      ]);
      assert.equal((await askAll(path, 'show rules policy')).length, 2);
    });

    it('reload rules', async () => {
      assert.match(
        (await askAll(path, 'reload rules'))[1],
        /^firewall +rules +\/etc\/constellation\/site\.rules +2 +2$/,
      );
    });

    it('reload keys', async () => {
      assert.deepEqual(await askAll(path, 'reload keys'), ['sending   2', 'accepted  2, 1']);
    });

    it('save', async () => {
      assert.deepEqual(await askAll(path, 'save'), [
        'file   /var/lib/constellation/state',
        'bytes  4096',
        'saved  2027-01-15T08:00:00.000Z',
      ]);
    });

    it('show alerts and show records', async () => {
      assert.deepEqual(await askAll(path, 'show alerts'), [
        'TIME                          SITE  FROM        TO                PROTO  SIGNATURE  SEVERITY  ACTION',
        '2026-01-01T00:00:01.000+0000  a     192.0.2.66  [2001:db8::1]:22  TCP    a scan            2  blocked',
      ]);
      assert.deepEqual(await askAll(path, 'show records bound'), [
        'TIME                          TYPE   RECORD',
        '2026-01-01T00:00:00.000+0000  bound  {"port":4711}',
      ]);
      const [newest, ...others] = (await askJson(path, 'show records limit=1')) as { event_type: string }[];
      assert.deepEqual([newest.event_type, others], ['alert', []]);
      await assert.rejects(askAll(path, 'show alerts x'), /"x" is not expected here; limit=N is/);
    });

    it('show blocks, and unblock', async () => {
      assert.deepEqual(await askAll(path, 'show blocks'), [
        'BLOCKED     STATE    EXPIRES S  SIGNATURE',
        '192.0.2.66  blocked       7000  a scan',
      ]);
      await assert.rejects(askAll(path, 'unblock 192.0.2.67'), /192\.0\.2\.67 is not blocked/);
      assert.deepEqual(await askAll(path, 'unblock 192.0.2.66'), ['192.0.2.66 is not blocked any more']);
      assert.deepEqual(source.orders, ['unblock 192.0.2.66']);
      await assert.rejects(askAll(path, 'unblock'), /unblock takes one address or port/);
    });

    it('reload records', async () => {
      assert.deepEqual(await askAll(path, 'reload records'), [
        'file     /var/log/eve.json',
        'written  7',
        'lost     1',
      ]);
    });

    it('show objects', async () => {
      const [, line] = await askAll(path, 'show objects');
      assert.equal(
        line.replace(/ +/g, ' ').trim(),
        '0 nat.bindings any-order 0123456789abcdef 20 3 7 b used=10 capacity=65536',
      );
      const [json] = (await askJson(path, 'show objects')) as { figures: object }[];
      assert.deepEqual(json.figures, { used: 10, capacity: 65_536 });
    });

    it('show lag', async () => {
      assert.deepEqual(await askAll(path, 'show lag'), [
        'OBJECT        ORIGIN  MEMBER  LACKS  LAG MS  ERROR BOUND',
        'nat.bindings  a       b           3     120            7',
        'nat.bindings  b       a           0       0            -',
      ]);
    });

    it('show threads', async () => {
      const threads = await askAll(path, 'show threads');
      assert.match(threads[1], /^ +0 +worker 0 +ready +0 +100 +1 +12345$/);
      assert.match(threads[2], /^ +1 +send +ready +- +101 +0 +9$/);
    });

    it('show counters', async () => {
      assert.equal((await askAll(path, 'show counters')).length, 4);
      assert.equal((await askAll(path, 'show counters nat_*')).length, 3);
      assert.equal((await askAll(path, 'show counters *exhausted')).length, 2);
      assert.equal((await askAll(path, 'show counters *_exh*sted')).length, 2);
      await assert.rejects(askAll(path, 'show counters packets*'), /no counter is called like "packets\*"/);
      assert.match((await askAll(path, 'show counters hostile'))[1], /a name\?with a line end$/);
      await assert.rejects(askAll(path, 'show counters zzz'), /no counter is called like "zzz"/);
      const [json] = (await askJson(path, 'show counters rx')) as { threads: number[] }[];
      assert.deepEqual(json.threads, [1000, 0]);
    });

    it('show flows', async () => {
      const flows = await askAll(path, 'show flows proto=tcp limit=2');
      assert.deepEqual(flows, [
        'OBJECT        PROTO  INSIDE         EXTERNAL          REMOTE           STATE        EXPIRES S',
        'nat.bindings  tcp    10.0.0.0:1024  203.0.113.1:2048  -                new                300',
        'nat.bindings  tcp    10.0.0.2:1026  203.0.113.1:2050  198.51.100.7:80  established        300',
      ]);
      assert.equal((await askJson(path, 'show flows')).length, 10);
      assert.deepEqual(await askJson(path, 'show flows limit=0'), []);
      await assert.rejects(askAll(path, 'show flows prto=tcp'), (error) => {
        assert.ok(error instanceof CommandError);
        assert.equal(error.code, 'usage');
        assert.match(error.message, /did you mean "proto"/);
        return true;
      });
    });

    it('drain waits, and fails if something is left', async () => {
      let open: () => void = () => undefined;
      source.gate = new Promise((resolve) => {
        open = resolve;
      });
      const drained = askJson(path, 'drain');
      // others are answered meanwhile
      assert.equal((await askAll(path, 'show peers')).length, 3);
      open();
      assert.deepEqual(await drained, [{ complete: true, unacknowledged_records: 0 }]);
      source.drained = { complete: false, unacknowledged_records: 9 };
      await assert.rejects(askAll(path, 'drain'), /9 records are not acknowledged/);
    });

    it('restart', async () => {
      assert.deepEqual(await askAll(path, 'restart send'), ['restarted  send']);
      await askAll(path, 'restart 0');
      assert.deepEqual(source.restarted, [1, 0]);
      await assert.rejects(askAll(path, 'restart receive'), /there is no thread receive; there are worker 0, send/);
      assert.match(await exchange('restart\n'), /^ERR usage restart needs one thread/);
      assert.deepEqual(source.restarted, [1, 0]);
    });

    it('shutdown', async () => {
      assert.equal(await exchange('shutdown\n'), 'OK\n');
      assert.equal(source.stopped, 1);
      assert.match(await exchange('shutdown now\n'), /^ERR usage shutdown takes no "now"\n$/);
      assert.equal(source.stopped, 1);
    });

    it('help', async () => {
      const all = await askAll(path, 'help');
      for (const name of ['status', 'show peers', 'show flows', 'drain', 'shutdown']) {
        assert.ok(
          all.some((line) => line.startsWith(name)),
          name,
        );
      }
      assert.ok((await askAll(path, 'help show flows')).some((line) => line.startsWith('inside=')));
      assert.deepEqual(await askAll(path, 'show flows --help'), await askAll(path, 'help show flows'));
      assert.equal(
        (await askAll(path, 'help show')).length,
        COMMANDS.filter(({ name }) => name.startsWith('show ')).length,
      );
      await assert.rejects(askAll(path, 'help nothing'), /there is no command "nothing"/);
    });

    it('answers several requests in order, and a last one without a line end', async () => {
      const text = await exchange('shutdown\n\n  \nnonsense\r\nshow threads -o json\nshutdown');
      const lines = text.split('\n');
      assert.equal(lines[0], 'OK');
      assert.equal(lines[1], 'ERR usage unknown command "nonsense"; try help');
      assert.equal(JSON.parse(lines[2]).name, 'worker 0');
      assert.deepEqual(lines.slice(4), ['OK', 'OK', '']);
      assert.equal(source.stopped, 2);
    });

    it('a command that fails is an answer', async () => {
      source.failure = new Error('the arena\nis gone');
      assert.equal(await exchange('status\n'), 'ERR failed the arena is gone\n');
      source.failure = undefined;
      assert.match(await exchange('status\n'), /OK ready\n$/);
    });
  });

  describe('bad clients', () => {
    async function assertServes(): Promise<void> {
      assert.equal((await askAll(path, 'show peers')).length, 3);
    }

    it('garbage', async () => {
      await listen();
      const garbage = Buffer.from(Array.from({ length: 50_000 }, (_, i) => (i * 7919) & 255));
      const text = await exchange(garbage);
      for (const line of text.split('\n').slice(0, -1)) assert.match(line, /^ERR usage [\x20-\x7e]+$/);
      await assertServes();
    });

    it('megabytes without a line end', async () => {
      await listen();
      const text = await exchange(Buffer.alloc(20 * 1024 * 1024, 'x'));
      assert.ok(text === '' || text === 'ERR too_long a command has at most 65536 bytes\n', text.slice(0, 100));
      assert.equal(await exchange(Buffer.alloc(100_000, 'x')), 'ERR too_long a command has at most 65536 bytes\n');
      assert.equal(
        await exchange(`${'x'.repeat(65_537)}\nstatus\n`),
        'ERR too_long a command has at most 65536 bytes\n',
      );
      assert.match(await exchange(`${'x'.repeat(65_536)}\nshutdown\n`), /^ERR usage .*\nOK\n$/);
      await assertServes();
    });

    it('one that hangs up in the middle of an answer ends its cost', async () => {
      await listen();
      source.flowCount = Number.POSITIVE_INFINITY;
      const socket = connect(path);
      socket.write('show flows\n');
      await once(socket, 'data');
      socket.destroy();
      await once(socket, 'close');
      await assertServes();
      await settled(() => source.flowsTaken);
    });

    it('one that does not read its answer makes nobody produce it, and is cut off', async () => {
      const stall_ms = 200;
      await listen({ stall_ms });
      source.flowCount = Number.POSITIVE_INFINITY;
      const socket = connect(path);
      socket.on('error', () => undefined);
      socket.write('show flows\n');
      socket.pause();
      await settled(() => source.flowsTaken);
      // What a socket and a stream buffer, and no more: rows have about 100 bytes
      assert.ok(source.flowsTaken < 100_000, `${source.flowsTaken} rows were made`);
      await assertServes();
      // Timers of one thread fire in order, so this ends after the server's has.
      await new Promise((resolve) => setTimeout(resolve, 2 * stall_ms));
      socket.resume();
      await gone(socket);
    });

    it('one that says nothing, or never ends its line, is sent away', async () => {
      await listen({ idle_ms: 100 });
      assert.equal(await rest(connect(path)), 'ERR idle no command came\n');
      const dripping = connect(path);
      dripping.on('error', () => undefined);
      const drip = setInterval(() => dripping.writable && dripping.write('x'), 20);
      assert.equal(await rest(dripping), 'ERR idle no command came\n');
      clearInterval(drip);
      await assertServes();
    });

    it('one whose command takes long is not idle', async () => {
      await listen({ idle_ms: 50, stall_ms: 50 });
      source.gate = new Promise((resolve) => setTimeout(resolve, 300));
      assert.equal((await askJson(path, 'drain')).length, 1);
    });

    it('too many', async () => {
      await listen({ connections: 2 });
      const first = connect(path);
      const second = connect(path);
      await Promise.all([once(first, 'connect'), once(second, 'connect')]);
      assert.equal(await exchange('status\n'), 'ERR busy 2 clients are connected already; close one\n');
      first.destroy();
      await once(first, 'close');
      await eventually(async () => (await exchange('shutdown\n')) === 'OK\n');
      second.destroy();
    });
  });

  describe('show flows of a million', () => {
    it('is streamed, and lets others work in between', async () => {
      await listen();
      source.flowCount = 200_000;
      let answers = 0;
      let rows = 0;
      const others = setInterval(() => answers++, 1);
      const before = process.memoryUsage().heapUsed;
      let most = 0;
      for await (const _ of ask(path, 'show flows -o json')) {
        if (rows++ % 10_000 === 0) most = Math.max(most, process.memoryUsage().heapUsed - before);
      }
      clearInterval(others);
      assert.equal(rows, 200_000);
      assert.ok(answers > 10, `other work was done ${answers} times`);
    });

    it('lets others work while it finds nothing', async () => {
      await listen();
      source.flowCount = 1_000_000;
      let turns = 0;
      const others = setInterval(() => turns++, 1);
      assert.equal((await askAll(path, 'show flows inside=192.0.2.1')).length, 1);
      clearInterval(others);
      assert.ok(turns > 5, `other work was done ${turns} times`);
    });
  });

  describe('life', () => {
    it('may be spoken to by owner and group only, and goes when closed', async () => {
      const umask = process.umask(0);
      await listen();
      assert.equal(process.umask(umask), 0);
      assert.equal(lstatSync(path).mode & 0o777, 0o660);
      await server?.close();
      server = undefined;
      assert.ok(!existsSync(path));
      await assert.rejects(askAll(path, 'status'), UnreachableError);
    });

    it('replaces a socket that was left behind', async () => {
      await leaveStaleSocket(path);
      assert.ok(lstatSync(path).isSocket());
      await listen();
      assert.equal((await askAll(path, 'show peers')).length, 3);
    });

    it('does not take the place of another instance', async () => {
      await listen();
      await assert.rejects(AdminServer.listen(path, source, { commands: COMMANDS }), /another instance is using it/);
      assert.equal((await askAll(path, 'show peers')).length, 3);
    });

    it('does not remove what is not a socket', async () => {
      writeFileSync(path, 'precious');
      await assert.rejects(listen(), /something else is there/);
      rmSync(path);
      mkdirSync(path);
      await assert.rejects(listen(), /something else is there/);
    });

    it('says that the folder is missing', async () => {
      const missing = join(folder, 'no', 'admin.sock');
      await assert.rejects(
        AdminServer.listen(missing, source, { commands: COMMANDS }),
        /the folder .*\/no does not exist; create it/,
      );
    });

    it('closes idle clients at once, and lets an answer under way end', async () => {
      await listen();
      let open: () => void = () => undefined;
      source.gate = new Promise((resolve) => {
        open = resolve;
      });
      const idle = connect(path);
      await once(idle, 'connect');
      const drained = askJson(path, 'drain');
      const idleClosed = rest(idle);
      await eventually(async () => source.drains === 1);
      const closed = server?.close();
      server = undefined;
      assert.equal(await idleClosed, '');
      open();
      assert.equal((await drained).length, 1);
      await closed;
    });
  });
});

/** A socket file whose listener was killed. */
async function leaveStaleSocket(at: string): Promise<void> {
  const code = `require('node:net').createServer().listen(${JSON.stringify(at)}, () => process.send('up'))`;
  const child = spawn(process.execPath, ['-e', code], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  await once(child, 'message');
  child.kill('SIGKILL');
  await once(child, 'close');
}

/** Waits until a number stays the same for a while. */
async function settled(read: () => number): Promise<void> {
  for (let last = -1; last !== read(); ) {
    last = read();
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function eventually(holds: () => Promise<boolean>): Promise<void> {
  for (let i = 0; i < 100; i++) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.fail('it did not come to hold');
}
