import { strict as assert } from 'node:assert';
import { AckBoard, VectorRecord } from '../../../shm/ack-board.js';
import { Applied, type Delivery } from '../../../shm/objects/core/object.js';
import type { Ledger } from '../../support/ledger.js';
import { NOTE } from '../../support/ledger.js';
import { Network } from './network.js';

/** Makes the object answer `BUSY` to note `id` so many times. */
function lock(object: Ledger, id: number, times: number): void {
  const apply = object.apply.bind(object);
  object.apply = (op, words, at, length, origin, now) => {
    if (op === NOTE && words[at] === id && times-- > 0) return Applied.BUSY;
    return apply(op, words, at, length, origin, now);
  };
}

/** Notes `ids` in one unit. */
function unit(network: Network, ids: readonly number[]): void {
  const { sender } = network.members[0];
  assert.ok(sender.makeRoom());
  for (const id of ids) sender.append(0, NOTE, Int32Array.of(id), 0, 1);
  sender.cut();
}

function through(network: Network): number {
  const record = new VectorRecord();
  new AckBoard(network.members[1].board).readReception(0, 0, record);
  return record.contiguous;
}

function twoMembers(delivery: Delivery, seed: number): { network: Network; object: Ledger } {
  const network = new Network({ seed, members: 2, deliveries: [delivery], delayMs: [1, 1] });
  network.run(500);
  return { network, object: network.members[1].objects[0] };
}

describe('a record that is locked', () => {
  it('is not acknowledged and comes again, in any order', () => {
    const { network, object } = twoMembers('any-order', 30);
    lock(object, 2, 2);
    unit(network, [1, 2, 3]);
    unit(network, [4]);
    network.run(5);
    assert.equal(through(network), 0);
    assert.ok(network.runUntil(() => network.settled, 5000));
    const notes = object.notes.get(0) ?? [];
    // What stood before it in its unit is applied again each time; what stands behind it once.
    assert.deepEqual(notes.filter((id) => id === 1).length, 3);
    for (const id of [2, 3, 4]) assert.equal(notes.filter((note) => note === id).length, 1);
    assert.equal(network.members[1].counts.value('state_rx_units_busy'), 2);
  });

  it('holds the channel at it, in order, and everything is applied once', () => {
    const { network, object } = twoMembers('in-order', 31);
    lock(object, 2, 3);
    unit(network, [1, 2, 3]);
    unit(network, [4]);
    assert.ok(network.runUntil(() => network.settled, 5000));
    assert.deepEqual(object.notes.get(0), [1, 2, 3, 4]);
    assert.equal(network.members[1].counts.value('state_rx_units_busy'), 3);
  });

  it('holds the channel also where it waited behind a gap', () => {
    const { network, object } = twoMembers('in-order', 32);
    lock(object, 5, 2);
    let lost = 0;
    network.drop = (from) => from === 0 && lost++ === 0;
    for (let i = 0; i < 4; i++) {
      unit(network, [2 * i, 2 * i + 1]);
      network.run(1);
    }
    assert.ok(
      network.runUntil(() => through(network) === 4, 1000),
      'through the unit before it',
    );
    assert.ok(network.runUntil(() => network.settled, 5000));
    assert.deepEqual(object.notes.get(0), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert.equal(network.members[1].receiver.bufferedBytes, 0);
  });

  it('is passed over in a new life of its origin, whose numbers begin anew', () => {
    const { network, object } = twoMembers('in-order', 33);
    lock(object, 2, Number.POSITIVE_INFINITY);
    unit(network, [1, 2]);
    network.run(50);
    network.restart(0);
    unit(network, [7, 8]);
    assert.ok(network.runUntil(() => network.settled, 5000));
    assert.deepEqual(object.notes.get(0), [1, 7, 8]);
  });
});

describe('a receive thread that dies', () => {
  it('has noted every unit but the one under way, where order counts', () => {
    const { network, object } = twoMembers('in-order', 34);
    const noted: number[] = [];
    const apply = object.apply.bind(object);
    object.apply = (op, words, at, length, origin, now) => {
      noted.push(through(network));
      return apply(op, words, at, length, origin, now);
    };
    // Three in one message, behind a gap or not.
    for (const gap of [false, true]) {
      let lost = 0;
      network.drop = (from) => gap && from === 0 && lost++ === 0;
      for (let id = 0; id < 3; id++) {
        unit(network, [id]);
        if (gap) network.run(1);
      }
      assert.ok(network.runUntil(() => network.settled, 5000));
    }
    assert.deepEqual(noted, [0, 1, 2, 3, 4, 5]);
  });
});
