import { strict as assert } from 'node:assert';
import { Phase } from '../../../shm/control.js';
import { LogConsumer } from '../../../shm/log.js';
import type { Metric } from '../../../shm/metrics.js';
import { defineMiddlebox, type Middlebox, type OpenArguments } from '../../../workers/api/middlebox.js';
import { LINES_IN_A_BURST, LINES_PER_SECOND } from '../../../workers/api/middlebox-log.js';
import { declareChain, openProcesses } from '../../../workers/plane/chain.js';
import type { IdleMode } from '../../../workers/plane/idle.js';
import { on, Plane } from '../support/plane.js';

type Open = OpenArguments<Record<string, never>, Record<string, never>, Record<string, never>, Record<string, never>>;

/** A plane with a middlebox that does in `open` what the test wants. */
function opened(open: (open: Open) => void, worker = 0, idle: IdleMode = 'spin'): Plane {
  const ticking = defineMiddlebox({
    name: 'ticking',
    help: 'Has timers.',
    options: {},
    counters: {},
    state: () => ({}),
    open: (given) => {
      open(given as never);
      return () => {};
    },
  });
  const declaration = declareChain([{ middlebox: ticking as unknown as Middlebox, options: {} }]);
  const metrics: Metric[] = [...declaration.metrics];
  const plane = new Plane({ metrics, idle });
  plane.open(openProcesses(declaration, [], { ...plane.context, worker }));
  return plane;
}

describe('timers', () => {
  it('run every so many seconds while no packets come, and do not drift', () => {
    const runs: number[] = [];
    const plane = opened(({ every }) => every(1, () => void runs.push(plane.nowMs)));
    const start = plane.nowMs;
    plane.idle(10_000, 70);
    assert.equal(runs.length, 10);
    for (const [n, at] of runs.entries()) {
      const lateMs = at - start - (n + 1) * 1000;
      assert.ok(lateMs >= 0 && lateMs < 140, `turn ${n} ran ${lateMs} ms late`);
    }
    assert.deepEqual(plane.counts(), { timer_runs: 10 });
  });

  it('run between batches, one a round', () => {
    const order: string[] = [];
    const plane = opened(({ every }) => {
      every(1, () => void order.push('a'));
      every(1, () => void order.push('b'));
    });
    plane.nowMs += 1001;
    plane.driver.inject(0, on(0, 'udp 10.0.0.5:1 > 8.8.8.8:2').frame);
    plane.dataPlane.doWork();
    assert.deepEqual(order, ['a']);
    plane.driver.inject(0, on(0, 'udp 10.0.0.5:1 > 8.8.8.8:2').frame);
    plane.dataPlane.doWork();
    assert.deepEqual(order, ['a', 'b']);
  });

  it('all run between two sleeps of a worker without packets, however many there are', () => {
    const TIMERS = 30;
    const plane = opened(
      ({ every }) => {
        for (let n = 0; n < TIMERS; n++) every(0.1, () => {});
      },
      0,
      'sleep',
    );
    let sleeps = 0;
    plane.driver.wait = () => {
      plane.nowMs += 100;
      if (++sleeps === 50) plane.control.setPhase(Phase.QUIET);
    };
    plane.dataPlane.run();
    assert.deepEqual(plane.counts(), { timer_runs: 49 * TIMERS + 1 });
  });

  it('follow the monotonic clock, not the wall clock', () => {
    let runs = 0;
    const plane = opened(({ every }) => every(1, () => void runs++));
    plane.nowMs -= 3_600_000;
    plane.steppedMs -= 3_600_000;
    plane.idle(2000);
    assert.equal(runs, 2);
    plane.nowMs += 7_200_000;
    plane.steppedMs += 7_200_000;
    plane.idle(2000);
    assert.equal(runs, 4);
  });

  it('miss turns rather than make up for them, and say so', () => {
    let runs = 0;
    const plane = opened(({ every }) => every(1, () => void runs++));
    plane.nowMs += 10_500;
    plane.idle(1000);
    assert.equal(runs, 2);
    assert.deepEqual(plane.counts(), { timer_runs: 2, timer_missed: 9 });
  });

  it('run on every worker, or on one', () => {
    const ran: string[] = [];
    for (const worker of [0, 1, 2])
      opened(({ every }) => {
        every(1, () => void ran.push(`every ${worker}`));
        every(1, () => void ran.push(`one ${worker}`), { on: 'one' });
      }, worker).idle(1100);
    assert.deepEqual(ran, ['every 0', 'one 0', 'every 1', 'every 2']);
  });

  it('show what they logged to the send thread', () => {
    const plane = opened(({ every }) =>
      every(1, () => {
        plane.log.claim(0, 1, 1);
        plane.log.commit();
      }),
    );
    const consumer = new LogConsumer(plane.logBuffer);
    const before = plane.control.bell;
    plane.idle(1100);
    assert.equal(consumer.backlog, 2);
    assert.equal(plane.control.bell, before + 1);
  });

  it('end the worker with what they throw, and it is said whose it was', () => {
    const plane = opened(({ every }) =>
      every(1, () => {
        throw new TypeError('no such flow');
      }),
    );
    assert.throws(
      () => plane.idle(1100),
      ({ message, stack }: Error) =>
        message === 'middlebox ticking: a timer failed: no such flow' && /timers\.test/.test(stack ?? ''),
    );
  });

  it('are made in open alone, and of a length a worker can hold', () => {
    let late: Open['every'] = () => {};
    opened(({ every }) => {
      late = every;
    });
    assert.throws(() => late(1, () => {}), /timers are made while the middlebox is being opened/);
    assert.throws(
      () => opened(({ every }) => every(1, async () => {})),
      /a timer is an async function: a worker never/,
    );
    for (const seconds of [0, 0.05, -1, Number.NaN, 100_000])
      assert.throws(
        () => opened(({ every }) => every(seconds, () => {})),
        /middlebox ticking could not be opened: every .* seconds: from 0\.1 to 86400 are possible/,
      );
  });
});

