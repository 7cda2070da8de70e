import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { MAX_RANGES, PeerRecord } from '../../../shm/ack-board.js';
import { recordHeader } from '../../../shm/log.js';
import { ReorderBuffer } from '../../../workers/replication/receiving/reorder-buffer.js';
import { RoundTrip } from '../../../workers/replication/receiving/round-trip.js';
import { StagingArea } from '../../../workers/replication/sending/staging.js';
import {
  clusterIdOf,
  datagramBytes,
  groupAckDelayMs,
  messageBytes,
  newIncarnation,
  replicationSettings,
} from '../../../workers/replication/settings.js';
import { Arrival, Reception } from '../../../workers/replication/units/reception.js';
import { createUnitLogs, UnitLog, unitLogRegion } from '../../../workers/replication/units/unit-log.js';
import { ADD, Ledger, NOTE } from '../../support/ledger.js';
import { testSettings } from './network.js';

describe('reception vector', () => {
  /** Units of 1–4 numbers that tile 1 … n. */
  const tiles = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 200 }).map((sizes) => {
    let first = 1;
    return sizes.map((size) => {
      const unit = { first, last: first + size - 1 };
      first += size;
      return unit;
    });
  });

  it('agrees with a set of numbers, whatever the order', () => {
    fc.assert(
      fc.property(
        tiles.chain((units) => fc.tuple(fc.constant(units), fc.array(fc.nat(units.length - 1), { maxLength: 400 }))),
        ([units, order]) => {
          const reception = new Reception();
          const model = new Set<number>();
          for (const i of order) {
            const { first, last } = units[i];
            const arrival = reception.classify(first, last);
            if (arrival === Arrival.NO_ROOM) {
              assert.equal(reception.ranges, MAX_RANGES);
              continue;
            }
            assert.equal(arrival === Arrival.DUPLICATE, model.has(first));
            assert.notEqual(arrival, Arrival.OVERLAP);
            if (arrival === Arrival.DUPLICATE) continue;
            reception.add(first, last);
            for (let n = first; n <= last; n++) model.add(n);
            let contiguous = 0;
            while (model.has(contiguous + 1)) contiguous++;
            assert.equal(reception.contiguous, contiguous);
            for (let r = 0; r < reception.ranges; r++)
              assert.ok(reception.start(r) > (r === 0 ? reception.contiguous : reception.end(r - 1)) + 1);
          }
          const top = units[units.length - 1].last;
          for (let n = 1; n <= top; n++) assert.equal(reception.has(n), model.has(n));
          assert.equal(reception.missing(top), top - model.size);
        },
      ),
      { seed: 1, numRuns: 300 },
    );
  });

  it('refuses what it could not remember, and units cut differently', () => {
    const reception = new Reception();
    for (let i = 0; i < MAX_RANGES; i++) reception.add(10 + 4 * i, 11 + 4 * i);
    assert.equal(reception.classify(1000, 1001), Arrival.NO_ROOM);
    assert.equal(reception.classify(12, 12), Arrival.BEYOND);
    assert.equal(reception.classify(1, 1), Arrival.NEXT);
    assert.equal(reception.classify(11, 12), Arrival.OVERLAP);
    assert.equal(reception.classify(9, 10), Arrival.OVERLAP);
    assert.equal(reception.classify(1, 400), Arrival.OVERLAP);
    assert.equal(reception.classify(2 ** 33, 2 ** 33), Arrival.NO_ROOM);
  });

  it('passes over what never comes', () => {
    const reception = new Reception();
    reception.add(5, 6);
    reception.add(9, 9);
    assert.equal(reception.advance(7), 5);
    assert.equal(reception.contiguous, 7);
    assert.equal(reception.advance(8), 1);
    assert.equal(reception.contiguous, 9);
    assert.equal(reception.ranges, 0);
  });
});

