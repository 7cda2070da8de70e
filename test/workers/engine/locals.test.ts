import { strict as assert } from 'node:assert';
import { Arena, createArena, layoutArena } from '../../../shm/arena.js';
import { createLogRing, LogProducer } from '../../../shm/log.js';
import { createJournals, Journal } from '../../../shm/objects/core/journal.js';
import type { Counter, CounterVector } from '../../../shm/objects/counting/counters.js';
import { BYTES_PER_LINE } from '../../../shm/struct.js';
import { counter, counterVector, defineMiddlebox, natBinding } from '../../../workers/api/api.js';
import { createLocals, declareChain, layoutLocals, openState } from '../../../workers/plane/chain.js';

const WORKERS = 3;

const middlebox = defineMiddlebox({
  name: 'counting',
  help: 'counts',
  options: {},
  counters: {},
  state: () => ({
    bindings: natBinding({ addresses: [1], flows: 10, allocation: 'leased' }),
    packets: counter(),
    bytes: counterVector({ length: 100, form: 'increments', upDown: true }),
  }),
  open: () => () => {},
});

describe('memory of one instance', () => {
  it('has a place for every object, and a stripe for every worker', () => {
    const declaration = declareChain([{ middlebox, options: {} }]);
    const locals = createLocals(declaration, WORKERS);
    const offsets = layoutLocals(declaration, WORKERS);
    // What the binding keeps of answers is one table, however many workers there are.
    assert.ok(offsets[1] > 0);
    assert.equal(offsets[1], layoutLocals(declaration, 1)[1]);
    assert.equal(offsets[3], locals.buffer.byteLength);
    for (const offset of offsets) assert.equal(offset % BYTES_PER_LINE, 0);

    const arena = new Arena(createArena(layoutArena(declaration.objects)), declaration.objects);
    const journals = createJournals(WORKERS);
    const member = { memberIndex: 0, memberCount: 2 };
    for (let worker = 0; worker < WORKERS; worker++) {
      const writer = {
        id: worker + 1,
        journal: new Journal(journals, worker + 1),
        log: new LogProducer(createLogRing(1)),
      };
      const [, packets, bytes] = openState(declaration, arena, writer, member, locals) as unknown as [
        unknown,
        Counter,
        CounterVector,
      ];
      assert.ok(packets.add(1));
      assert.ok(bytes.add(99, -10));
    }
    const [, packets, bytes] = openState(declaration, arena, null, member, locals) as unknown as [
      unknown,
      Counter,
      CounterVector,
    ];
    assert.equal(packets.value(), WORKERS);
    assert.equal(bytes.value(99), -10 * WORKERS);
    assert.throws(
      () =>
        openState(
          declaration,
          arena,
          { id: WORKERS + 1, journal: new Journal(journals, 1), log: new LogProducer(createLogRing(1)) },
          member,
          locals,
        ),
      /stripe/,
    );
  });
});
