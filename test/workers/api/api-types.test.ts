/**
 * Types carry through from a declaration to what is done with it: this file compiles only if they
 * do. It imports the package by its name, as a user's own middlebox does.
 */

import { strict as assert } from 'node:assert';
import {
  type Counter,
  type CountMin,
  counter,
  countMin,
  defineMiddlebox,
  type FlowTable,
  flowTable,
  type OpenContext,
  option,
  type PortPool,
  parseIpv4,
  portPool,
  type StateDefinition,
  type StateObject,
} from 'constellation';
import * as own from '../../../workers/api/api.js';

/** Compiles only where both are one type. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(_same: Same<A, B>): void => {};

interface Mine extends StateObject {
  readonly mine: true;
}

const mine: StateDefinition<Mine> = {
  kind: 'mine',
  parameters: {},
  bytes: 0,
  open: (_context: OpenContext): Mine => assert.fail('is not opened'),
};

const typed = defineMiddlebox({
  name: 'typed',
  help: 'Has one of everything.',
  options: {
    inside: option.port('a port'),
    external: option.addresses('addresses'),
    flows: option.count('a count', 10),
    knocks: option.counts('counts', [1, 2]),
    idle: option.seconds('seconds', 60),
    strict: option.flag('a flag', true),
    mode: option.choice('a choice', ['fast', 'safe'], 'fast'),
    note: option.text('text', ''),
  },
  counters: { seen: 'packets seen', refused: 'dropped: refused' },
  state: ({ flows, external }, shared) => ({
    table: flowTable({ capacity: flows, keyWords: 2, valueWords: 1 }),
    pool: portPool({ addresses: external.length, protocols: 2 }),
    hits: counter({ ...shared }),
    sketch: countMin({ ...shared, epsilon: 0.01 }),
    mine,
  }),
  open: ({ options, state, counters, every, log, replies }) => {
    same<typeof options.inside, number>(true);
    same<typeof options.external, readonly number[]>(true);
    same<typeof options.knocks, readonly number[]>(true);
    same<typeof options.strict, boolean>(true);
    same<typeof options.mode, 'fast' | 'safe'>(true);
    same<typeof options.note, string>(true);
    same<keyof typeof counters, 'seen' | 'refused'>(true);
    same<typeof state.table, FlowTable>(true);
    same<typeof state.pool, PortPool>(true);
    same<typeof state.hits, Counter>(true);
    same<typeof state.sketch, CountMin>(true);
    same<typeof state.mine, Mine>(true);
    same<Parameters<Parameters<typeof every>[1]>, [now: number]>(true);
    same<ReturnType<typeof replies.reset>, boolean>(true);
    // @ts-expect-error No such option, counter or object.
    void [options.outside, counters.lost, state.other];
    // @ts-expect-error A choice is one of those declared.
    void (options.mode === 'slow');
    // @ts-expect-error What is no number is no count.
    state.hits.add('1');
    // @ts-expect-error Fields of a line are text, numbers, flags, or such.
    log.info('', { f: () => 1 });
    return () => {};
  },
});

// @ts-expect-error A choice begins with one of its own.
option.choice('a choice', ['fast', 'safe'], 'slow');
// @ts-expect-error A middlebox has an `open`.
defineMiddlebox({ name: 'x', help: '', options: {}, counters: {}, state: () => ({}) });

describe('the public API', () => {
  it('is what the package exports', async () => {
    assert.equal((await import('constellation')).defineMiddlebox, own.defineMiddlebox);
  });

  it('carries types from declaration to use', () => {
    const shared = { form: 'totals', members: 2, seed: '' } as const;
    const state = typed.state(
      {
        inside: 0,
        external: [parseIpv4('203.0.113.1')],
        flows: 10,
        knocks: [1],
        idle: 1,
        strict: true,
        mode: 'safe',
        note: '',
      },
      shared,
    );
    same<(typeof state)['mine'], StateDefinition<Mine>>(true);
    assert.deepEqual(Object.keys(state), ['table', 'pool', 'hits', 'sketch', 'mine']);
  });
});
