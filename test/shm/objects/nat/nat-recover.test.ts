import { strict as assert } from 'node:assert';
import { committedPosition, createLogRing, LogConsumer, recoverLog } from '../../../../shm/log.js';
import { NONE } from '../../../../shm/none.js';
import { createJournals, Journal } from '../../../../shm/objects/core/journal.js';
import { Applied } from '../../../../shm/objects/core/object.js';
import {
  NAT_BIND,
  type NatBinding,
  natBinding,
  portAndProtocol,
  Refusal,
} from '../../../../shm/objects/nat/nat-binding.js';
import { idleExpiry } from '../../../../shm/objects/table/idle-expiry.js';
import { Region } from '../../../../shm/region.js';
import { Countdown, Death, DyingJournal, DyingLog } from '../dying.js';
import { entriesOf } from './nat-model.js';

const UDP = 17;
const NOW = 70_000_000;
const EXTERNAL = 0x010200c0;
const ID = 3;

/** One port, so that whoever binds takes it from whoever had it. */
const definition = natBinding({
  addresses: [EXTERNAL],
  flows: 20,
  portRange: { first: 3000, last: 3001 },
  allocation: 'shared',
});
const swap = (port: number): number => ((port & 0xff) << 8) | (port >>> 8);
const KEY = portAndProtocol(swap(3000), UDP);
const PLACE = (1 << 16) | 3000;

class Mortal {
  readonly region = new Region(new SharedArrayBuffer(definition.bytes));
  readonly countdown = new Countdown();
  private readonly journals = createJournals(2);
  private readonly ring = createLogRing(1 << 12);
  private readonly consumer = new LogConsumer(this.ring);
  readonly object = this.open(1, this.countdown);
  /** Main's own view, by which it recovers. */
  readonly other = this.open(2, new Countdown());

  private open(id: number, countdown: Countdown): NatBinding {
    return definition.open({
      id: ID,
      region: this.region,
      secret: Int32Array.of(1, 2, 3, 4),
      writer: {
        id,
        journal: new DyingJournal(this.journals, id, countdown),
        log: new DyingLog(id === 1 ? this.ring : createLogRing(1 << 12), countdown),
      },
      memberIndex: 0,
      memberCount: 1,
    });
  }

  bind(host: number, now: number): number {
    return this.object.add(this.object.hash(host, KEY), host, KEY, now, now + 60);
  }

  find(host: number, now: number): number {
    return this.other.findOutbound(this.other.hash(host, KEY), host, KEY, now);
  }

  apply(host: number, claim: number, now: number): Applied {
    const words = Int32Array.of(host, KEY, EXTERNAL, PLACE & 0xffff, now, claim << 8, now + 60);
    return this.object.apply(NAT_BIND, words, 0, words.length, 9, now);
  }

  recover(): number {
    const recovered = this.other.recover(1, new Journal(this.journals, 1), committedPosition(this.ring));
    recoverLog(this.ring);
    return recovered;
  }

  records(): number {
    let records = 0;
    while (this.consumer.next()) records++;
    this.consumer.release();
    return records;
  }
}

interface Operation {
  readonly name: string;
  readonly records: number;
  prepare(mortal: Mortal): void;
  run(mortal: Mortal): void;
  /** Whether it has taken place. */
  happened(mortal: Mortal): boolean;
}

const OPERATIONS: readonly Operation[] = [
  {
    name: 'a new binding',
    records: 1,
    prepare: () => {},
    run: (m) => m.bind(7, NOW),
    happened: (m) => m.find(7, NOW) !== NONE,
  },
  {
    name: 'a binding that takes the port of one that is over, and the slots of others',
    records: 1,
    prepare: (m) => {
      for (let host = 1; host <= 2; host++) assert.notEqual(m.bind(host, NOW - 100), NONE);
    },
    run: (m) => m.bind(7, NOW),
    happened: (m) => m.find(7, NOW) !== NONE,
  },
  {
    name: 'a refresh',
    records: 1,
    prepare: (m) => assert.notEqual(m.bind(7, NOW - 30), NONE),
    run: (m) => m.object.refresh(m.find(7, NOW), 1, NOW, 60),
    happened: (m) => m.other.rank(m.find(7, NOW)) === 1 && m.other.expires(m.find(7, NOW)) === idleExpiry(NOW, 60),
  },
  {
    name: 'a renewal',
    records: 1,
    prepare: (m) => {
      m.bind(7, NOW - 30);
      m.object.refresh(m.find(7, NOW), 3, NOW, 50);
    },
    run: (m) => m.object.renew(m.find(7, NOW), NOW, 60),
    happened: (m) => m.other.rank(m.find(7, NOW)) === 0 && m.other.expires(m.find(7, NOW)) === idleExpiry(NOW, 60),
  },
  {
    name: 'a record of another instance',
    records: 0,
    prepare: () => {},
    run: (m) => m.apply(7, 1, NOW),
    happened: (m) => m.find(7, NOW) !== NONE,
  },
  {
    name: 'a record that kills a binding for its port',
    records: 0,
    prepare: (m) => {
      assert.equal(m.apply(7, 1, NOW), Applied.CHANGED);
    },
    run: (m) => m.apply(9, 1, NOW),
    happened: (m) => m.find(9, NOW) !== NONE && m.find(7, NOW) === NONE,
  },
  {
    name: 'reclaiming what is over',
    records: 0,
    prepare: (m) => {
      m.bind(7, NOW - 150);
    },
    run: (m) => m.object.sweep(NOW, 100),
    happened: (m) => entriesOf(m.other, NOW - 100).length === 0,
  },
];

