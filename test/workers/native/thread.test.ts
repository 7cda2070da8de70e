import { strict as assert } from 'node:assert';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  addressOf,
  adviseMemory,
  closeDescriptor,
  eventCreate,
  eventSignal,
  interfaceFacts,
  notifyServiceManager,
  offloads,
  PAGE_BYTES,
  threadCores,
  threadCpuTime,
  threadId,
  threadName,
  threadPin,
  waitReadable,
} from '../../../workers/native/index.js';
import { needs } from '../../support/require.js';
import { inThread } from './in-thread.js';

describe('the native binding: threads', () => {
  it('pins, names and identifies the thread that calls, and no other', async () => {
    const before = threadCores();
    const core = before[before.length - 1];
    const told = await inThread((native, wanted: number) => {
      native.threadPin(wanted);
      native.threadName('pinned');
      return { cores: native.threadCores(), id: native.threadId() };
    }, core);
    assert.deepEqual(told.cores, [core]);
    assert.deepEqual(threadCores(), before);
    assert.notEqual(told.id, threadId());
    assert.equal(threadId(), process.pid, 'the main thread');
  });

  it('shows the name where ps looks for it', async () => {
    const comm = await inThread((native) => {
      native.threadName('ct-worker-11');
      return process.getBuiltinModule('node:fs').readFileSync(`/proc/self/task/${native.threadId()}/comm`, 'utf8');
    });
    assert.equal(comm, 'ct-worker-11\n');
  });

  it('says which cores there are when asked for another', () => {
    assert.throws(
      () => threadPin(1000),
      (error: NodeJS.ErrnoException) =>
        error.code === 'EINVAL' &&
        error.syscall === 'sched_setaffinity' &&
        /may not run on that core/.test(error.message),
    );
    assert.throws(() => threadName('sixteen bytes is'), RangeError);
  });

  it('counts the CPU time of the calling thread', () => {
    const before = threadCpuTime();
    let sum = 0;
    for (let i = 0; i < 1e7; i++) sum += Math.sqrt(i);
    assert.ok(sum > 0 && threadCpuTime() > before);
  });
});

describe('the native binding: waiting', () => {
  it('sleeps until another thread signals, and the signal is used up', async () => {
    const fd = eventCreate();
    const fds = Int32Array.of(fd);
    try {
      assert.equal(waitReadable(fds, 0), 0);
      const thread = inThread((native, number: number) => native.eventSignal(number), fd);
      assert.equal(waitReadable(fds, 30_000), 1);
      assert.equal(waitReadable(fds, 0), 0);
      await thread;
    } finally {
      closeDescriptor(fd);
    }
    assert.throws(() => eventSignal(fd), { code: 'EBADF' });
  });
});

describe('the native binding: memory', () => {
  it('advises whole pages within a view and nothing beside them', () => {
    const buffer = new SharedArrayBuffer(8 * PAGE_BYTES);
    const all = new Uint8Array(buffer);
    const first = PAGE_BYTES - (addressOf(all) % PAGE_BYTES);
    const view = new Uint8Array(buffer, first - 1, 3 * PAGE_BYTES);
    assert.equal(addressOf(view), addressOf(all) + first - 1);
    assert.equal(adviseMemory(view, 'dontfork'), 2 * PAGE_BYTES);
    assert.equal(adviseMemory(new Uint8Array(buffer, first + 1, 100), 'dontfork'), 0);
    assert.equal(adviseMemory(view, 'dofork'), 2 * PAGE_BYTES);
    assert.throws(() => addressOf(new Uint8Array(8)), TypeError);
  });
});

describe('the native binding: interfaces', () => {
  it('knows the loopback interface', () => {
    const facts = interfaceFacts('lo');
    assert.deepEqual({ ...facts, mac: [...facts.mac] }, { ...facts, index: 1, mac: [0, 0, 0, 0, 0, 0], queues: 1 });
    assert.equal(typeof offloads('lo').gro, 'boolean');
  });
});

describe('sd_notify', () => {
  const file = join(tmpdir(), `ct-notify-${process.pid}`);

  /** What a datagram socket hears; `name` as socat writes it. */
  async function heard(name: string, path: string): Promise<string> {
    const socat = spawn('socat', ['-u', name, 'STDOUT'], { stdio: ['ignore', 'pipe', 'inherit'] });
    const closed = once(socat, 'close');
    let output = '';
    socat.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
    try {
      while (!readFileSync('/proc/net/unix', 'utf8').includes(path)) await sleep(5);
      assert.equal(notifyServiceManager('READY=1\nSTATUS=on', path), true);
      while (output === '') await sleep(5);
    } finally {
      socat.kill();
      await closed;
    }
    return output;
  }

  afterEach(() => rmSync(file, { force: true }));

  it('is heard at a path', async function () {
    needs(this, 'tool:socat');
    assert.equal(await heard(`UNIX-RECV:${file}`, file), 'READY=1\nSTATUS=on');
  });

  it('is heard at an abstract name', async function () {
    needs(this, 'tool:socat');
    const name = `ct-notify-${process.pid}`;
    assert.equal(await heard(`ABSTRACT-RECV:${name}`, `@${name}`), 'READY=1\nSTATUS=on');
  });

  it('is silent where nobody asked, and says where nobody listens', () => {
    assert.equal(notifyServiceManager('READY=1', ''), false);
    assert.throws(() => notifyServiceManager('READY=1', '/nowhere'), { code: 'ENOENT', syscall: 'sendto' });
  });
});
