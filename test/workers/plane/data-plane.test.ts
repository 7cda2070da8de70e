import { strict as assert } from 'node:assert';
import { Phase } from '../../../shm/control.js';
import { LogConsumer } from '../../../shm/log.js';
import { PortState } from '../../../shm/port-board.js';
import { MEMORY_FRAME_BYTES_MAX, MemoryDriver } from '../../../workers/drivers/memory.js';
import { BATCH_CAPACITY, type Batch } from '../../../workers/packet/batch.js';
import { Idle } from '../../../workers/plane/idle.js';
import { frame } from '../support/frames.js';
import { on, Plane } from '../support/plane.js';

const PACKET = 'udp 10.0.0.5:4000 > 198.51.100.7:53';

describe('data plane', () => {
  it('takes one batch a round, and loses none over many', () => {
    const plane = new Plane();
    for (let i = 0; i < 3 * BATCH_CAPACITY + 5; i++) plane.driver.inject(i % 2, frame(PACKET));
    const dataPlane = plane.open();
    assert.deepEqual(
      [1, 2, 3, 4, 5].map(() => dataPlane.doWork()),
      [BATCH_CAPACITY, BATCH_CAPACITY, BATCH_CAPACITY, 5, 0],
    );
    assert.equal(plane.driver.sent.length, 3 * BATCH_CAPACITY + 5);
    assert.equal(plane.metrics.total('batches'), 4);
    assert.equal(plane.metrics.total('idle_rounds'), 1);
  });

  it('counts packets and bytes by port', () => {
    const plane = new Plane();
    plane.pass(on(0, `${PACKET} len 100`), on(0, PACKET), on(1, PACKET), on(1, `${PACKET} ttl 1`));
    const traffic = Object.fromEntries(
      plane.catalogue.metrics
        .filter(({ name }) => /^port/.test(name))
        .map(({ name }) => [name, plane.metrics.total(name)]),
    );
    assert.deepEqual(traffic, {
      port0_rx_packets: 2,
      port0_rx_bytes: 142 + 42,
      port0_tx_packets: 1,
      port0_tx_bytes: 42,
      port0_tx_unusable: 0,
      port1_rx_packets: 2,
      port1_rx_bytes: 84,
      port1_tx_packets: 2,
      port1_tx_bytes: 184,
      port1_tx_unusable: 0,
    });
  });

  it('drops, and counts, what would leave by an unusable port', () => {
    const plane = new Plane();
    const unusable = (port: number): number => plane.metrics.total(`port${port}_tx_unusable`);
    const packet = 'udp 10.0.0.5:4000 > 198.51.100.7:53';
    for (const state of [PortState.GONE, PortState.DOWN, PortState.NO_CARRIER, PortState.UNATTACHED]) {
      plane.setPorts({}, { state });
      const before = [unusable(0), unusable(1), plane.metrics.total('port1_tx_packets')];
      assert.deepEqual(plane.pass(on(0, packet)), []);
      assert.equal(plane.pass(on(1, packet)).length, 1, 'the other way is open');
      assert.deepEqual(
        [unusable(0), unusable(1), plane.metrics.total('port1_tx_packets')],
        [before[0], before[1] + 1, before[2]],
      );
    }
    plane.setPorts({}, {});
    assert.equal(plane.pass(on(0, packet)).length, 1);
  });

  it('shows the log records of a batch together, and rings once', () => {
    const plane = new Plane();
    plane.open([
      (batch: Batch) => {
        for (let i = 0; i < batch.count; i++) {
          plane.log.words[plane.log.claim(1, 2, 1)] = i;
          plane.log.commit();
        }
      },
    ]);
    const consumer = new LogConsumer(plane.logBuffer);
    const before = plane.control.bell;
    plane.pass(on(0, PACKET), on(0, PACKET), on(0, PACKET));
    assert.equal(plane.control.bell, before + 1);
    assert.equal(consumer.backlog, 6);
    plane.open([]);
    plane.pass(on(0, PACKET));
    assert.equal(plane.control.bell, before + 1, 'nothing to show, nothing to ring for');
  });

  it('shows a heartbeat, and ends when main asks for quiet', () => {
    const plane = new Plane();
    const dataPlane = plane.open();
    const before = plane.control.heartbeat(0);
    plane.control.setPhase(Phase.DRAIN);
    let rounds = 0;
    const { doWork } = dataPlane;
    dataPlane.doWork = () => {
      if (++rounds === 1000) plane.control.setPhase(Phase.QUIET);
      return doWork.call(dataPlane);
    };
    dataPlane.run();
    assert.equal(rounds, 1000);
    assert.equal(plane.control.heartbeat(0), before + 1000);
  });
});

