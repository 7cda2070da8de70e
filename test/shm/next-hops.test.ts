import { strict as assert } from 'node:assert';
import { Worker } from 'node:worker_threads';
import { createNextHops, NextHopReader, NextHopWriter, type RawAddress } from '../../shm/next-hops.js';
import { NONE } from '../../shm/none.js';

const PORTS = 3;

function neighbour(port: number, address: number, low = address * 3, high = address & 0xffff) {
  return { port, address, mac: { low: low | 0, high } };
}

describe('next hops', () => {
  it('are found by port and address, whatever the table was before', () => {
    const buffer = createNextHops(PORTS, 64);
    const writer = new NextHopWriter(buffer, PORTS);
    const reader = new NextHopReader(buffer, PORTS);
    reader.refresh();
    assert.equal(reader.find(0, 7), NONE);

    writer.replace([neighbour(0, 7), neighbour(1, 7, 1, 2), neighbour(0, 8)]);
    assert.equal(reader.find(0, 7), NONE, 'not before a refresh');
    assert.ok(reader.refresh());
    assert.ok(!reader.refresh());
    const slot = reader.find(1, 7);
    assert.deepEqual([reader.macLow(slot), reader.macHigh(slot)], [1, 2]);
    assert.equal(reader.macLow(reader.find(0, 7)), 21);
    assert.equal(reader.find(2, 7), NONE);

    writer.replace([neighbour(0, 8), neighbour(1, 7, 5, 6)]);
    assert.ok(reader.refresh());
    assert.equal(reader.find(0, 7), NONE);
    assert.equal(reader.macLow(reader.find(1, 7)), 5);
  });

  it('of IPv6 are found by the whole address, and never taken for IPv4', () => {
    const buffer = createNextHops(PORTS, 256);
    const writer = new NextHopWriter(buffer, PORTS);
    const reader = new NextHopReader(buffer, PORTS);
    const address = (...words: number[]) => Int32Array.from(words);
    // Each differs from the others in one word, in the port, or in nothing but the version.
    const all: { port: number; address: RawAddress }[] = [0, 1, 2, 3].flatMap((word) =>
      [1, 2, 3, -1].flatMap((value) => [
        { port: 0, address: address(0, 0, 0, 0).with(word, value) },
        { port: 1, address: address(0, 0, 0, 0).with(word, value) },
      ]),
    );
    all.push(...[1, 2, 3, -1, 0].map((value) => ({ port: 0, address: value })));
    assert.equal(writer.replace(all.map((one, i) => ({ ...one, mac: { low: i + 1, high: i } }))), 0);
    reader.refresh();
    const words = new Int32Array(9);
    for (const [i, { port, address }] of all.entries()) {
      if (typeof address !== 'number') words.set(address, 5);
      const slot = typeof address === 'number' ? reader.find(port, address) : reader.findIpv6(port, words, 5);
      assert.deepEqual([reader.macLow(slot), reader.macHigh(slot)], [i + 1, i]);
    }
    assert.equal(reader.findIpv6(2, address(1, 0, 0, 0), 0), NONE);
    assert.equal(reader.findIpv6(0, address(0, 0, 0, 0), 0), NONE);
    assert.equal(reader.find(1, 1), NONE);
    assert.equal(writer.replace([{ port: 0, address: address(1, 2, 3, 4), mac: { low: 9, high: 9 } }]), 0);
    reader.refresh();
    assert.equal(reader.macLow(reader.findIpv6(0, address(1, 2, 3, 4), 0)), 9);
    assert.equal(reader.findIpv6(0, address(1, 0, 0, 0), 0), NONE);
  });

  it('change nothing for workers when main finds what it knew', () => {
    const buffer = createNextHops(PORTS, 64);
    const writer = new NextHopWriter(buffer, PORTS);
    const reader = new NextHopReader(buffer, PORTS);
    writer.replace([neighbour(0, 7), neighbour(0, 8)]);
    assert.ok(reader.refresh());
    writer.replace([neighbour(0, 7), neighbour(0, 8)]);
    assert.ok(!reader.refresh());
  });

  it('hold as many as they were made for, and say how many more there were', () => {
    const buffer = createNextHops(PORTS, 64);
    const writer = new NextHopWriter(buffer, PORTS);
    const reader = new NextHopReader(buffer, PORTS);
    assert.equal(writer.capacity, 64);
    const all = Array.from({ length: 100 }, (_, i) => neighbour(i % PORTS, i));
    assert.equal(writer.replace(all), 36);
    reader.refresh();
    for (const { port, address } of all.slice(0, 64)) assert.notEqual(reader.find(port, address), NONE);
    assert.equal(reader.find(all[64].port, all[64].address), NONE);
  });

  it('are wanted by workers, and main is woken once', async () => {
    const buffer = createNextHops(PORTS, 64);
    const writer = new NextHopWriter(buffer, PORTS);
    const reader = new NextHopReader(buffer, PORTS);
    const seen = writer.bell;
    reader.flushWanted();
    assert.equal(writer.bell, seen, 'nothing was wanted');
    for (let i = 0; i < 100; i++) reader.want(1, 77);
    reader.want(2, 77);
    reader.flushWanted();
    await writer.waitBell(seen, 10_000);
    assert.deepEqual(writer.takeWanted(), [
      { port: 1, address: 77 },
      { port: 2, address: 77 },
    ]);
    assert.deepEqual(writer.takeWanted(), []);
    const rung = writer.bell;
    reader.want(1, 77);
    reader.flushWanted();
    assert.notEqual(writer.bell, rung, 'asked again, after main has taken it');
  });

  it('of IPv6 are wanted whole, and a mixture of two is thrown away', () => {
    const buffer = createNextHops(PORTS, 64);
    const writer = new NextHopWriter(buffer, PORTS);
    const reader = new NextHopReader(buffer, PORTS);
    const packet = Int32Array.from([9, 9, 1, 2, 3, 4]);
    const want = () => {
      reader.wantIpv6(1, packet, 2);
      reader.flushWanted();
    };
    want();
    reader.want(2, 1);
    assert.deepEqual(writer.takeWanted(), [
      { port: 1, address: Int32Array.from([1, 2, 3, 4]) },
      { port: 2, address: 1 },
    ]);
    assert.deepEqual(writer.takeWanted(), []);

    want();
    const all = new Int32Array(buffer);
    const at = all.findIndex((_, i) => [1, 2, 3, 4].every((word, n) => all[i + n] === word));
    all[at + 2] = 77; // another worker's
    assert.deepEqual(writer.takeWanted(), []);
    const rung = writer.bell;
    want();
    assert.notEqual(writer.bell, rung);
    assert.deepEqual(writer.takeWanted(), [{ port: 1, address: Int32Array.from([1, 2, 3, 4]) }]);
  });

  it('never show a half of two entries, however fast main writes', async () => {
    const buffer = createNextHops(PORTS, 64);
    const writer = new NextHopWriter(buffer, PORTS);
    const done = new SharedArrayBuffer(4);
    const flag = new Int32Array(done);
    const program = `
      const { workerData: { buffer, done, module } , parentPort } = require('node:worker_threads');
      import(module).then(({ NextHopReader }) => {
        const reader = new NextHopReader(buffer, ${PORTS});
        const flag = new Int32Array(done);
        let seen = 0, torn = 0;
        while (Atomics.load(flag, 0) === 0) {
          if (!reader.refresh()) continue;
          seen++;
          for (let address = 1; address <= 60; address++) {
            const slot = reader.find(0, address);
            // Every entry of one writing carries the same number in all its words.
            if (slot < 0 || reader.macLow(slot) !== reader.macLow(reader.find(0, 1)) ||
                (reader.macLow(slot) & 0xffff) !== reader.macHigh(slot)) torn++;
          }
        }
        parentPort.postMessage({ seen, torn });
      });`;
    const module = new URL('../../shm/next-hops.js', import.meta.url).href;
    const write = (n: number) =>
      writer.replace(Array.from({ length: 60 }, (_, i) => neighbour(0, i + 1, n, n & 0xffff)));
    write(1);
    const worker = new Worker(program, { eval: true, workerData: { buffer, done, module } });
    const result = new Promise<{ seen: number; torn: number }>((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
    });
    await new Promise((resolve) => worker.once('online', resolve));
    for (let n = 2; n < 30_000; n++) write(n);
    Atomics.store(flag, 0, 1);
    const { seen, torn } = await result;
    await worker.terminate();
    assert.equal(torn, 0);
    assert.ok(seen > 0);
  });
});
