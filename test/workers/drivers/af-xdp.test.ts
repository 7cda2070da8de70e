import { strict as assert } from 'node:assert';
import { execFileSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { AfXdpDriver } from '../../../workers/drivers/af-xdp.js';
import { frameLayout } from '../../../workers/drivers/frame-size.js';
import { frameBytesMax } from '../../../workers/drivers/umem.js';
import { attachXdp, type XdpAttachment } from '../../../workers/drivers/xdp-attach.js';
import { closeDescriptor, eventCreate, offloads, setOffloads, xskMultiBuffer } from '../../../workers/native/index.js';
import { type Batch, DROPPED } from '../../../workers/packet/batch.js';
import { JUMBO_BYTES } from '../../../workers/packet/memory.js';
import { soon } from '../../support/process.js';
import { needs } from '../../support/require.js';
import { scaled } from '../../support/scale.js';
import { inThread } from '../native/in-thread.js';
import { Veth, type VethOptions } from '../native/veth.js';
import { batchFor, client, echo, PATIENCE_MS, serve, turnAround } from './echo.js';

/**
 * Smaller than what is sent, so that every ring wraps and a chunk that is not given back is missed.
 */
const SMALL = { ringSize: 64, chunks: 64 + 64 + 64 };
const COUNT = 2000;
/**
 * A burst that nobody paces fits these rings whole; two of them take more chunks than there are.
 */
const LARGE = { ringSize: 512, chunks: 512 + 64 };
const BURST = 500;
/** How often an interface is deleted and created again. */
const LIVES = scaled(10, 30);

const raw = (address: string): number => Buffer.from(address.split('.').map(Number)).readInt32LE(0);

describe('the af_xdp driver', function () {
  this.timeout(180_000);
  const veths: Veth[] = [];
  const drivers: AfXdpDriver[] = [];
  const pair = (options?: VethOptions): Veth => {
    const veth = new Veth(options);
    veths.push(veth);
    return veth;
  };
  const open = (options: ConstructorParameters<typeof AfXdpDriver>[0]): AfXdpDriver => {
    const driver = new AfXdpDriver(options);
    drivers.push(driver);
    return driver;
  };

  before(function () {
    needs(this, 'af_xdp', 'tool:ethtool', 'tool:ping');
  });
  afterEach(() => {
    for (const driver of drivers.splice(0)) driver.close();
    for (const veth of veths.splice(0)) veth.down();
  });

  for (const mode of ['native', 'generic'] as const)
    it(`carries packets in and out, in ${mode} mode`, async () => {
      const veth = pair();
      const driver = open({ ports: [{ interface: veth.near, mode }], ...SMALL });
      const batch = batchFor(driver);
      const result = client(veth, 'echo', COUNT, 900);
      let misplaced = 0;
      const served = serve(driver, batch, COUNT, (i) => {
        if ((batch.start[i] & 3) !== 2) misplaced++;
        return turnAround(batch, i) ? batch.port[i] : DROPPED;
      });
      assert.equal(served, COUNT);
      assert.equal(misplaced, 0, 'the IP header lies on a word');
      assert.equal(await result, `${COUNT}\n`);
      const [{ rxDropped, rxRingFull, txRingFull, txInvalid, txInvalidDescriptors }] = driver.statistics();
      assert.deepEqual([rxDropped, rxRingFull, txRingFull, txInvalid, txInvalidDescriptors], [0, 0, 0, 0, 0]);
    });

  it('sends by one port what came by another, from the same memory', async () => {
    const [left, right] = [pair(), pair()];
    const ports = [left, right].map((veth) => ({ interface: veth.near }));
    const driver = open({ ports, ...LARGE, chunks: 2 * 512 + 64 });
    const batch = batchFor(driver);
    const received = (veth: Veth): number =>
      Number(veth.inside('cat', `/sys/class/net/${veth.far}/statistics/rx_packets`));
    for (const [from, to] of [
      [left, right],
      [right, left],
      [left, right],
    ]) {
      const before = received(to);
      const sent = client(from, 'send', BURST, 100);
      const served = serve(driver, batch, BURST, (i) => 1 - batch.port[i]);
      await sent;
      assert.equal(served, BURST);
      assert.equal(received(to) - before, BURST);
    }
  });

  it('sends copies of frames while there is room, and has all of its memory again', async () => {
    const veth = pair();
    const driver = open({ ports: [{ interface: veth.near }], ...SMALL });
    const batch = batchFor(driver);
    const chunk = driver.memory.chunkBytes;
    const copies = new Uint8Array(2 * chunk);
    let copied = 0;
    const result = client(veth, 'echo', COUNT, 900);
    const served = serve(driver, batch, COUNT, (i) => {
      if (!turnAround(batch, i)) return DROPPED;
      const { start, length } = batch;
      const at = copied % 2 === 0 ? 7 : chunk + 1;
      copies.set(driver.memory.u8.subarray(start[i], start[i] + length[i]), at);
      while (!driver.send(0, copies, at, length[i])) {
        const sent = batchFor(driver); // kicks what is in the ring
        driver.transmit(sent);
      }
      copied++;
      return 7; // the frame itself is taken back
    });
    assert.equal(served, COUNT);
    assert.equal(copied, COUNT);
    // What the last copies were put into the ring for.
    driver.transmit(batch);
    assert.equal(await result, `${COUNT}\n`);
    assert.ok(driver.hasRoom(0, SMALL.ringSize));
    assert.ok(!driver.hasRoom(0, SMALL.ringSize + 1));
    let more = 0;
    while (driver.send(0, copies, 7, 60)) more++;
    assert.equal(more, SMALL.ringSize, 'as many as its ring holds, and no chunk is missing');
    assert.equal(driver.statistics()[0].txRingFull, 0);
  });

  it('takes a batch back in parts, each frame once', async () => {
    const veth = pair();
    const driver = open({ ports: [{ interface: veth.near }], ...SMALL });
    const batch = batchFor(driver);
    const result = client(veth, 'echo', COUNT, 900);
    const served = serve(driver, batch, COUNT, (i) => {
      if (i % 3 !== 0) driver.transmitBefore(batch, i);
      return turnAround(batch, i) ? batch.port[i] : DROPPED;
    });
    assert.equal(served, COUNT);
    assert.equal(await result, `${COUNT}\n`);
    driver.transmit(batch);
    assert.ok(driver.hasRoom(0, SMALL.ringSize), 'no chunk is missing');
  });

  it('takes back what a middlebox drops, sends nowhere or makes invalid', async () => {
    const veth = pair();
    const driver = open({ ports: [{ interface: veth.near }], ...LARGE });
    const batch = batchFor(driver);
    for (let round = 0; round < 3; round++) {
      let frames = 0;
      const sent = client(veth, 'send', BURST, 100);
      const served = serve(driver, batch, BURST, (i) => {
        frames++;
        if (frames % 3 === 0) batch.length[i] = 4000;
        return frames % 3 === 1 ? 7 : 0;
      });
      await sent;
      assert.equal(served, BURST, 'no chunk was lost');
    }
    assert.equal(driver.statistics()[0].txInvalid, 3 * Math.floor(BURST / 3));
  });

  it('is woken by a packet and by another thread', async () => {
    const veth = pair();
    const wakeFd = eventCreate();
    const driver = open({ ports: [{ interface: veth.near }], ...SMALL, wakeFd });
    const batch = batchFor(driver);
    const sent = client(veth, 'send', 1, 100);
    driver.wait(PATIENCE_MS);
    assert.equal(driver.receive(batch), 1);
    batch.egress[0] = DROPPED;
    driver.transmit(batch);
    await sent;
    const before = performance.now();
    const thread = inThread((native, fd: number) => native.eventSignal(fd), wakeFd);
    driver.wait(PATIENCE_MS);
    assert.ok(performance.now() - before < PATIENCE_MS, 'not by the time being up');
    await thread;
    assert.equal(driver.receive(batch), 0);
    closeDescriptor(wakeFd);
  });

  it('counts frames too long for a chunk, and goes on', async () => {
    const veth = pair({ mtu: 3000 });
    const driver = open({ ports: [{ interface: veth.near, mode: 'native' }], ...SMALL });
    const batch = batchFor(driver);
    await client(veth, 'send', 10, frameBytesMax(2048) + 1 - 42);
    assert.equal(driver.receive(batch), 0);
    assert.equal(driver.statistics()[0].rxDropped, 10);
    const result = client(veth, 'echo', 20, frameBytesMax(2048) - 42);
    assert.equal(echo(driver, batch, 20), 20);
    assert.equal(await result, '20\n');
  });

  for (const mode of ['native', 'generic'] as const)
    for (const mtu of [1500, 1760, 3000, 3600, 3800, 9000, 16000])
      it(`carries frames of an MTU of ${mtu} both ways, in ${mode} mode`, async function () {
        if (mtu > 3800 && !xskMultiBuffer()) {
          console.log('      skipped: this kernel has no AF_XDP frames of several chunks');
          this.skip();
        }
        const veth = pair({ mtu });
        const { chunkBytes, multiBuffer } = frameLayout([{ name: veth.near, mtu }], xskMultiBuffer);
        const attachment = attachXdp(veth.near, mode, { mode: 'all' }, multiBuffer);
        try {
          assert.equal(attachment.mode, mode);
          const ports = [{ interface: veth.near, mapFd: attachment.mapFd }];
          const driver = open({ ports, ringSize: 64, chunkBytes, multiBuffer });
          const batch = batchFor(driver);
          // IP and UDP headers are part of the MTU. More frames than the rings and the jumbo
          // buffers hold.
          for (const bytes of [mtu - 28, 100]) {
            const result = client(veth, 'echo', 300, bytes);
            let misplaced = 0;
            const served = serve(driver, batch, 300, (i) => {
              if ((batch.start[i] & 3) !== 2 || batch.length[i] !== bytes + 42) misplaced++;
              return turnAround(batch, i) ? batch.port[i] : DROPPED;
            });
            assert.equal(served, 300);
            assert.equal(misplaced, 0);
            const [{ rxDropped, rxJumboDropped, txRingFull, txInvalid, txInvalidDescriptors }] = driver.statistics();
            assert.deepEqual([rxDropped, rxJumboDropped, txRingFull, txInvalid, txInvalidDescriptors], [0, 0, 0, 0, 0]);
            assert.equal(await result, '300\n');
          }
        } finally {
          attachment.close();
        }
      });

  it('counts frames longer than a jumbo buffer, and sends and inserts copies of those that fit', async function () {
    if (!xskMultiBuffer()) this.skip();
    const veth = pair({ mtu: 20_000 });
    const ports = [{ interface: veth.near, mode: 'generic' as const }];
    const driver = open({ ports, ringSize: 64, chunkBytes: 4096, multiBuffer: true });
    const batch = batchFor(driver);
    await client(veth, 'send', 10, 17_000);
    assert.equal(driver.receive(batch), 0);
    assert.equal(driver.statistics()[0].rxJumboDropped, 10);
    const copies = new Uint8Array(JUMBO_BYTES);
    const result = client(veth, 'echo', 200, 9000);
    let inserted = 0;
    const served = serve(driver, batch, 200, (i) => {
      if (!turnAround(batch, i)) return DROPPED;
      const { start, length } = batch;
      copies.set(driver.memory.u8.subarray(start[i], start[i] + length[i]), 3);
      if (inserted % 2 === 0) assert.ok(driver.send(0, copies, 3, length[i]));
      else {
        const other = batchFor(driver);
        assert.ok(driver.insert(other, 0, copies, 3, length[i]));
        assert.equal(other.start[0] & 3, 2);
        other.egress[0] = 0;
        driver.transmit(other);
      }
      inserted++;
      return 7; // the frame itself is taken back
    });
    assert.equal(served, 200);
    driver.transmit(batch);
    assert.equal(await result, '200\n');
  });

  it('leaves the kernel what is not the data plane’s, and everything once closed', async () => {
    const veth = pair();
    const host = veth.other.replace(/2$/, '3');
    execFileSync('ip', ['addr', 'add', `${host}/32`, 'dev', veth.near]);
    execFileSync('ip', ['-n', veth.namespace, 'neigh', 'add', host, 'lladdr', veth.mac, 'dev', veth.far]);
    // Fixed below, as an operator might have it: it must be found as it was left.
    setOffloads(veth.near, { gro: true });
    const server = createSocket('udp4');
    server.bind(4000, host);
    await once(server, 'listening');
    const heard = async (): Promise<void> => {
      const message = once(server, 'message');
      veth.inside(
        'sh',
        '-c',
        `echo x > /dev/null; exec ${process.execPath} -e 'const s = require("node:dgram").createSocket("udp4"); s.send("hello", 4000, "${host}", () => s.close())'`,
      );
      assert.equal(String((await message)[0]), 'hello');
    };
    try {
      await heard();
      for (const mode of ['native', 'generic'] as const) {
        const filter = { mode: 'to', addresses: [raw(veth.other)] } as const;
        const driver = open({ ports: [{ interface: veth.near, mode, filter }], ...SMALL });
        assert.equal(offloads(veth.near).gro, mode === 'native');
        await heard();
        const result = client(veth, 'echo', 20, 100);
        assert.equal(echo(driver, batchFor(driver), 20), 20);
        assert.equal(await result, '20\n');
        driver.close();
        assert.equal(offloads(veth.near).gro, true);
        assert.doesNotMatch(execFileSync('ip', ['link', 'show', veth.near], { encoding: 'utf8' }), /xdp/);
        await heard();
      }
    } finally {
      server.close();
    }
  });

  it('serves the same queue again after its thread died', async () => {
    const veth = pair();
    const attachment = attachXdp(veth.near, 'auto', { mode: 'all' });
    const urls = {
      driver: new URL('../../../workers/drivers/af-xdp.js', import.meta.url).href,
      echo: new URL('./echo.js', import.meta.url).href,
    };
    try {
      for (let life = 0; life < 3; life++) {
        const ready = new Int32Array(new SharedArrayBuffer(4));
        const worker = inThread(
          async (_, told: { urls: typeof urls; name: string; mapFd: number; ready: Int32Array }) => {
            const { AfXdpDriver } = (await import(
              told.urls.driver
            )) as typeof import('../../../workers/drivers/af-xdp.js');
            const { batchFor, echo } = (await import(told.urls.echo)) as typeof import('./echo.js');
            const ports = [{ interface: told.name, mapFd: told.mapFd }];
            const driver = new AfXdpDriver({ ports, ringSize: 64 });
            Atomics.store(told.ready, 0, 1);
            return echo(driver, batchFor(driver), 50); // and is not closed
          },
          { urls, name: veth.near, mapFd: attachment.mapFd, ready },
        );
        // What the client sent before would be the kernel's, and never come back.
        assert.ok(await soon(() => Atomics.load(ready, 0) === 1, PATIENCE_MS), 'the thread serves its queue');
        const result = await client(veth, 'echo', 50, 100);
        assert.equal(await worker, 50);
        assert.equal(result, '50\n');
      }
    } finally {
      attachment.close();
    }
  });

  it('shares an interface between the workers of its queues', async () => {
    const veth = pair({ queues: 2 });
    const attachment = attachXdp(veth.near, 'auto', { mode: 'all' });
    try {
      const [first, second] = [0, 1].map((queue) =>
        open({ ports: [{ interface: veth.near, queues: [queue], mapFd: attachment.mapFd }] }),
      );
      await client(veth, 'send', 400, 100);
      const drop = (): number => DROPPED;
      const counts = [first, second].map((driver) => {
        const batch = batchFor(driver);
        let count = 0;
        for (let n = driver.receive(batch); n !== 0; n = driver.receive(batch)) {
          count += n;
          for (let i = 0; i < n; i++) batch.egress[i] = drop();
          driver.transmit(batch);
        }
        return count;
      });
      assert.equal(counts[0] + counts[1], 400);
    } finally {
      attachment.close();
    }
  });

  it('serves several queues of an interface, and has all of its memory again', async () => {
    const veth = pair({ queues: 4 });
    const driver = open({ ports: [{ interface: veth.near, mode: 'native', queues: [0, 1, 2, 3] }], ringSize: 1024 });
    const batch = batchFor(driver);
    for (let round = 0; round < 4; round++) {
      const sent = client(veth, 'send', BURST, 100);
      const served = serve(driver, batch, BURST, () => 7); // taken back
      await sent;
      assert.equal(served, BURST, 'no chunk was lost');
    }
    const used = execFileSync('ethtool', ['-S', veth.near], { encoding: 'utf8' }).match(
      /rx_queue_\d_xdp_packets: [1-9]/g,
    );
    assert.equal(used?.length, 4, 'the test reached every queue');
    for (const { rxDropped, rxRingFull, txRingFull } of driver.statistics())
      assert.deepEqual([rxDropped, rxRingFull, txRingFull], [0, 0, 0]);
    assert.throws(() => open({ ports: [{ interface: veth.near, queues: [] }] }), /no queue to serve/);
    assert.throws(
      () => open({ ports: [{ interface: 'a', queues: [0, 1, 2, 3] }], chunks: 4000 }),
      /not enough for 4 queues/,
    );
  });

  it('closes a port whose interface is gone, drops what is for it, and waits when it is only down', () => {
    const veth = pair();
    const gone: number[] = [];
    const driver = open({ ports: [{ interface: veth.near }], ...SMALL, onGone: (port) => gone.push(port) });
    execFileSync('ip', ['link', 'set', veth.near, 'down']);
    driver.wait(1);
    assert.deepEqual([driver.isOpen(0), gone], [true, []]);
    execFileSync('ip', ['link', 'del', veth.near]);
    for (let i = 0; i < 100; i++) driver.wait(1);
    assert.deepEqual([driver.isOpen(0), gone], [false, [0]]);
    assert.equal(driver.freeChunks, SMALL.chunks);
    assert.equal(driver.send(0, new Uint8Array(60), 0, 60), true, 'it need not be tried again');
    assert.equal(driver.txUnsent, 1);
    assert.equal(driver.freeChunks, SMALL.chunks);
  });

  for (const mode of ['native', 'generic'] as const)
    it(`opens a port again and again, in ${mode} mode, while the other goes on, and loses no chunk`, () => {
      const veths = [pair(), pair()];
      for (const veth of veths) void veth.start('ping', '-q', '-i', '0.002', veth.other);
      const attach = (port: number): XdpAttachment => attachXdp(veths[port].near, mode, { mode: 'all' });
      const attachments = [attach(0), attach(1)];
      const ports = veths.map((veth, i) => ({ interface: veth.near, mapFd: attachments[i].mapFd }));
      const chunks = 2 * 2 * 64 + 2 * 64;
      const driver = open({ ports, ringSize: 64, chunks });
      const batch = batchFor(driver);
      const descriptors = (): number => readdirSync('/proc/self/fd').length;
      const before = descriptors();
      try {
        for (let life = 0; life < LIVES; life++) {
          // In turn, and now and then both, so that every socket was once the one that registered
          // the memory.
          const doomed = life % 5 === 4 ? [0, 1] : [life % 2];
          for (const port of [0, 1]) exchangeUntil(driver, batch, port);
          for (const port of doomed) veths[port].recreate();
          // The driver is told by the kernel, or from outside.
          if (life % 3 === 0) for (let i = 0; i < 20; i++) driver.wait(0);
          for (const port of doomed) {
            driver.closePort(port, true);
            attachments[port].abandon();
            attachments[port] = attach(port);
            driver.openPort(port, [0], attachments[port].mapFd);
          }
        }
        for (const port of [0, 1]) exchangeUntil(driver, batch, port);
        assert.equal(descriptors(), before);
        for (const port of [0, 1]) driver.closePort(port, false);
        assert.equal(driver.freeChunks, chunks);
        assert.equal(descriptors(), before - 2, 'the two sockets');
      } finally {
        for (const attachment of attachments) attachment.close();
      }
    });

  it('refuses options that cannot work', () => {
    assert.throws(() => open({ ports: [] }), /1 to 32 ports/);
    assert.throws(() => open({ ports: [{ interface: 'a' }], chunks: 10 }), /not enough/);
    assert.throws(() => open({ ports: [{ interface: 'a' }], chunkBytes: 1024 }), /2048/);
    assert.throws(() => open({ ports: [{ interface: 'a' }], chunks: 2 ** 21 }), /2 GiB/);
  });
});

/** Sends out by the other port whatever comes, until something came by this one. */
function exchangeUntil(driver: AfXdpDriver, batch: Batch, port: number): void {
  const deadline = performance.now() + PATIENCE_MS;
  for (let came = false; !came; ) {
    assert.ok(performance.now() < deadline, `nothing came by port ${port}`);
    if (driver.receive(batch) === 0) driver.wait(10);
    for (let i = 0; i < batch.count; i++) {
      if (batch.port[i] === port) came = true;
      batch.egress[i] = 1 - batch.port[i];
    }
    driver.transmit(batch);
  }
}
