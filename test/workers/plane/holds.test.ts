import { strict as assert } from 'node:assert';
import { Phase } from '../../../shm/control.js';
import { HOLD_MS_MAX } from '../../../workers/api/holds.js';
import type { Batch } from '../../../workers/packet/batch.js';
import { HELD_MAX } from '../../../workers/plane/holds.js';
import { seeded } from '../../../workers/transport/fault.js';
import { NatSite } from '../support/nat-site.js';
import { on, Plane, type TestProcess } from '../support/plane.js';

const OUT = 'udp 10.0.0.5:4000 > 198.51.100.7:53';

/** A packet of this number, and what leaves of it. */
const packet = (n: number) => on(0, `${OUT} id ${n} len ${n % 50}`);
const idOf = (frame: Uint8Array) => (frame[18] << 8) | frame[19];
const PATIENCE_MS = 100;

/**
 * Logs a record for every packet, and holds it for as many members as `members` says of its number.
 */
function holder(plane: Plane, members: (id: number) => number, ms = PATIENCE_MS): TestProcess {
  return (batch: Batch) => {
    for (let i = 0; i < batch.count; i++) {
      const id = idOf(batch.memory.u8.subarray(batch.start[i]));
      plane.log.note(0, 1, 1, id);
      plane.holds.untilAcknowledged(i, members(id), ms);
    }
  };
}

function sent(plane: Plane): number[] {
  return plane.driver.sent.splice(0).map(({ frame }) => idOf(frame));
}

/** Lets packets in, in one batch, and returns what leaves with it. */
function round(plane: Plane, ...ids: number[]): number[] {
  for (const id of ids) plane.driver.inject(0, packet(id).frame);
  plane.dataPlane.doWork();
  return sent(plane);
}

