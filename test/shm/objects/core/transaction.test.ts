import { strict as assert } from 'node:assert';
import { committedPosition, createLogRing, LogProducer } from '../../../../shm/log.js';
import { NONE } from '../../../../shm/none.js';
import { createJournals, Journal } from '../../../../shm/objects/core/journal.js';
import { recoverTransaction, Transaction } from '../../../../shm/objects/core/transaction.js';
import { Countdown, Death, DyingJournal, DyingLog } from '../dying.js';

const OBJECT = 4;

function start() {
  const words = new Int32Array(new SharedArrayBuffer(64));
  const journals = createJournals(2);
  const ring = createLogRing(1);
  const countdown = new Countdown();
  const writer = { id: 1, journal: new DyingJournal(journals, 1, countdown), log: new DyingLog(ring, countdown) };
  const tx = new Transaction(words, OBJECT, writer);
  const recover = (): number => recoverTransaction(words, OBJECT, 1, new Journal(journals, 1), committedPosition(ring));
  return { words, countdown, tx, recover };
}

/** Two locks, one word changed twice, one once. */
function change(tx: Transaction): void {
  assert.ok(tx.lock(0) && tx.lock(1));
  tx.set(4, 10);
  tx.set(4, 11);
  tx.set(5, 12);
}

describe('transaction', () => {
  it('puts old words back when it is aborted, at whatever step the writer dies', () => {
    for (let step = 1; ; step++) {
      const { words, countdown, tx, recover } = start();
      countdown.set(step);
      let died = true;
      try {
        assert.notEqual(tx.beginLogged(1, 2), NONE);
        change(tx);
        tx.abort();
        died = false;
      } catch (error) {
        if (!(error instanceof Death)) throw error;
      }
      countdown.clear();
      // Another thread takes what has been let go already, before main comes to mend.
      if ((words[0] & 0xff) === 0) words[4] = 77;
      const expected = words[4] === 77 ? 77 : 0;
      recover();
      assert.deepEqual([...words.subarray(0, 6)], [0, 0, 0, 0, expected, 0], `step ${step}`);
      if (!died) break;
    }
  });

  it('mends what an error left under way, before the next operation of that thread on whichever object', () => {
    for (const logged of [true, false]) {
      const journals = createJournals(1);
      const writer = { id: 1, journal: new Journal(journals, 1), log: new LogProducer(createLogRing(1)) };
      const [words, others] = [0, 1].map(() => new Int32Array(new SharedArrayBuffer(64)));
      const tx = new Transaction(words, OBJECT, writer);
      const other = new Transaction(others, OBJECT + 1, writer);
      if (logged) tx.beginLogged(1, 2);
      else tx.begin();
      change(tx);
      // Here the operation is left, as by an error.
      if (logged) other.begin();
      else other.beginLogged(1, 2);
      assert.deepEqual([...words], new Array(16).fill(0));
      change(other);
      other.commit();
      assert.deepEqual([...others.subarray(0, 6)], [0, 0, 0, 0, 11, 12]);
      assert.equal(writer.journal.state, 0);
    }
    const stranger = { id: 1, journal: new Journal(createJournals(1), 1), log: null };
    stranger.journal.open(1, OBJECT + 2, 0);
    const tx = new Transaction(new Int32Array(new SharedArrayBuffer(64)), OBJECT, stranger);
    assert.throws(() => tx.begin(), /object 6 is under way/);
  });

  it('lets another in only when it is over, and takes a lock it has only once', () => {
    const { words, tx } = start();
    const other = new Transaction(words, OBJECT, {
      id: 2,
      journal: new Journal(createJournals(2), 2),
      log: null,
    });
    tx.begin();
    change(tx);
    assert.ok(tx.tryLock(0));
    other.begin();
    assert.equal(other.lock(0), false);
    other.abort();
    tx.commit();
    other.begin();
    assert.ok(other.lock(0));
    other.unlockLast();
    other.commit();
    assert.deepEqual([...words.subarray(0, 6)], [0, 0, 0, 0, 11, 12]);
    assert.throws(() => other.beginLogged(1, 1), /no log/);
    assert.throws(
      () => new Transaction(words, OBJECT, { id: 255, journal: new Journal(createJournals(1), 1), log: null }),
      /255/,
    );
    assert.throws(() => new Journal(createJournals(2), 3), /writer 3/);
  });
});
