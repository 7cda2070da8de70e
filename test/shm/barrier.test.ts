import { strict as assert } from 'node:assert';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { BarrierError } from '../../shm/barrier.js';
import { Control, createControl, ThreadState } from '../../shm/control.js';
import type { BarrierTask, Behaviour } from './barrier-thread.js';

class Crew {
  readonly control: Control;
  readonly words: Int32Array;
  private readonly behaviours: readonly Behaviour[];
  private readonly workers: Worker[];

  constructor(...behaviours: Behaviour[]) {
    const threads = behaviours.length;
    const control = createControl(threads);
    const words = new SharedArrayBuffer((2 * threads + 1) * 4);
    this.behaviours = behaviours;
    this.control = new Control(control);
    this.words = new Int32Array(words);
    this.workers = behaviours.map((behaviour, thread) => {
      const task: BarrierTask = { thread, behaviour, control, words, threads };
      const worker = new Worker(new URL('barrier-thread.js', import.meta.url), { workerData: task });
      worker.on('error', () => {});
      return worker;
    });
  }

  async ready(): Promise<this> {
    while (this.behaviours.some((_, thread) => this.control.state(thread) !== ThreadState.READY)) await sleep(2);
    return this;
  }

  meet<T>(action: () => T, discard: (result: T) => void = () => {}): T {
    const last = this.behaviours.indexOf('last');
    return this.control.meet(last, (thread) => `${thread} (${this.behaviours[thread]})`, action, discard).result;
  }

  /**
   * On a busy machine a thread may be kept from its core for longer than packets are to stand
   * still: then once more.
   */
  async meetAtLast(action: () => void): Promise<void> {
    for (let tries = 1; ; tries++) {
      try {
        return this.meet(action);
      } catch (error) {
        if (!(error instanceof BarrierError) || tries === 200) throw error;
        await sleep(5);
      }
    }
  }

  /** Whether every thread's two words are equal. */
  get whole(): boolean {
    return this.behaviours.every((_, thread) => this.words[2 * thread] === this.words[2 * thread + 1]);
  }

  /** Waits until every thread has made a step since. */
  async moves(
    threads = this.behaviours.map((_, thread) => thread).filter((t) => this.behaviours[t] !== 'last'),
  ): Promise<void> {
    const before = this.words.slice();
    while (threads.some((thread) => this.words[2 * thread + 1] === before[2 * thread + 1])) await sleep(1);
  }

  async end(): Promise<void> {
    Atomics.store(this.words, this.words.length - 1, 1);
    await Promise.all(this.workers.map(async (worker) => worker.threadId === -1 || (await once(worker, 'exit'))));
  }
}

function busyWait(ms: number): void {
  for (const until = performance.now() + ms; performance.now() < until; );
}

describe('the barrier', () => {
  let crew: Crew;
  afterEach(() => crew.end());

  it('holds everybody between two steps, the last thread after all others, and lets them go', async () => {
    crew = await new Crew('rounds', 'naps', 'events', 'last').ready();
    const last = 3;
    for (let meetings = 0; meetings < 20; meetings++) {
      await crew.moves();
      await crew.meetAtLast(() => {
        const before = crew.words.slice();
        assert.ok(crew.whole);
        busyWait(3);
        assert.deepEqual(crew.words, before, 'nothing moved');
        assert.equal(
          before[2 * last],
          before.subarray(0, 2 * last).reduce((sum, word) => sum + word, 0),
          'it settled after all others stood',
        );
      });
    }
  });

  it('does not wait for a thread that sleeps, nor does that one go on before the end', async () => {
    crew = await new Crew('naps', 'last').ready();
    await crew.moves();
    await crew.meetAtLast(() => {
      const before = crew.words.slice();
      busyWait(20); // many naps long
      assert.deepEqual(crew.words, before);
    });
    await crew.moves();
  });

  it('gives up on a thread that does not come, names it, and holds nobody for it', async () => {
    crew = await new Crew('rounds', 'deaf', 'last').ready();
    await crew.moves();
    let acted = false;
    assert.throws(
      () => crew.meet(() => (acted = true)),
      (error: unknown) =>
        error instanceof BarrierError && /thread [01] \((deaf|rounds)\) did not come to rest/.test(error.message),
    );
    assert.ok(!acted);
    await crew.moves();
  });

  it('gives up on one that dies on the way', async () => {
    crew = await new Crew('rounds', 'dies', 'last').ready();
    await crew.moves();
    let acted = false;
    assert.throws(() => crew.meet(() => (acted = true)), BarrierError);
    assert.ok(!acted);
    await crew.moves([0]);
  });

  it('is not held without every thread in its place', async () => {
    crew = await new Crew('rounds', 'last').ready();
    crew.control.setState(0, ThreadState.FAILED);
    assert.throws(() => crew.meet(() => {}), /thread 0 \(rounds\) is failed/);
    crew.control.setState(0, ThreadState.READY);
    crew.control.setState(1, ThreadState.STARTING);
    assert.throws(() => crew.meet(() => {}), /thread 1 \(last\) is starting/);
    crew.control.setState(1, ThreadState.READY);
    await crew.moves();
  });

  it('says so when a thread would not wait any longer: the result is discarded', async () => {
    crew = await new Crew('rounds', 'last').ready();
    await crew.moves();
    let discarded: unknown = null;
    for (let tries = 0; discarded === null && tries < 50; tries++)
      assert.throws(
        () =>
          crew.meet(
            () => {
              busyWait(2_300);
              return 'a copy';
            },
            (result) => {
              discarded = result;
            },
          ),
        BarrierError,
      );
    assert.equal(discarded, 'a copy');
    await crew.moves();
  });
});