describe('held packets', () => {
  it('wait until as many members as asked have what was logged, and pass nothing that came with them', () => {
    const plane = new Plane();
    plane.open([holder(plane, (id) => id % 3)]);
    assert.deepEqual(round(plane, 3, 1, 2, 6, 4), [3, 6], 'what waits for nobody leaves at once');
    const { position } = plane.log;
    assert.equal(plane.metrics.total('held_packets'), 3);
    assert.deepEqual(round(plane), []);
    plane.holdBoard.publish(0, 1, position - 1);
    assert.deepEqual(round(plane), [], 'not all of it');
    plane.holdBoard.publish(0, 1, position);
    assert.deepEqual(round(plane), [1, 4], 'in the order they came in');
    plane.holdBoard.publish(0, 2, position);
    assert.deepEqual(round(plane), [2]);
    assert.deepEqual(plane.counts(), { hold_packets: 3 });
  });

  it('leave as they were when they were taken, whatever came into their place since', () => {
    const plane = new Plane();
    plane.open([holder(plane, (id) => (id === 1 ? 1 : 0))]);
    const [before] = new Plane().passFrames(packet(1));
    round(plane, 1);
    for (let n = 0; n < 5; n++) round(plane, 40, 41);
    plane.holdBoard.publish(0, 1, plane.log.position);
    plane.dataPlane.doWork();
    const [{ port, frame }] = plane.driver.sent.splice(0);
    assert.equal(port, 1);
    assert.deepEqual(frame, before.frame);
    assert.equal(plane.metrics.total('port1_tx_packets'), 11);
  });

  it('leave when their time is up, which no step of the wall clock changes', () => {
    const plane = new Plane();
    plane.open([holder(plane, () => 1)]);
    round(plane, 1);
    plane.nowMs += PATIENCE_MS - 1;
    assert.deepEqual(round(plane), []);
    plane.nowMs += 3_600_000;
    plane.steppedMs += 3_600_000;
    assert.deepEqual(round(plane), []);
    plane.nowMs += 1;
    assert.deepEqual(round(plane), [1]);
    assert.deepEqual(plane.counts(), { hold_packets: 1, hold_expired: 1 });
  });

  it('wait no longer than the longest time there is, also for more members than there can be', () => {
    const plane = new Plane();
    plane.open([holder(plane, () => 1000, Number.POSITIVE_INFINITY)]);
    round(plane, 1);
    plane.holdBoard.publish(0, 1, plane.log.position);
    plane.holdBoard.publish(0, 2, plane.log.position);
    assert.deepEqual(round(plane), []);
    plane.nowMs += HOLD_MS_MAX;
    assert.deepEqual(round(plane), [1]);
  });

  it('do not take for acknowledged what the board said long ago', () => {
    const plane = new Plane();
    plane.open([holder(plane, () => 1)]);
    plane.holdBoard.publish(0, 1, 2 ** 31 + 5);
    assert.deepEqual(round(plane, 1), [], 'a position that is nowhere between the packet and the end of the log');
    assert.deepEqual(round(plane), []);
  });

  it('are as many as there is room for; more leave at once', () => {
    const plane = new Plane();
    plane.open([holder(plane, () => 1)]);
    const left: number[] = [];
    for (let n = 1; n <= HELD_MAX + 10; n++) left.push(...round(plane, n));
    assert.deepEqual(left.length, 10);
    assert.deepEqual(plane.counts(), { hold_packets: HELD_MAX, held_packets: HELD_MAX, hold_full: 10 });
    plane.holdBoard.publish(0, 1, plane.log.position);
    assert.deepEqual(
      round(plane),
      Array.from({ length: HELD_MAX }, (_, n) => n + 1),
    );
  });

  it('are not held that another middlebox drops, and take what middleboxes after did to them', () => {
    const plane = new Plane();
    const noEgress = plane.catalogue.column('no_egress');
    plane.open([
      holder(plane, () => 1),
      (batch) => {
        batch.drop(0, noEgress);
        batch.forward(1, 0);
      },
    ]);
    round(plane, 1, 2, 3);
    plane.holdBoard.publish(0, 1, plane.log.position);
    plane.dataPlane.doWork();
    assert.deepEqual(
      plane.driver.sent.splice(0).map(({ port, frame }) => `${port} ${idOf(frame)}`),
      ['0 2', '1 3'],
    );
    assert.deepEqual(plane.counts(), { no_egress: 1, hold_packets: 2 });
  });

  it('stay where the driver takes none, and leave when it does', () => {
    const plane = new Plane();
    plane.open([holder(plane, () => 1)]);
    round(plane, 1, 2);
    plane.holdBoard.publish(0, 1, plane.log.position);
    const send = plane.driver.send.bind(plane.driver);
    plane.driver.send = () => false;
    assert.deepEqual(round(plane), []);
    plane.nowMs += PATIENCE_MS;
    assert.deepEqual(round(plane), []);
    plane.driver.send = send;
    assert.deepEqual(round(plane), [1, 2]);
    assert.deepEqual(plane.counts(), { hold_packets: 2 });
  });

  it('keep the worker from sleeping for long', () => {
    const plane = new Plane({ idle: 'sleep' });
    const dataPlane = plane.open([holder(plane, () => 1)]);
    const sleeps: number[] = [];
    plane.driver.wait = (ms) => {
      sleeps.push(ms);
      if (sleeps.length === 3) plane.holdBoard.publish(0, 1, plane.log.position);
      if (sleeps.length === 5) plane.control.setPhase(Phase.QUIET);
    };
    plane.driver.inject(0, packet(1).frame);
    dataPlane.run();
    assert.deepEqual(sleeps, [1, 1, 1, 100, 100]);
    assert.deepEqual(sent(plane), [1]);
  });

  it('all leave when the worker ends', () => {
    const plane = new Plane();
    const dataPlane = plane.open([holder(plane, () => 1)]);
    round(plane, 1, 2);
    plane.control.setPhase(Phase.QUIET);
    dataPlane.run();
    assert.deepEqual(sent(plane), [1, 2]);
    assert.deepEqual(plane.counts(), { hold_packets: 2 });
  });

  it('in = out + dropped + held, at any moment', () => {
    for (let seed = 1; seed <= 20; seed++) {
      const random = seeded(seed);
      const draw = (below: number) => Math.floor(random() * below);
      const plane = new Plane();
      const noEgress = plane.catalogue.column('no_egress');
      plane.open([
        holder(plane, () => draw(4), 1 + draw(50)),
        (batch) => {
          for (let i = 0; i < batch.count; i++) if (draw(5) === 0) batch.drop(i, noEgress);
        },
      ]);
      const left: number[] = [];
      let id = 0;
      for (let step = 0; step < 300; step++) {
        plane.nowMs += draw(4);
        left.push(...round(plane, ...Array.from({ length: draw(6) }, () => ++id)));
        if (draw(3) === 0) plane.holdBoard.publish(0, 1 + draw(2), plane.log.position);
        const held = plane.metrics.total('held_packets');
        assert.equal(id, left.length + plane.dropped() + held, `seed ${seed}, step ${step}`);
        const out = plane.metrics.total('port0_tx_packets') + plane.metrics.total('port1_tx_packets');
        assert.equal(out, left.length);
      }
      assert.equal(new Set(left).size, left.length, 'none twice');
    }
  });
});

describe('a NAT that holds first packets', () => {
  const REPLY = 'udp 198.51.100.7:53 > 203.0.113.1';

  it('holds packets of a new binding until it is acknowledged, and none after that', () => {
    const site = new NatSite({ options: { hold_members: 2, hold_ms: 50 } });
    assert.deepEqual(site.pass(on(0, OUT)), []);
    const { holdBoard, log } = site.plane;
    holdBoard.publish(0, 1, log.position);
    assert.deepEqual(site.pass(), []);
    holdBoard.publish(0, 2, log.position);
    const [held] = site.pass();
    const port = /203\.0\.113\.1:(\d+) >/.exec(held)?.[1];
    assert.deepEqual(site.pass(on(0, OUT)), [`1: udp 203.0.113.1:${port} > 198.51.100.7:53 ttl 63`]);
    assert.deepEqual(site.pass(on(1, `${REPLY}:${port}`)), ['0: udp 198.51.100.7:53 > 10.0.0.5:4000 ttl 63']);
    assert.equal(site.plane.metrics.total('hold_packets'), 1);
  });

  it('holds none unless asked to, and refuses to wait for more members than there can be', () => {
    const site = new NatSite();
    assert.equal(site.pass(on(0, OUT)).length, 1);
    assert.throws(() => new NatSite({ options: { hold_members: 8 } }), /nat: 8 other members, of 7 there are/);
  });
});
