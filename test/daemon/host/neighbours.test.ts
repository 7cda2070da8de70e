import { strict as assert } from 'node:assert';
import { execFileSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { formatAddress, type KernelNeighbour, type KernelNeighbours } from '../../../daemon/host/kernel-neighbours.js';
import { NeighbourWatcher, type NextHop, nextHopsOf } from '../../../daemon/host/neighbours.js';
import { createNextHops, NextHopReader, NextHopWriter, type RawAddress } from '../../../shm/next-hops.js';
import { NONE } from '../../../shm/none.js';
import { formatMac, parseMac } from '../../../workers/packet/ethernet.js';
import { parseIpv4 } from '../../../workers/packet/ipv4.js';
import { parseIpv6 } from '../../../workers/packet/ipv6.js';
import { needs } from '../../support/require.js';
import { routePort } from '../../workers/support/plane.js';

const GATEWAY = parseIpv4('10.0.1.2');
const HOST = parseIpv4('198.51.100.7');
const MAC = '02:00:00:00:00:42';

const GATEWAY6 = parseIpv6('fe80::2');
const HOST6 = parseIpv6('2001:db8::7');

/** A kernel whose neighbours answer when told to. */
class FakeKernel implements KernelNeighbours {
  readonly table = new Map<string, KernelNeighbour>();
  readonly provoked: string[] = [];
  closed = false;
  /** Who answers, and where. */
  readonly answers = new Map<string, string>();

  read(): KernelNeighbour[] {
    return [...this.table.values()];
  }

  provoke(address: RawAddress): void {
    const text = formatAddress(address);
    this.provoked.push(text);
    const name = this.answers.get(text);
    if (name !== undefined) this.table.set(text, { interface: name, address, mac: parseMac(MAC) });
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

  function watch(nextHops: NextHop[], ipv6 = true): void {
    kernel = new FakeKernel();
    log.length = 0;
    const buffer = createNextHops(2, 64);
    reader = new NextHopReader(buffer, 2);
    watcher = new NeighbourWatcher({
      writer: new NextHopWriter(buffer, 2),
      interfaces: ['in0', 'out0'],
      nextHops,
      ipv6,
      kernel,
      log: (level, text) => log.push(`${level}: ${text}`),
    });
  }

  /** The address a worker would find, once it does. */
  async function found(port: number, address: RawAddress): Promise<string> {
    for (;;) {
      reader.refresh();
      const slot = typeof address === 'number' ? reader.find(port, address) : reader.findIpv6(port, address, 0);
      if (slot !== NONE) return formatMac({ low: reader.macLow(slot), high: reader.macHigh(slot) });
      await sleep(5);
    }
  }

  it('from the configuration are known before the instance is ready', async () => {
    watch([{ port: 0, address: GATEWAY }]);
    kernel.answers.set('10.0.1.2', 'in0');
    assert.deepEqual(await watcher.start(10_000), []);
    assert.equal(await found(0, GATEWAY), MAC);
    assert.deepEqual(log, ['info: next hop 10.0.1.2 on in0 is at 02:00:00:00:00:42']);

    kernel.table.delete('10.0.1.2');
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
    kernel.answers.set('10.0.1.2', 'in0'); // on the wrong interface
    assert.deepEqual(await watcher.start(50), [{ port: 1, address: GATEWAY }]);
    assert.match(log[0], /^warn: next hop 10\.0\.1\.2 on out0 does not answer/);
    watcher.close();
  });

  it('are looked for when a worker wants them, once and not for every packet', async () => {
    watch([]);
    kernel.answers.set('198.51.100.7', 'out0');
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
    assert.equal(kernel.provoked.filter((address) => address === '198.51.100.7').length, 1);
    assert.ok(kernel.provoked.filter((address) => address === '10.0.1.2').length <= 2);
    watcher.close();
  });

  it('on a link without a next hop are asked again, for the kernel sends them nothing and would not notice a change', async () => {
    watch([{ port: 0, address: GATEWAY }]);
    for (const [address, name] of [
      [GATEWAY, 'in0'],
      [HOST, 'out0'],
    ] as const)
      kernel.table.set(formatAddress(address), { interface: name, address, mac: parseMac(MAC) });
    await watcher.start(0);
    while (!kernel.provoked.includes('198.51.100.7')) await sleep(5);
    assert.equal(
      kernel.provoked.filter((address) => address === '10.0.1.2').length,
      1,
      'the next hop as often as ever',
    );
    watcher.close();
  });

  it('of IPv6 are known beside those of IPv4, link-local ones as next hops alone', async () => {
    watch([{ port: 0, address: GATEWAY6 }]);
    kernel.answers.set('fe80::2', 'in0').set('2001:db8::7', 'out0').set('10.0.1.2', 'in0');
    kernel.table.set('fe80::9', { interface: 'out0', address: parseIpv6('fe80::9'), mac: parseMac(MAC) });
    assert.deepEqual(await watcher.start(10_000), []);
    assert.deepEqual(log, ['info: next hop fe80::2 on in0 is at 02:00:00:00:00:42']);
    assert.equal(await found(0, GATEWAY6), MAC);
    assert.equal(reader.findIpv6(1, parseIpv6('fe80::9'), 0), NONE);
    reader.wantIpv6(1, HOST6, 0);
    reader.want(0, GATEWAY);
    reader.flushWanted();
    assert.equal(await found(1, HOST6), MAC);
    assert.equal(await found(0, GATEWAY), MAC);
    assert.equal(kernel.provoked.filter((address) => address === '2001:db8::7').length, 1);
    watcher.close();
  });

  it('of IPv6 are left alone where it is not forwarded', async () => {
    watch([], false);
    for (const [name, address] of [
      ['2001:db8::7', HOST6],
      ['198.51.100.7', HOST],
    ] as const)
      kernel.table.set(name, { interface: 'out0', address, mac: parseMac(MAC) });
    await watcher.start(0);
    assert.equal(await found(1, HOST), MAC);
    assert.equal(reader.findIpv6(1, HOST6, 0), NONE);
    while (!kernel.provoked.includes('198.51.100.7')) await sleep(5);
    assert.ok(!kernel.provoked.includes('2001:db8::7'));
    watcher.close();
  });

  it('that the configuration gives by address are looked for, those of IPv6 where it is forwarded', () => {
    const routes = [
      routePort({ nextHop: GATEWAY, nextHop6: GATEWAY6 }),
      routePort({ nextHop: null, nextHop6: parseMac(MAC) }),
    ];
    assert.deepEqual(nextHopsOf(routes, false), [{ port: 0, address: GATEWAY }]);
    assert.deepEqual(nextHopsOf(routes, true), [
      { port: 0, address: GATEWAY },
      { port: 0, address: GATEWAY6 },
    ]);
  });

  it('are resolved by this kernel, by ARP and by neighbour discovery', function () {
    needs(this, 'netns', 'file:/proc/net/if_inet6');
    this.timeout(60_000);
    const prefix = `ct-nb-${process.pid}`;
    const ip = (...words: string[]) => execFileSync('ip', words, { stdio: 'pipe', encoding: 'utf8' });
    const inA = (...words: string[]) => ip('-n', `${prefix}-a`, ...words);
    const inB = (...words: string[]) => ip('-n', `${prefix}-b`, ...words);
    try {
      ip('netns', 'add', `${prefix}-a`);
      ip('netns', 'add', `${prefix}-b`);
      inA('link', 'add', 'in0', 'type', 'veth', 'peer', 'name', 'p0', 'netns', `${prefix}-b`);
      inB('link', 'set', 'p0', 'address', MAC, 'up');
      inA('link', 'set', 'in0', 'up');
      inA('addr', 'add', '10.0.1.1/24', 'dev', 'in0');
      inB('addr', 'add', '10.0.1.2/24', 'dev', 'p0');
      inA('addr', 'add', 'fd00::1/64', 'nodad', 'dev', 'in0');
      for (const address of ['fd00::2/64', 'fe80::2/64']) inB('addr', 'add', address, 'nodad', 'dev', 'p0');
      // By hand, for ever; and one that nobody answers for.
      inA('neigh', 'add', 'fd00::3', 'lladdr', '02:00:00:00:00:03', 'dev', 'in0', 'nud', 'permanent');
      inA('neigh', 'add', '10.0.1.3', 'dev', 'in0', 'nud', 'none');
      const program = `
        const base = ${JSON.stringify(new URL('../../../', import.meta.url).href)};
        const { NeighbourWatcher } = await import(base + 'daemon/host/neighbours.js');
        const { formatAddress, LinuxNeighbours } = await import(base + 'daemon/host/kernel-neighbours.js');
        const { createNextHops, NextHopWriter } = await import(base + 'shm/next-hops.js');
        const { parseIpv4 } = await import(base + 'workers/packet/ipv4.js');
        const { parseIpv6 } = await import(base + 'workers/packet/ipv6.js');
        const { formatMac } = await import(base + 'workers/packet/ethernet.js');
        const kernel = new LinuxNeighbours(console.log);
        const watcher = new NeighbourWatcher({
          writer: new NextHopWriter(createNextHops(1), 1),
          interfaces: ['in0'],
          nextHops: [parseIpv4('10.0.1.2'), parseIpv6('fd00::2'), parseIpv6('fe80::2')]
            .map((address) => ({ port: 0, address })),
          ipv6: true,
          kernel,
          log: (level, text) => console.log(text),
        });
        await watcher.start(20_000);
        for (const { address, mac } of kernel.read(['in0', 'absent']))
          console.log(formatAddress(address) + ' ' + formatMac(mac));
        watcher.close();`;
      const words = ['netns', 'exec', `${prefix}-a`, process.execPath, '--input-type=module', '-e', program];
      const said = ip(...words)
        .trim()
        .split('\n');
      // The other end's own link-local address may have turned up.
      const known = said.filter((line) => !/^fe80::(?!2 )/.test(line)).sort();
      assert.deepEqual(known, [
        `10.0.1.2 ${MAC}`,
        `fd00::2 ${MAC}`,
        'fd00::3 02:00:00:00:00:03',
        `fe80::2 ${MAC}`,
        'neighbours: if_nametoindex: interface absent: ENODEV (No such device): no such interface in this network namespace; `ip link` lists them',
        `next hop 10.0.1.2 on in0 is at ${MAC}`,
        `next hop fd00::2 on in0 is at ${MAC}`,
        `next hop fe80::2 on in0 is at ${MAC}`,
      ]);
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
