/** The binding under a storm of signals: whatever system call they interrupt, no caller sees it. */

import { strict as assert } from 'node:assert';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { AfXdpDriver } from '../../../workers/drivers/af-xdp.js';
import { attachXdp } from '../../../workers/drivers/xdp-attach.js';
import { type XdpFilter, xdpProgram } from '../../../workers/drivers/xdp-program.js';
import {
  bpfCounterCreate,
  bpfMapCreate,
  bpfProgramLoad,
  bpfProgramRun,
  closeDescriptor,
  interfaceFacts,
  interfaceNeighbours,
  offloads,
  setOffloads,
} from '../../../workers/native/index.js';
import { needs } from '../../support/require.js';
import { Veth } from './veth.js';

/** A filter whose program takes the verifier some milliseconds. */
const LONG: XdpFilter = { mode: 'to', addresses: Array.from({ length: 4000 }, (_, i) => (i << 16) | 0x0a) };
const SIGNALS_MIN = 500;

describe('the native binding under a storm of signals', function () {
  this.timeout(90_000);

  let veth: Veth;
  before(function () {
    needs(this, 'root', 'af_xdp', 'tool:ethtool');
    veth = new Veth();
  });
  after(() => veth?.down());

  /** Calls `work` again and again while signals come as fast as another process can send them. */
  async function inStorm(work: () => void): Promise<void> {
    let signals = 0;
    const count = (): void => void signals++;
    process.on('SIGUSR2', count);
    const storm = spawn('sh', ['-c', `while kill -USR2 ${process.pid}; do :; done`], { stdio: 'ignore' });
    try {
      for (let before = -1; signals < SIGNALS_MIN; before = signals) {
        work();
        // The handler runs between two turns of the event loop.
        do await new Promise((resolve) => setImmediate(resolve));
        while (signals === before);
      }
    } finally {
      storm.kill('SIGKILL');
      await once(storm, 'close');
      // What is on its way still has its handler.
      await new Promise((resolve) => setTimeout(resolve, 50));
      process.off('SIGUSR2', count);
    }
  }

  it('loads and runs programs', async () => {
    const mac = new Uint8Array(6);
    const [map, counter] = [bpfMapCreate(1, 'storm'), bpfCounterCreate('storm')];
    const instructions = xdpProgram(LONG, mac, map, counter);
    await inStorm(() => {
      const program = bpfProgramLoad(instructions, 'storm');
      for (let i = 0; i < 20; i++) bpfProgramRun(program, new Uint8Array(64));
      closeDescriptor(program);
    });
    closeDescriptor(map);
    closeDescriptor(counter);
  });

  it('attaches, opens sockets and asks about the interface', async () => {
    const before = offloads(veth.near);
    await inStorm(() => {
      const { mapFd, close } = attachXdp(veth.near, 'auto', LONG);
      const driver = new AfXdpDriver({ ports: [{ interface: veth.near, mapFd }], ringSize: 64 });
      driver.wait(1);
      driver.close();
      close();
      setOffloads(veth.near, { gro: !before.gro });
      setOffloads(veth.near, { gro: before.gro });
      assert.equal(interfaceFacts(veth.near).queues, 1);
      interfaceNeighbours(veth.near);
    });
    assert.deepEqual(offloads(veth.near), before);
  });
});
