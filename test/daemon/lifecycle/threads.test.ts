import { strict as assert } from 'node:assert';
import { type Slot, type SupervisorOptions, ThreadSupervisor } from '../../../daemon/lifecycle/threads.js';
import { Control, createControl, Phase, ThreadState } from '../../../shm/control.js';
import type { SupervisedTask } from './supervised-thread.js';

const FILE = new URL('./supervised-thread.js', import.meta.url);

interface BedOptions extends Pick<SupervisedTask, 'startMs'> {
  readonly restartable?: boolean;
  readonly failAtStart?: boolean;
  readonly file?: URL;
}

class Bed {
  readonly buffer = createControl(2);
  readonly control = new Control(this.buffer);
  readonly words = [new SharedArrayBuffer(16), new SharedArrayBuffer(16)];
  readonly events: string[] = [];
  readonly recovered: string[] = [];
  readonly fatal: Error[] = [];
  readonly supervisor: ThreadSupervisor;
  /** The supervisor reads `readyTimeoutMs` anew each time. */
  readonly options: SupervisorOptions & { readyTimeoutMs?: number };

  constructor(options: BedOptions = {}) {
    const slots = this.words.map((words, thread): Slot => {
      const task: SupervisedTask = {
        thread,
        control: this.buffer,
        words,
        failAtStart: options.failAtStart ?? false,
        ...(options.startMs && { startMs: options.startMs }),
      };
      return { thread, name: `t${thread}`, task, restartable: options.restartable ?? true };
    });
    this.options = {
      file: options.file ?? FILE,
      slots,
      control: this.control,
      recover: (slot) => this.recovered.push(slot.name),
      onEvent: (_, text) => this.events.push(text),
      onFatal: (error) => this.fatal.push(error),
      stuckMs: 400,
    };
    this.supervisor = new ThreadSupervisor(this.options);
  }

  view(thread: number): Int32Array {
    return new Int32Array(this.words[thread]);
  }

  order(thread: number, what: number): void {
    Atomics.store(this.view(thread), 0, what);
    Atomics.notify(this.view(thread), 0);
  }

  lives(thread: number): number {
    return Atomics.load(this.view(thread), 2);
  }

  async stop(): Promise<void> {
    this.control.setPhase(Phase.STOP);
    await this.supervisor.stop();
  }
}

async function until(what: string, condition: () => boolean): Promise<void> {
  for (let i = 0; i < 2000; i++) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.fail(`never happened: ${what}`);
}

