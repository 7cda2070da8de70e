import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import {
  CHANGES,
  type Facts,
  LIFECYCLE_STATES,
  Lifecycle,
  type Problem,
  STATE_TRAITS,
} from '../../../daemon/lifecycle/lifecycle.js';
import { PROJECT } from '../../testbed/compile.js';

const PORT: Problem = { kind: 'port', text: 'port left is unusable' };
const THREAD: Problem = { kind: 'thread', text: 'thread worker-0 is down' };
const READY: Facts = { entry: 'entered', isDraining: false, hasStopped: false, problems: [] };

function watched(): { lifecycle: Lifecycle; events: string[]; errors: string[] } {
  const events: string[] = [];
  const errors: string[] = [];
  const lifecycle = new Lifecycle({
    runHook: async (event, reason) => void events.push(reason === '' ? event : `${event}: ${reason}`),
    onChange: () => {},
    onError: (text) => errors.push(text),
  });
  return { lifecycle, events, errors };
}

describe('the lifecycle of an instance', () => {
  it('has no hook for a change that cannot happen, and no way back from its end', () => {
    for (const state of LIFECYCLE_STATES) {
      assert.equal(CHANGES[state][state], null);
      assert.equal(CHANGES.left[state], null);
      assert.equal(CHANGES[state].starting, null);
    }
    assert.deepEqual(
      LIFECYCLE_STATES.filter((state) => STATE_TRAITS[state].takesPackets),
      ['ready', 'degraded', 'draining'],
    );
  });

  it('is told as it is in docs/health.md', () => {
    const text = readFileSync(join(PROJECT, 'docs/health.md'), 'utf8');
    for (const state of LIFECYCLE_STATES) {
      const { help, exitCode } = STATE_TRAITS[state];
      assert.ok(text.includes(`| \`${state}\` | ${help} | ${exitCode} |`), state);
    }
  });

  it('does not become degraded by what is over in a moment', async () => {
    const { lifecycle, events } = watched();
    await lifecycle.update(READY, 0);
    for (let now = 0; now < 2900; now += 100) await lifecycle.update({ ...READY, problems: [THREAD] }, now);
    for (let now = 2900; now < 9000; now += 100) await lifecycle.update(READY, now);
    assert.deepEqual(events, ['ready']);
  });

  it('stays degraded while a thread fails again and again', async () => {
    const { lifecycle, events } = watched();
    await lifecycle.update(READY, 0);
    for (let now = 0; now < 20_000; now += 100)
      await lifecycle.update({ ...READY, problems: now % 2500 < 300 ? [THREAD] : [] }, now);
    assert.equal(lifecycle.state, 'degraded');
    for (let now = 20_000; now < 24_000; now += 100) await lifecycle.update(READY, now);
    assert.deepEqual(events, ['ready', 'degraded: thread worker-0 is down', 'recovered']);
  });

  it('is ready, not recovered, when something was wrong from the start', async () => {
    const { lifecycle, events } = watched();
    for (let now = 0; now < 2000; now += 100)
      await lifecycle.update({ ...READY, entry: 'joining', problems: [PORT] }, now);
    await lifecycle.update({ ...READY, problems: [PORT] }, 2000);
    for (let now = 2000; now < 6000; now += 100) await lifecycle.update(READY, now);
    assert.deepEqual(events, ['degraded: port left is unusable', 'ready']);
  });

  it('runs hooks in an order that announces and withdraws a route by turns, whatever happens', async () => {
    const fact = fc.record({
      entry: fc.constantFrom(null, 'waiting' as const, 'joining' as const, 'entered' as const),
      isDraining: fc.nat(20).map((n) => n === 0),
      hasStopped: fc.nat(40).map((n) => n === 0),
      problems: fc.subarray([PORT, THREAD]),
      ms: fc.nat(2000),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(fact, { maxLength: 60 }), async (facts) => {
        const { lifecycle, events, errors } = watched();
        // What has begun is not taken back.
        const order = [null, 'waiting', 'joining', 'entered'] as const;
        let [now, entry, isDraining, hasStopped] = [0, 0, false, false];
        for (const each of facts) {
          now += each.ms;
          const next = order.indexOf(each.entry);
          if (entry < 3 && (entry === 0 || next > 0)) entry = next;
          isDraining ||= each.isDraining || each.hasStopped;
          hasStopped ||= each.hasStopped;
          const before = events.length;
          await lifecycle.update({ entry: order[entry], isDraining, hasStopped, problems: each.problems }, now);
          assert.ok(events.length - before <= 1);
        }
        assert.deepEqual(errors, []);
        const names = events.map((event) => event.replace(/:.*/, ''));
        assert.match(names.join(' '), /^(degraded( |$))?(ready( degraded recovered)*( degraded)?)?( ?drain)?$/);
      }),
    );
  });
});
