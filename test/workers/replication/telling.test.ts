/** What the send thread asks of an object that tells more than its log records say. */

import { strict as assert } from 'node:assert';
import { NONE } from '../../../shm/none.js';
import type { StateObject } from '../../../shm/objects/core/object.js';
import { ADD, NOTE } from '../../support/ledger.js';
import { Network } from './network.js';

function telling(seed: number): { network: Network; source: StateObject } {
  const network = new Network({ seed, members: 2, deliveries: ['any-order'], delayMs: [1, 1] });
  network.run(500);
  return { network, source: network.members[0].objects[0] };
}

const defect = (): never => {
  throw new Error('defect');
};

describe('an object that tells', () => {
  it('fills its records in before they are merged, and drops what says nothing', () => {
    const { network, source } = telling(40);
    const [here, there] = network.members;
    source.fillIn = (op, words, at) => {
      if (op === ADD) words[at + 1] = words[at] === 1 ? 10 : 0;
      return op !== ADD || words[at + 1] !== 0;
    };
    here.sender.makeRoom();
    for (const key of [1, 2, 1]) here.sender.append(0, ADD, Int32Array.of(key, 99), 0, 2);
    here.sender.cut();
    assert.ok(network.runUntil(() => network.settled, 1000));
    assert.deepEqual([...there.objects[0].sums], [[1, 20]]);
  });

  it('is told that its records are safe, with the number of the last', () => {
    const { network, source } = telling(41);
    const settled: number[] = [];
    source.settle = (sequence) => {
      settled.push(sequence);
    };
    network.append(0, 0, NOTE, 1);
    network.append(0, 0, NOTE, 2);
    assert.deepEqual(settled, [1, 2]);
  });

  it('brings what the log had no room for', () => {
    const { network, source } = telling(42);
    let left = 3;
    source.nextUnreplicated = (words, at) => {
      if (left === 0) return NONE;
      words[at] = left--;
      return (1 << 8) | NOTE;
    };
    assert.ok(network.runUntil(() => network.members[1].objects[0].applied === 3, 1000));
    assert.deepEqual(network.members[1].objects[0].notes.get(0), [3, 2, 1]);
  });

  it('ends neither the round nor the thread by throwing', () => {
    for (const hook of ['fillIn', 'settle', 'nextUnreplicated'] as const) {
      const { network, source } = telling(43);
      const [here, there] = network.members;
      source[hook] = defect;
      network.append(0, 0, NOTE, 1);
      network.run(10);
      const failed = here.counts.value('state_tx_coalesce_failed');
      assert.ok(failed > 0, hook);
      here.sender.cut();
      assert.equal(here.counts.value('state_tx_coalesce_failed'), failed, hook);
      delete source[hook];
      network.append(0, 0, NOTE, 2);
      assert.ok(network.runUntil(() => network.settled, 1000));
      // A record that could not be filled in is not told.
      assert.deepEqual(there.objects[0].notes.get(0), hook === 'fillIn' ? [2] : [1, 2]);
    }
  });

  it('cannot keep the thread with records without end, or longer than there is room for', () => {
    const { network, source } = telling(44);
    source.nextUnreplicated = (words, at) => {
      words[at] = 1;
      words[at + 1] = 1;
      return (2 << 8) | ADD;
    };
    const { sender, counts } = network.members[0];
    sender.poll(network.now, { claim: () => null, send: () => {} });
    assert.ok(counts.value('state_tx_records') > 0 && counts.value('state_tx_records') <= 4096);
    source.nextUnreplicated = () => (200 << 8) | ADD;
    network.run(20);
    assert.ok(counts.value('state_tx_coalesce_failed') > 0);
    delete source.nextUnreplicated;
    assert.ok(network.runUntil(() => network.settled, 5000));
  });
});