describe('nat binding after a writer died', () => {
  for (const operation of OPERATIONS)
    it(`has ${operation.name} whole or not at all, at every step`, () => {
      let deaths = 0;
      for (let step = 1; ; step++) {
        const mortal = new Mortal();
        operation.prepare(mortal);
        mortal.recover();
        mortal.records();
        const before = mortal.other.digest(NOW - 100, true);
        const states = entriesOf(mortal.other, NOW - 100);
        mortal.countdown.set(step);
        let died = false;
        try {
          operation.run(mortal);
        } catch (error) {
          if (!(error instanceof Death)) throw error;
          died = true;
        }
        mortal.countdown.clear();
        mortal.recover();
        assert.equal(mortal.other.locksHeld(), 0, `step ${step}: a lock is held`);
        assert.equal(mortal.recover(), 0, `step ${step}: recovered twice`);
        const happened = operation.happened(mortal);
        const records = mortal.records();
        if (!happened) {
          assert.deepEqual(entriesOf(mortal.other, NOW - 100), states, `step ${step}: half done`);
          assert.equal(mortal.other.digest(NOW - 100, true), before);
        }
        assert.equal(records, happened ? operation.records : 0, `step ${step}: what is in the log has happened`);
        // Another thread can go on where the dead one was.
        const slot = mortal.other.add(mortal.other.hash(8, KEY), 8, KEY, NOW, NOW + 60);
        assert.ok(slot !== NONE || mortal.other.refusal === 1, `step ${step}: ${mortal.other.refusal}`);
        if (!died) {
          assert.ok(happened);
          break;
        }
        deaths++;
      }
      assert.ok(deaths > 5);
    });

  it('is refused, and counted, while a dead writer still has the lock; nothing hangs', () => {
    const mortal = new Mortal();
    mortal.bind(7, NOW - 30);
    const slot = mortal.find(7, NOW);
    mortal.countdown.set(8);
    assert.throws(() => mortal.object.refresh(slot, 1, NOW, 60), Death);
    mortal.countdown.clear();
    assert.ok(mortal.other.locksHeld() > 0);
    assert.equal(mortal.find(7, NOW), slot, 'reading goes on');
    assert.equal(mortal.other.refresh(slot, 1, NOW, 60), false);
    const late = NOW + 100;
    assert.equal(mortal.other.add(mortal.other.hash(7, KEY), 7, KEY, late, late + 60), NONE);
    assert.equal(mortal.other.refusal, Refusal.CONTENDED);
    assert.equal(mortal.other.describe(NOW)['contended'], 2);
    const record = Int32Array.of(7, KEY, EXTERNAL, PLACE & 0xffff, NOW + 1, 9 << 8, NOW + 61);
    const apply = (): Applied => mortal.other.apply(NAT_BIND, record, 0, record.length, 9, NOW);
    assert.equal(apply(), Applied.BUSY, 'it is to come again');
    assert.ok(mortal.recover() > 0);
    assert.equal(apply(), Applied.CHANGED);
    assert.equal(mortal.other.add(mortal.other.hash(7, KEY), 7, KEY, late, late + 60), slot);
  });

  it('keeps its hands off an operation of another object', () => {
    const mortal = new Mortal();
    mortal.countdown.set(9);
    assert.throws(() => mortal.bind(7, NOW), Death);
    const journal = new Journal(createJournals(1), 1);
    journal.open(1, ID + 1, 0);
    assert.equal(mortal.other.recover(1, journal, 0), 0);
    assert.notEqual(journal.state, 0);
  });
});
