import { strict as assert } from 'node:assert';
import { execFileSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { type KernelNeighbour, type KernelNeighbours, parseArpTable } from '../../daemon/kernel-neighbours.js';
import { NeighbourWatcher } from '../../daemon/neighbours.js';
import { createNextHops, NextHopReader, NextHopWriter } from '../../shm/next-hops.js';
import { NONE } from '../../shm/none.js';
import { formatMac, parseMac } from '../../workers/packet/ethernet.js';
import { parseIpv4 } from '../../workers/packet/ipv4.js';
import { needs } from '../support/require.js';

const GATEWAY = parseIpv4('10.0.1.2');
const HOST = parseIpv4('198.51.100.7');
const MAC = '02:00:00:00:00:42';

const TABLE = `IP address       HW type     Flags       HW address            Mask     Device
10.0.1.2         0x1         0x2         02:00:00:00:00:42     *        in0
10.0.1.3         0x1         0x0         00:00:00:00:00:00     *        in0
10.0.1.4         0x1         0x6         02:00:00:00:00:44     *        in0
10.0.1.5         0x20        0x2         02:00:00:00:00:45     *        ib0
nonsense
10.0.1.x         0x1         0x2         02:00:00:00:00:46     *        in0
10.0.1.7         0x1         0x2         not-a-mac             *        in0
`;

/** A kernel whose neighbours answer when told to. */
class FakeKernel implements KernelNeighbours {
  readonly table = new Map<number, KernelNeighbour>();
  readonly provoked: number[] = [];
  closed = false;
  /** Who answers, and where. */
  readonly answers = new Map<number, string>();

  read(): KernelNeighbour[] {
    return [...this.table.values()];
  }

  provoke(address: number): void {
    this.provoked.push(address);
    const name = this.answers.get(address);
    if (name !== undefined) this.table.set(address, { interface: name, address, mac: parseMac(MAC) });
  }

  close(): void {
    this.closed = true;
  }
}

describe('neighbours', () => {
  const log: string[] = [];
  let kernel: FakeKernel;
  let watcher: NeighbourWatcher;
  let reader: NextHopReader;

  function watch(nextHops: { port: number; address: number }[]): void {
    kernel = new FakeKernel();
    log.length = 0;
    const buffer = createNextHops(2, 64);
    reader = new NextHopReader(buffer, 2);
    watcher = new NeighbourWatcher({
      writer: new NextHopWriter(buffer, 2),
      interfaces: ['in0', 'out0'],
      nextHops,
      kernel,
      log: (level, text) => log.push(`${level}: ${text}`),
    });
  }

  /** The address a worker would find, once it does. */
  async function found(port: number, address: number): Promise<string> {
    for (;;) {
      reader.refresh();
      const slot = reader.find(port, address);
      if (slot !== NONE) return formatMac({ low: reader.macLow(slot), high: reader.macHigh(slot) });
      await sleep(5);
    }
  }

  it('are read from the kernel’s table, where they are resolved', () => {
    assert.deepEqual(
      parseArpTable(TABLE).map((neighbour) => `${neighbour.interface} ${formatMac(neighbour.mac)}`),
      ['in0 02:00:00:00:00:42', 'in0 02:00:00:00:00:44'],
    );
    assert.deepEqual(parseArpTable(''), []);
  });

  it('from the configuration are known before the instance is ready', async () => {
    watch([{ port: 0, address: GATEWAY }]);
    kernel.answers.set(GATEWAY, 'in0');
    assert.deepEqual(await watcher.start(10_000), []);
    assert.equal(await found(0, GATEWAY), MAC);
    assert.deepEqual(log, ['info: next hop 10.0.1.2 on in0 is at 02:00:00:00:00:42']);

    kernel.table.delete(GATEWAY);
    kernel.answers.clear();
    while (log.length < 2) await sleep(5);
    assert.deepEqual(log[1], 'warn: next hop 10.0.1.2 on in0 is gone: packets for it are dropped');
    reader.refresh();
    assert.equal(reader.find(0, GATEWAY), NONE);
    watcher.close();
    assert.ok(kernel.closed);
  });

  it('that do not answer are named, and do not hold up the start for ever', async () => {
    watch([{ port: 1, address: GATEWAY }]);
    kernel.answers.set(GATEWAY, 'in0'); // on the wrong interface
    assert.deepEqual(await watcher.start(50), [{ port: 1, address: GATEWAY }]);
    assert.match(log[0], /^warn: next hop 10\.0\.1\.2 on out0 does not answer/);
    watcher.close();
  });

  it('are looked for when a worker wants them, once and not for every packet', async () => {
    watch([]);
    kernel.answers.set(HOST, 'out0');
    await watcher.start();
    for (let i = 0; i < 100; i++) {
      reader.want(1, HOST);
      reader.want(0, GATEWAY); // nobody answers
      reader.flushWanted();
    }
    assert.equal(await found(1, HOST), MAC);
    for (let i = 0; i < 20; i++) {
      reader.want(0, GATEWAY);
      reader.flushWanted();
      await sleep(1);
    }
    assert.equal(kernel.provoked.filter((address) => address === HOST).length, 1);
    assert.ok(kernel.provoked.filter((address) => address === GATEWAY).length <= 2);
    watcher.close();
  });

  it('on a link without a next hop are asked again, for the kernel sends them nothing and would not notice a change', async () => {
    watch([{ port: 0, address: GATEWAY }]);
    for (const [address, name] of [
      [GATEWAY, 'in0'],
      [HOST, 'out0'],
    ] as const)
      kernel.table.set(address, { interface: name, address, mac: parseMac(MAC) });
    await watcher.start(0);
    while (!kernel.provoked.includes(HOST)) await sleep(5);
    assert.equal(kernel.provoked.filter((address) => address === GATEWAY).length, 1, 'the next hop as often as ever');
    watcher.close();
  });

  it('are resolved by this kernel', function () {
    needs(this, 'netns');
    const prefix = `ct-nb-${process.pid}`;
    const ip = (...words: string[]) => execFileSync('ip', words, { stdio: 'pipe', encoding: 'utf8' });
    try {
      ip('netns', 'add', `${prefix}-a`);
      ip('netns', 'add', `${prefix}-b`);
      ip('-n', `${prefix}-a`, 'link', 'add', 'in0', 'type', 'veth', 'peer', 'name', 'p0', 'netns', `${prefix}-b`);
      ip('-n', `${prefix}-b`, 'link', 'set', 'p0', 'address', MAC, 'up');
      ip('-n', `${prefix}-a`, 'link', 'set', 'in0', 'up');
      ip('-n', `${prefix}-a`, 'addr', 'add', '10.0.1.1/24', 'dev', 'in0');
      ip('-n', `${prefix}-b`, 'addr', 'add', '10.0.1.2/24', 'dev', 'p0');
      const program = `
        const base = ${JSON.stringify(new URL('../../', import.meta.url).href)};
        const { NeighbourWatcher } = await import(base + 'daemon/neighbours.js');
        const { LinuxNeighbours } = await import(base + 'daemon/kernel-neighbours.js');
        const { createNextHops, NextHopWriter } = await import(base + 'shm/next-hops.js');
        const { parseIpv4 } = await import(base + 'workers/packet/ipv4.js');
        const watcher = new NeighbourWatcher({
          writer: new NextHopWriter(createNextHops(1), 1),
          interfaces: ['in0'],
          nextHops: [{ port: 0, address: parseIpv4('10.0.1.2') }],
          kernel: new LinuxNeighbours(console.log),
          log: (level, text) => console.log(text),
        });
        await watcher.start(20_000);
        watcher.close();`;
      const words = ['netns', 'exec', `${prefix}-a`, process.execPath, '--input-type=module', '-e', program];
      assert.equal(ip(...words).trim(), `next hop 10.0.1.2 on in0 is at ${MAC}`);
    } finally {
      for (const name of [`${prefix}-a`, `${prefix}-b`]) {
        try {
          ip('netns', 'del', name);
        } catch {
          // it was never made
        }
      }
    }
  });
});