describe('unit log', () => {
  const words = Int32Array.from({ length: 400 }, (_, i) => i);

  it('keeps units in order through many turns of the ring, and never loses one', () => {
    const buffer = createUnitLogs(1, 64 << 10);
    let log = new UnitLog(unitLogRegion(buffer, 0, 1));
    let pruned = 0;
    let next = 1;
    for (let i = 0; i < 5000; i++) {
      const size = 1 + ((i * 37) % 300);
      while (log.room(319, 256) < size) {
        pruned += log.prune(log.floor + 50);
        assert.ok(log.units > 0);
      }
      assert.equal(log.nextSequence, next);
      log.append(1 + (i % 3), words, i % 50, size);
      next += 1 + (i % 3);
      log.markSent(log.unsent, i);
      if (i % 100 === 0) log = new UnitLog(unitLogRegion(buffer, 0, 1));
    }
    assert.equal(pruned + log.units, 5000);
    let expected = log.floor;
    for (let position = log.head; position !== log.tail; ) {
      position = log.load(position);
      assert.equal(log.first, expected);
      assert.equal(log.words[log.recordsAt] + 1, log.words[log.recordsAt + 1] || log.words[log.recordsAt] + 1);
      expected += log.count;
    }
    assert.equal(expected, next);
  });

  it('knows after a crash what was sent, and what was let go in part', () => {
    const buffer = createUnitLogs(2, 64 << 10, 2 ** 40);
    const region = unitLogRegion(buffer, 1, 2);
    const log = new UnitLog(region);
    for (let i = 0; i < 10; i++) log.append(5, words, 0, 7);
    for (let i = 0; i < 6; i++) log.markSent(log.unsent, i);
    // As if the thread had died between the two stores of `prune`.
    const head = log.head;
    log.prune(2 ** 40 + 14);
    Atomics.store(region.i32(0, 1), 0, head);
    const again = new UnitLog(region);
    assert.equal(again.units, 7);
    assert.equal(again.nextSequence, 2 ** 40 + 50);
    again.load(again.head);
    assert.equal(again.first, 2 ** 40 + 15);
    again.load(again.unsent);
    assert.equal(again.first, 2 ** 40 + 30);
  });

  it('lets nothing go that was not sent', () => {
    const log = new UnitLog(unitLogRegion(createUnitLogs(1, 64 << 10), 0, 1));
    log.append(1, words, 0, 5);
    assert.equal(log.prune(Number.MAX_SAFE_INTEGER), 0);
    assert.equal(log.units, 1);
  });
});

describe('stage', () => {
  it('merges with the latest record of a key only, and weighs', () => {
    const stage = new StagingArea(new Ledger(3));
    assert.equal(stage.add(ADD, Int32Array.of(7, 1), 0, 2), false);
    assert.equal(stage.add(NOTE, Int32Array.of(~7), 0, 1), false, 'same coalescing key, other operation');
    assert.equal(stage.add(ADD, Int32Array.of(7, 1), 0, 2), false, 'it may not pass the other operation');
    assert.equal(stage.add(ADD, Int32Array.of(7, 5), 0, 2), true);
    assert.equal(stage.records, 3);
    assert.deepEqual([...stage.weight.slice(0, 3)], [1, 1, 2]);
    assert.deepEqual([...stage.words.slice(stage.start[2], stage.used)], [recordHeader(3, ADD, 2), 7, 6]);
    stage.clear();
    assert.equal(stage.add(ADD, Int32Array.of(7, 1), 0, 2), false);
  });
});

describe('stage of an object whose code throws', () => {
  it('sends its records unmerged', () => {
    const object = new Ledger(0);
    const stage = new StagingArea(object);
    object.coalesce = () => {
      throw new Error('defect');
    };
    assert.equal(stage.add(ADD, Int32Array.of(1, 1), 0, 2), false);
    assert.equal(stage.add(ADD, Int32Array.of(1, 1), 0, 2), false);
    object.coalesceKey = () => {
      throw new Error('defect');
    };
    assert.equal(stage.add(ADD, Int32Array.of(1, 1), 0, 2), false);
    assert.equal(stage.records, 3);
    assert.equal(stage.failures, 2);
  });
});

