import { strict as assert } from 'node:assert';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  notifyReady,
  notifyStatus,
  notifyStopping,
  notifyWaiting,
  startWatchdog,
  watchdogInterval,
} from '../../../daemon/lifecycle/notify.js';
import { findTool, needs } from '../../support/require.js';

describe('service manager', () => {
  let folder = '';
  let listener: ChildProcess | undefined;
  let heard = '';

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'constellation-notify-'));
  });

  afterEach(() => {
    listener?.kill();
    listener = undefined;
    for (const name of ['NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID']) delete process.env[name];
    rmSync(folder, { recursive: true, force: true });
  });

  /** A Unix datagram socket, which Node cannot make, standing in for the service manager's. */
  async function listen(): Promise<void> {
    const path = join(folder, 'notify');
    const child = spawn(findTool('socat') as string, ['-u', `UNIX-RECV:${path}`, 'STDOUT']);
    listener = child;
    heard = '';
    child.stdout.on('data', (bytes) => {
      heard += bytes;
    });
    await eventually(() => existsSync(path));
    process.env['NOTIFY_SOCKET'] = path;
  }

  it('is told what there is to tell', async function () {
    needs(this, 'tool:socat');
    await listen();
    notifyReady('member a\nof demo');
    notifyStatus('draining');
    notifyWaiting('etcd is away');
    notifyStopping();
    const expected =
      'READY=1\nSTATUS=member a of demoSTATUS=draining' +
      'EXTEND_TIMEOUT_USEC=60000000\nSTATUS=etcd is awaySTOPPING=1\nSTATUS=stopping';
    await eventually(() => heard.length >= expected.length);
    assert.equal(heard, expected);
  });

  it('gets signs of life while the instance is healthy', async function () {
    needs(this, 'tool:socat');
    await listen();
    process.env['WATCHDOG_USEC'] = '40000';
    let healthy = true;
    const watchdog = startWatchdog(() => healthy);
    await eventually(() => heard.startsWith('WATCHDOG=1WATCHDOG=1'));
    healthy = false;
    // A sign of life may be on its way still; after that there are none.
    await new Promise((resolve) => setTimeout(resolve, 100));
    const before = heard;
    await new Promise((resolve) => setTimeout(resolve, 200));
    assert.equal(heard, before);
    watchdog.stop();
  });

  it('is asked for the interval, and only by the process it means', () => {
    assert.equal(watchdogInterval({}), null);
    assert.equal(watchdogInterval({ WATCHDOG_USEC: 'x' }), null);
    assert.equal(watchdogInterval({ WATCHDOG_USEC: '30000000' }), 15_000);
    assert.equal(watchdogInterval({ WATCHDOG_USEC: '30000000', WATCHDOG_PID: '17' }, 17), 15_000);
    assert.equal(watchdogInterval({ WATCHDOG_USEC: '30000000', WATCHDOG_PID: '17' }, 18), null);
  });

  it('may be missing, or not listen', async () => {
    notifyReady('nobody asked');
    const warned = once(process, 'warning');
    process.env['NOTIFY_SOCKET'] = join(folder, 'nobody');
    notifyReady('x');
    assert.match((await warned)[0].message, /nothing listens/);
    notifyStatus('said once');
  });
});

async function eventually(holds: () => boolean): Promise<void> {
  for (let i = 0; i < 250; i++) {
    if (holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.fail('it did not come to hold');
}