describe('idle', () => {
  function idle(mode: 'sleep' | 'spin'): { sleeps: number[]; afterRound: (done: number) => boolean } {
    const sleeps: number[] = [];
    const driver = new MemoryDriver({ ports: 1 });
    driver.wait = (timeoutMs) => void sleeps.push(timeoutMs);
    const strategy = new Idle(driver, mode);
    return { sleeps, afterRound: (done) => strategy.after(done) };
  }

  it('sleeps in the driver after a while without packets, never longer than a tenth of a second', () => {
    const { sleeps, afterRound } = idle('sleep');
    let rounds = 0;
    while (!afterRound(0)) rounds++;
    assert.ok(rounds > 10);
    assert.ok(afterRound(0), 'and again, until a packet comes');
    assert.ok(!afterRound(1));
    assert.ok(!afterRound(0), 'then it looks again for a while');
    assert.ok(sleeps.every((ms) => ms <= 100));
  });

  it('spins without a sleep', () => {
    const { sleeps, afterRound } = idle('spin');
    for (let i = 0; i < 100_000; i++) assert.ok(!afterRound(0));
    assert.deepEqual(sleeps, []);
  });
});

describe('memory driver', () => {
  const frames = [1, 2, 3].map((n) => ({ port: n % 2, frame: frame(`${PACKET} id ${n} len ${n}`) }));

  function serve(driver: MemoryDriver, batch: Batch, rounds: number): number[] {
    const ids: number[] = [];
    for (let round = 0; round < rounds; round++) {
      driver.receive(batch);
      for (let i = 0; i < batch.count; i++) {
        assert.equal(batch.start[i] % 4, 2);
        ids.push(driver.memory.u8[batch.start[i] + 19]);
        driver.memory.u8.fill(0, batch.start[i], batch.start[i] + 20); // what a middlebox might do
        batch.egress[i] = batch.port[i];
      }
      driver.transmit(batch);
    }
    return ids;
  }

  it('serves its frames once, or for ever, fresh every time', () => {
    const once = new MemoryDriver({ ports: 2, frames });
    const { batch } = new Plane().open();
    assert.deepEqual(serve(once, batch, 3), [1, 2, 3]);
    assert.ok(once.exhausted);
    const forEver = new MemoryDriver({ ports: 2, frames, loop: true, burst: 2, capture: false, copyBytes: 42 });
    assert.deepEqual(serve(forEver, batch, 4), [1, 2, 3, 1, 2, 3, 1, 2]);
    assert.ok(!forEver.exhausted);
    assert.deepEqual(forEver.sent, []);
    assert.deepEqual([...forEver.sentPackets], [3, 5]);
  });

  it('refuses frames that no chunk takes and ports there are not', () => {
    const driver = new MemoryDriver({ ports: 2 });
    driver.inject(0, new Uint8Array(MEMORY_FRAME_BYTES_MAX));
    assert.throws(() => driver.inject(0, new Uint8Array(MEMORY_FRAME_BYTES_MAX + 1)), RangeError);
    assert.throws(() => driver.inject(2, new Uint8Array(60)), RangeError);
  });
});