describe('thread supervisor', () => {
  it('starts every slot and stops them by the phase', async () => {
    const bed = new Bed();
    await bed.supervisor.start();
    assert.equal(bed.control.state(0), ThreadState.READY);
    assert.equal(bed.control.state(1), ThreadState.READY);
    await bed.stop();
    assert.equal(bed.control.state(0), ThreadState.STOPPED);
    assert.deepEqual(bed.events, []);
  });

  it('recovers and starts again a thread that throws; the other runs on', async () => {
    const bed = new Bed();
    await bed.supervisor.start();
    const { worker } = bed.control.place(0);
    bed.order(0, 1);
    await until('second life', () => bed.lives(0) === 2 && bed.control.state(0) === ThreadState.READY);
    assert.deepEqual(bed.recovered, ['t0']);
    assert.match(bed.events[0], /starting thread t0 again in 50 ms; it died: Error: told to fail/);
    assert.equal(bed.control.restarts(0), 1);
    assert.equal(bed.lives(1), 1);
    assert.notEqual(
      bed.control.place(0).worker,
      worker,
      'in a thread of its own: the old one and what it had open are gone',
    );
    await bed.stop();
  });

  it('ends a thread that shows no heartbeat, even in an endless loop', async () => {
    const bed = new Bed();
    await bed.supervisor.start();
    bed.order(1, 2);
    await until('second life', () => bed.lives(1) === 2);
    assert.deepEqual(bed.recovered, ['t1']);
    assert.ok(bed.events.some((text) => text.includes('t1 again in 50 ms; it showed no heartbeat')));
    await bed.stop();
  });

  it('restarts a thread on request', async () => {
    const bed = new Bed();
    await bed.supervisor.start();
    await bed.supervisor.restart(0);
    await until('second life', () => bed.lives(0) === 2 && bed.control.state(0) === ThreadState.READY);
    assert.deepEqual(bed.recovered, ['t0']);
    await bed.stop();
  });

  it('restarts a thread on request at once, however often it failed before', async () => {
    const bed = new Bed();
    await bed.supervisor.start();
    for (let failure = 1; failure <= 4; failure++) {
      bed.order(0, 1);
      await until('it has failed', () => bed.events.length === failure);
      if (failure < 4) await until('it runs again', () => bed.lives(0) === failure + 1);
    }
    // It waits for 400 ms now.
    await bed.supervisor.restart(0);
    const isReady = (): boolean => bed.lives(0) >= 5 && bed.control.state(0) === ThreadState.READY;
    await until('it runs again', isReady);
    await bed.supervisor.restart(0);
    await until('it was ended', () => /ended as asked/.test(bed.events.at(-1) ?? ''));
    const backOffs = bed.events.map((text) => /in (\d+) ms/.exec(text)?.[1]);
    assert.deepEqual(backOffs.slice(0, 4), ['50', '100', '200', '400']);
    assert.ok(backOffs.length > 4 && backOffs.slice(4).every((ms) => ms === '50'), backOffs.join());
    await bed.stop();
  });

  it('says why a thread did not start', async () => {
    const bed = new Bed({ failAtStart: true });
    await assert.rejects(bed.supervisor.start(), /^Error: thread t[01] did not start: no such interface$/);
    await bed.stop();
  });

  it('says why the module does not load, before any thread is asked to run it', async () => {
    const bed = new Bed({ file: new URL('../no-such-module.js', import.meta.url) });
    await assert.rejects(bed.supervisor.start(), /Cannot find module/);
    await bed.stop();
  });

  it('says that it was stopped while starting', async () => {
    const bed = new Bed();
    const starting = bed.supervisor.start();
    const stopped = bed.stop();
    await assert.rejects(starting, /stopped while threads were starting/);
    await stopped;
  });

  it('calls a thread that may not be replaced fatal', async () => {
    const bed = new Bed({ restartable: false });
    await bed.supervisor.start();
    bed.order(0, 1);
    await until('fatal', () => bed.fatal.length === 1);
    assert.match(bed.fatal[0].message, /thread t0 cannot be replaced; it died/);
    assert.deepEqual(bed.recovered, []);
    await bed.stop();
  });

  for (const startMs of [
    [200, 0],
    [0, 200],
  ] as const)
    for (const [when, state] of [
      ['has just died', ThreadState.FAILED],
      ['is starting again', ThreadState.STARTING],
      ['runs', ThreadState.READY],
    ] as const)
      it(`replaces a thread that ${when}; it takes ${startMs[0]} ms to say which worker it is, and ${startMs[1]} ms more`, async () => {
        const bed = new Bed({ startMs });
        await bed.supervisor.start();
        bed.order(0, 1);
        await until('death', () => bed.control.state(0) !== ThreadState.READY);
        // A slow machine may miss the moment: then it runs already.
        await until(when, () => bed.control.state(0) === state || bed.lives(0) === 2);
        let calls = 0;
        await bed.supervisor.replace([0, 1], 'was ended to be replaced', async () => {
          calls++;
          const rounds = [0, 1].map((thread) => bed.view(thread)[1]);
          await new Promise((resolve) => setTimeout(resolve, 30));
          assert.deepEqual(
            [0, 1].map((thread) => bed.view(thread)[1]),
            rounds,
            'no thread runs meanwhile',
          );
        });
        assert.equal(calls, 1);
        assert.deepEqual(
          [0, 1].map((thread) => bed.control.state(thread)),
          [ThreadState.READY, ThreadState.READY],
        );
        assert.deepEqual(bed.fatal, []);
        await bed.stop();
      });

  it('does not wait without end for a thread that cannot be ended', async () => {
    const bed = new Bed();
    await bed.supervisor.start();
    bed.options.readyTimeoutMs = 100;
    bed.control.setPlace(0, { core: -1, tid: 0, worker: -1 });
    let called = false;
    await assert.rejects(
      bed.supervisor.replace([0], 'was ended to be replaced', () => {
        called = true;
      }),
      /^Error: thread t0 could not be ended in 100 ms$/,
    );
    assert.equal(called, false);
    await bed.stop();
  });

  it('refuses to replace a thread that is over', async () => {
    const bed = new Bed({ restartable: false });
    await bed.supervisor.start();
    bed.order(0, 1);
    await until('fatal', () => bed.fatal.length === 1);
    await assert.rejects(
      bed.supervisor.replace([0], 'was ended to be replaced', () => {}),
      /^Error: thread t0 has ended for good$/,
    );
    await bed.stop();
  });

  it('ends a thread that hangs while it starts again', async () => {
    const bed = new Bed();
    await bed.supervisor.start();
    bed.options.readyTimeoutMs = 1000;
    bed.order(0, 3);
    await until('third life', () => bed.events.some((text) => text.includes('it did not become ready in time')));
    await until('ready', () => bed.control.state(0) === ThreadState.READY);
    assert.ok(bed.recovered.length >= 2);
    await bed.stop();
  });
});