describe('the log of middleboxes', () => {
  it('carries text and fields to main', () => {
    const plane = opened(({ log }) => {
      assert.ok(log.info('opened', { flows: 3, site: 'a', nested: { on: true } }));
      assert.ok(log.warn('half\0full'));
    });
    assert.deepEqual(plane.logged.read(), [
      { level: 'info', text: 'ticking: opened', fields: { ticking: { flows: 3, site: 'a', nested: { on: true } } } },
      { level: 'warn', text: 'ticking: half full' },
    ]);
  });

  it('takes so many lines and counts the rest', () => {
    const plane = opened(({ log }) => {
      let taken = 0;
      for (let n = 0; n < 10 * LINES_IN_A_BURST; n++) if (log.info(`line ${n}`)) taken++;
      assert.ok(taken >= LINES_IN_A_BURST && taken <= LINES_IN_A_BURST + LINES_PER_SECOND, `${taken}`);
      assert.equal(log.info('too long', { text: 'x'.repeat(4000) }), false);
    });
    const lines = plane.logged.read().length;
    assert.equal(plane.counts()['log_suppressed'], 10 * LINES_IN_A_BURST + 1 - lines);
  });
});

describe('a middlebox that throws', () => {
  it('is named, with the place in its own file', () => {
    const plane = new Plane();
    plane.open([
      { name: 'first', process: () => {} },
      {
        name: 'guard',
        process: () => {
          throw new Error('boom');
        },
      },
    ]);
    assert.throws(
      () => plane.pass(on(0, 'udp 10.0.0.5:1 > 8.8.8.8:2')),
      ({ message, stack }: Error) =>
        message === 'middlebox guard failed on a batch of 1 packets: boom' && /timers\.test/.test(stack ?? ''),
    );
  });
});
