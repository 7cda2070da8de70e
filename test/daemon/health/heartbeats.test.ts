import { strict as assert } from 'node:assert';
import { Heartbeats } from '../../../daemon/health/heartbeats.js';
import { Control, createControl, ThreadState } from '../../../shm/control.js';

describe('the heartbeats of all threads', () => {
  it('are missed when one thread that runs shows none, and not of one that has died', () => {
    const control = new Control(createControl(3));
    const heartbeats = new Heartbeats(control);
    const beat = (...threads: number[]): boolean => {
      for (const thread of threads) control.beat(thread);
      return heartbeats.look();
    };
    assert.ok(beat(), 'none has started');
    for (const thread of [0, 1, 2]) control.setState(thread, ThreadState.READY);
    assert.ok(beat(), 'they have just become ready');
    assert.ok(beat(0, 1, 2));
    assert.equal(beat(0, 2), false, 'the second hangs');
    assert.ok(beat(0, 1, 2));
    control.setState(1, ThreadState.FAILED);
    assert.ok(beat(0, 2));
    control.setState(1, ThreadState.READY);
    assert.ok(beat(0, 2), 'it has just become ready again');
    assert.equal(beat(0, 2), false);
  });
});