describe('reorder buffer', () => {
  it('gives units back in order and holds no more than its bound', () => {
    const buffer = new ReorderBuffer(1000);
    const words = Int32Array.of(1, 2, 3, 4);
    assert.ok(buffer.add(9, 9, words, 0, 4));
    assert.ok(buffer.add(5, 6, words, 1, 2));
    assert.equal(buffer.take(4), null);
    assert.deepEqual(buffer.take(9), { first: 5, last: 6, records: Int32Array.of(2, 3) });
    assert.deepEqual(buffer.take(9)?.records, words);
    assert.equal(buffer.bytes, 0);
    let held = 0;
    while (buffer.add(100 + held, 100 + held, words, 0, 4)) held++;
    assert.ok(held > 5 && buffer.bytes <= 1000);
  });
});

describe('round trip', () => {
  it('slides over its window', () => {
    const roundTrip = new RoundTrip();
    const record = new PeerRecord();
    assert.ok(roundTrip.sample(1, 0, record));
    assert.equal(record.variation, 0.5);
    assert.equal(roundTrip.sample(99, 0.5, record), false, 'too soon');
    for (let i = 0; i < 64; i++) roundTrip.sample(10 + (i % 2), 10 + i, record);
    assert.equal(record.minimum, 10);
    assert.equal(record.average, 10.5);
    assert.equal(record.samples, 65);
    assert.ok(record.smoothed > 9.9 && record.smoothed < 11);
  });

  it('is never expected to be shorter than it was last, also when the delay of the path changes', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 500 }), { maxLength: 200 }), (samples) => {
        const roundTrip = new RoundTrip();
        const record = new PeerRecord();
        for (const [i, ms] of samples.entries()) {
          roundTrip.sample(ms, 10 * i, record);
          assert.ok(record.longestRoundTrip >= ms, `sample ${i}: ${ms} ms, expected ${record.longestRoundTrip}`);
        }
        for (let i = 0; i < 400; i++) roundTrip.sample(20, 10_000 + 10 * i, record);
        assert.ok(record.longestRoundTrip < 22, 'of a steady path it is hardly longer');
      }),
    );
  });
});

describe('replication settings', () => {
  it('puts members in the order of their ids and names what is wrong', () => {
    const members = [
      { id: 9, name: 'b', address: '10.0.0.2', port: 1 },
      { id: 2, name: 'a', address: '10.0.0.1', port: 1 },
    ];
    const base = { clusterId: 1, self: 9, members };
    assert.deepEqual(
      replicationSettings(base).members.map((member) => member.id),
      [2, 9],
    );
    assert.throws(() => replicationSettings({ ...base, self: 3 }), /self/);
    assert.throws(() => replicationSettings({ ...base, mtu: 500 }), /mtu: 500 is not in 1280/);
    assert.throws(() => replicationSettings({ ...base, members: [members[0], members[0]] }), /members.b.id/);
    assert.throws(
      () => replicationSettings({ ...base, members: [{ ...members[0], address: 'host' }] }),
      /members.b.address: host is not an IP address/,
    );
  });

  it('leaves room in the path MTU, also of IPv6', () => {
    assert.equal(messageBytes(testSettings(2, 0)), 1420);
    assert.equal(datagramBytes(testSettings(2, 0)), 1500 - 28);
    const members = [{ id: 1, name: 'a', address: 'fd00::1', port: 1 }];
    assert.equal(messageBytes(replicationSettings({ clusterId: 1, self: 1, members })), 1400);
  });

  it('delays acknowledgements with the group, within a bound', () => {
    assert.equal(groupAckDelayMs(testSettings(2, 0), 2), 2);
    assert.equal(groupAckDelayMs(testSettings(5, 0), 5), 8);
    assert.equal(groupAckDelayMs(testSettings(60, 0), 60), 40);
  });

  it('gives a later life a larger incarnation', () => {
    const start = Date.UTC(2026, 0, 1);
    const first = newIncarnation(start);
    assert.ok(Number.isSafeInteger(first) && newIncarnation(start + 1) > first);
    assert.ok(new Set(Array.from({ length: 100 }, () => newIncarnation(start))).size > 50);
    assert.notEqual(clusterIdOf('a'), clusterIdOf('b'));
  });
});
