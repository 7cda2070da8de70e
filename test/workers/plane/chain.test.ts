import { strict as assert } from 'node:assert';
import { option } from '../../../options/option.js';
import { Arena, createArena, layoutArena } from '../../../shm/arena.js';
import { Applied, type OpenContext, type StateDefinition, type StateObject } from '../../../shm/objects/core/object.js';
import { counter } from '../../../shm/objects/counting/counters.js';
import { countMin } from '../../../shm/objects/sketch/count-min.js';
import { defineMiddlebox, type Middlebox, type SharedState } from '../../../workers/api/middlebox.js';
import { declareChain, openProcesses, openState } from '../../../workers/plane/chain.js';
import { on, Plane } from '../support/plane.js';

interface Opened extends StateObject {
  readonly context: OpenContext;
}

/** A state object of so many bytes that only remembers how it was opened. */
function object(bytes: number): StateDefinition<Opened> {
  return {
    kind: 'test',
    parameters: { bytes },
    bytes,
    open: (context) => ({
      context,
      id: context.id,
      delivery: 'any-order',
      apply: () => Applied.UNCHANGED,
      coalesceKey: () => 0,
      coalesce: () => false,
      digest: () => '0'.repeat(16),
      recover: () => 0,
      describe: () => ({}),
    }),
  };
}

const seen: string[] = [];

const first = defineMiddlebox({
  name: 'first',
  help: 'Drops every second packet.',
  options: { size: option.count('bytes', 64), to: option.port('where to') },
  counters: { odd: 'dropped: every second', even: 'the others' },
  state: ({ size }) => ({ a: object(size), b: object(128) }),
  open: ({ options, state, counters, batch, otherPort }) => {
    seen.push(`first opened ${state.a.id} ${state.b.id} to ${options.to}, opposite ${otherPort(options.to)}`);
    return () => {
      for (let i = 0; i < batch.count; i++) {
        if (batch.skips(i)) continue;
        if (i % 2 === 1) batch.drop(i, counters.odd);
        else batch.count1(counters.even);
      }
    };
  },
});

const second = defineMiddlebox({
  name: 'second',
  help: 'Counts.',
  options: {},
  counters: { seen: 'packets seen' },
  state: () => ({ only: object(64) }),
  open:
    ({ counters, batch, draining }) =>
    () => {
      assert.equal(draining(), false);
      for (let i = 0; i < batch.count; i++) if (!batch.skips(i)) batch.count1(counters.seen);
    },
});

const link = (middlebox: unknown, options: Record<string, unknown> = {}, name?: string) => ({
  middlebox: middlebox as Middlebox,
  options,
  ...(name === undefined ? {} : { name }),
});

describe('chain', () => {
  it('declares objects and metrics of all middleboxes, in order, with their names', () => {
    const declaration = declareChain([link(first, { to: 1, size: 256 }), link(second)]);
    assert.deepEqual(
      declaration.objects.map(({ name, bytes }) => [name, bytes]),
      [
        ['first.a', 256],
        ['first.b', 128],
        ['second.only', 64],
      ],
    );
    assert.deepEqual(
      declaration.metrics.map(({ name }) => name),
      ['first_odd', 'first_even', 'second_seen'],
    );
  });

  it('opens every object in its region, and every middlebox over its own', () => {
    const declaration = declareChain([link(first, { to: 1 }), link(second), link(second, {}, 'third')]);
    const arena = new Arena(createArena(layoutArena(declaration.objects)), declaration.objects);
    const member = { memberIndex: 1, memberCount: 3 };
    const objects = openState(declaration, arena, null, member) as Opened[];
    assert.deepEqual(
      objects.map(({ id, context }) => [id, context.region.byteLength, context.memberIndex, context.memberCount]),
      [
        [0, 64, 1, 3],
        [1, 128, 1, 3],
        [2, 64, 1, 3],
        [3, 64, 1, 3],
      ],
    );
    const plane = new Plane({ metrics: declaration.metrics });
    const processes = openProcesses(declaration, objects, plane.context);
    assert.deepEqual(seen.splice(0), ['first opened 0 1 to 1, opposite 0']);
    plane.open(processes);
    assert.equal(plane.pass(...Array.from({ length: 7 }, () => on(0, 'udp 1.1.1.1:1 > 2.2.2.2:2'))).length, 4);
    assert.deepEqual(plane.counts(), { first_odd: 3, first_even: 4, second_seen: 4, third_seen: 4 });
  });

  it('names the middlebox whose declaration is wrong', () => {
    const broken = { ...second, name: 'broken', state: () => assert.fail('no such thing') };
    assert.throws(() => declareChain([link(broken)]), /^Error: middlebox broken: no such thing$/);
    assert.throws(() => declareChain([link(second), link(second)]), /middlebox second stands in the chain twice/);
    assert.throws(() => declareChain([link(first)]), /middlebox first: option to is missing/);
    assert.throws(() => declareChain([link(second, { x: 1 })]), /middlebox second: there is no option x/);
    assert.throws(() => declareChain([link({ ...second, name: 'Bad Name' })]), /"Bad Name" is not a lower-case word/);
  });

  it('hands on what all members agree on, and gives what differs in it another layout', () => {
    const counting = {
      ...second,
      state: (_options: unknown, shared: SharedState) => ({
        hits: counter({ ...shared }),
        sketch: countMin({ ...shared }),
      }),
    };
    const hash = (shared: Partial<SharedState>) => {
      const { objects } = declareChain([link(counting)], { form: 'totals', members: 2, seed: '', ...shared });
      return layoutArena(objects).hash.join();
    };
    const hashes = [{}, { form: 'increments' as const }, { members: 3 }, { seed: 'a secret' }, { seed: 'another' }];
    assert.equal(new Set(hashes.map(hash)).size, hashes.length);
    assert.equal(hash({ seed: 'a secret' }), hash({ seed: 'a secret' }));
    const { objects } = declareChain([link(counting)], { form: 'totals', members: 2, seed: 'a secret' });
    assert.ok(!JSON.stringify(objects).includes('a secret'));
  });

  it('names the middlebox that returns no function over batches', () => {
    const opening = (open: unknown) => () => {
      const declaration = declareChain([link({ ...second, state: () => ({}), open })]);
      openProcesses(declaration, [], new Plane({ metrics: declaration.metrics }).context);
    };
    assert.throws(
      opening(() => undefined),
      /middlebox second could not be opened: open returned undefined, not a func/,
    );
    assert.throws(
      opening(() => async () => {}),
      /what open returned is an async function: a worker never waits/,
    );
  });

  it('has no opposite port of three', () => {
    const declaration = declareChain([link(first, { to: 1 })]);
    const arena = new Arena(createArena(layoutArena(declaration.objects)), declaration.objects);
    const objects = openState(declaration, arena, null, { memberIndex: 0, memberCount: 1 });
    const { context } = new Plane({ ports: 3, metrics: declaration.metrics });
    assert.throws(
      () => openProcesses(declaration, objects, context),
      /middlebox first could not be opened: asks for the port opposite to 1, of 3 ports/,
    );
  });
});
