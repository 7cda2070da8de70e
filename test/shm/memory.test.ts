import { strict as assert } from 'node:assert';
import { createHash } from 'node:crypto';
import { Arena, type ArenaObject, createArena, layoutArena } from '../../shm/arena.js';
import { Control, createControl, Phase, ThreadState } from '../../shm/control.js';
import { MetricCatalogue, Metrics } from '../../shm/metrics.js';
import { Region } from '../../shm/region.js';
import { LINE, powerOfTwo, struct } from '../../shm/struct.js';

const object = (name: string, bytes: number, parameters = {}): ArenaObject => ({
  name,
  kind: 'test',
  parameters,
  bytes,
});

describe('declared layouts', () => {
  it('place fields one after the other, and on lines of their own where asked', () => {
    assert.deepEqual(struct({ a: 1, b: 3, c: 1 }), { at: { a: 0, b: 1, c: 4 }, words: 5, bytes: 20 });
    assert.deepEqual(struct({ a: LINE, b: LINE, c: 2 }), { at: { a: 0, b: 16, c: 17 }, words: 32, bytes: 128 });
    assert.throws(() => struct({ a: 0 }), /struct field a: 0 words/);
  });

  it('round to powers of two within what a table can have', () => {
    assert.deepEqual([1, 2, 3, 1000, 2 ** 30].map(powerOfTwo), [1, 2, 4, 1024, 2 ** 30]);
    assert.throws(() => powerOfTwo(2 ** 30 + 1), RangeError);
  });

  it('never reach past their region', () => {
    const region = new Region(new SharedArrayBuffer(256));
    assert.equal(region.i32(64, 4).byteOffset, 64);
    assert.throws(() => region.i32(192, 17), RangeError);
    assert.throws(() => region.part(64, 256), RangeError);
    assert.throws(() => new Region(new SharedArrayBuffer(256), 4), /cache line/);
  });
});

describe('arena', () => {
  it('gives every object a region of its own, on a cache line, the same in every thread', () => {
    const objects = [object('a', 100), object('b', 64), object('c', 1)];
    const buffer = createArena(layoutArena(objects));
    const one = new Arena(buffer, objects);
    const other = new Arena(buffer, objects);
    let end = 0;
    for (let id = 0; id < objects.length; id++) {
      const region = one.region(id);
      assert.equal(region.byteOffset % 64, 0);
      assert.ok(region.byteOffset >= end, 'regions overlap');
      end = region.byteOffset + region.byteLength;
      region.i32(0, 0);
      one.region(id).u8()[0] = id + 1;
      assert.equal(other.region(id).u8()[0], id + 1);
    }
    assert.deepEqual(one.secret, other.secret);
    assert.ok(one.secret.some((word) => word !== 0));
  });

  it('refuses a buffer laid out for other objects, sizes or parameters', () => {
    const buffer = createArena(layoutArena([object('a', 64, { addresses: [1] })]));
    for (const wrong of [
      object('b', 64, { addresses: [1] }),
      object('a', 128, { addresses: [1] }),
      object('a', 64, { addresses: [2] }),
    ])
      assert.throws(() => new Arena(buffer, [wrong]), /another configuration/);
  });

  it('has a hash that older instances, whose keys mean something else, do not have', () => {
    const objects = [object('a', 64, { addresses: [1] })];
    const digest = createHash('sha256').update('1\n');
    for (const { name, kind, parameters, bytes } of objects)
      digest.update(`${JSON.stringify([name, kind, parameters, bytes])}\n`);
    const formatOne = digest.digest();
    assert.notDeepEqual(layoutArena(objects).hash, [formatOne.readInt32LE(0), formatOne.readInt32LE(4)]);
  });

  it('refuses two objects of one name', () => {
    assert.throws(() => layoutArena([object('a', 1), object('a', 2)]), /declared twice/);
  });
});

describe('metrics', () => {
  it('have one row per thread, summed for the reader', () => {
    const catalogue = new MetricCatalogue([
      { name: 'x', help: 'x.', kind: 'counter' },
      { name: 'y', help: 'y.', kind: 'gauge' },
    ]);
    const buffer = new SharedArrayBuffer(catalogue.bytes(3));
    const metrics = new Metrics(catalogue, buffer, 3);
    for (let thread = 0; thread < 3; thread++) metrics.row(thread)[catalogue.column('y')] += 2 ** 40 + thread;
    const reader = new Metrics(catalogue, buffer, 3);
    assert.equal(reader.total('y'), 3 * 2 ** 40 + 3);
    assert.equal(reader.total('x'), 0);
    assert.equal(reader.value('y', 2), 2 ** 40 + 2);
    assert.throws(() => reader.total('z'), /z is not declared/);
    assert.throws(() => reader.row(3), /thread 3/);
  });

  it('are declared once', () => {
    const metric = { name: 'x', help: 'x.', kind: 'counter' } as const;
    assert.throws(() => new MetricCatalogue([metric, metric]), /declared twice/);
  });
});

describe('control flags', () => {
  it('carry phase, thread states and places', () => {
    const buffer = createControl(2);
    const main = new Control(buffer);
    const thread = new Control(buffer);
    assert.equal(main.threads, 2);
    thread.setState(1, ThreadState.READY);
    thread.setPlace(1, { core: 3, tid: 4242, worker: 5 });
    thread.beat(1);
    assert.equal(main.state(1), ThreadState.READY);
    assert.equal(main.state(0), ThreadState.ABSENT);
    assert.deepEqual(main.place(1), { core: 3, tid: 4242, worker: 5 });
    assert.equal(main.heartbeat(1), 1);
    main.setPhase(Phase.STOP);
    assert.equal(thread.phase, Phase.STOP);
    assert.throws(() => main.state(2), /no thread 2/);
  });

  it('wake whoever waits on the bell, and nobody waits for a bell that already rang', async () => {
    const control = new Control(createControl(1));
    const seen = control.bell;
    const waiting = control.waitBell(seen, 60_000);
    control.ring();
    await waiting;
    await control.waitBell(seen, 60_000);
    assert.equal(control.bell, seen + 1);
  });
});
