/** The origin of a coalesced backlog ends before the backlog is complete. */

import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { AckBoard, VectorRecord } from '../../../shm/ack-board.js';
import { SlotIncarnations } from '../../../shm/board-records.js';
import { NONE } from '../../../shm/none.js';
import type { Delivery } from '../../../shm/objects/core/object.js';
import { Reception } from '../../../workers/replication/units/reception.js';
import { backlogOrigin, readVectors } from '../../../workers/snapshot/vectors.js';
import { seeded } from '../../../workers/transport/fault.js';
import { ADD } from '../../support/ledger.js';
import { Network } from './network.js';

const [ORIGIN, OTHER, AWAY] = [0, 1, 2];
const KEYS = 3000;

/**
 * A member that was away takes folded units of the origin's backlog; `added`: what the origin did,
 * by key.
 */
function inBacklog(
  seed: number,
  delivery: Delivery = 'in-order',
): { readonly network: Network; readonly added: Map<number, number> } {
  const network = new Network({
    seed,
    members: 3,
    deliveries: [delivery],
    delayMs: [4, 6],
    settings: { unitLogBytes: 64 << 10, detachMs: 100 },
  });
  const random = seeded(seed);
  const added = new Map<number, number>();
  const work = (rounds: number): void => {
    for (let round = 0; round < rounds; round++, network.run(2)) {
      for (let i = 0; i < 60; i++) {
        const key = Math.floor(random() * KEYS);
        if (network.append(ORIGIN, 0, ADD, key, 1)) added.set(key, (added.get(key) ?? 0) + 1);
      }
    }
  };
  network.run(500);
  network.members[AWAY].up = false;
  network.run(1500);
  work(300);
  network.members[AWAY].up = true;
  const folded = (): number => foldedAt(network);
  assert.ok(
    network.runUntil(() => folded() > 0, 20_000),
    'no folded unit came',
  );
  work(5);
  return { network, added };
}

function foldedAt(network: Network): number {
  const vector = new VectorRecord();
  new AckBoard(network.members[AWAY].board).readReception(0, ORIGIN, vector);
  return vector.folded;
}

function lifeOf(network: Network, member: number): SlotIncarnations {
  const life = new SlotIncarnations();
  new AckBoard(network.members[member].board).readIncarnations(ORIGIN, life);
  return life;
}

describe('a backlog', () => {
  it('whose origin ends before it is complete is reported and counted, and applied no record twice', () => {
    for (const seed of [1, 2]) {
      const { network, added } = inBacklog(seed);
      const { silentMs } = network.members[AWAY].settings;
      network.restart(ORIGIN);
      network.run(2 * silentMs);
      const { alarms, counts, objects } = network.members[AWAY];
      assert.equal(alarms.filter((text) => /of which only a part has come/.test(text)).length, 1, alarms.join());
      assert.equal(counts.value('state_incarnations_unrepaired'), 1);
      assert.ok(counts.value('state_rx_records_skipped') > 0, 'so that main takes snapshots');
      for (const [key, sum] of objects[0].sums)
        assert.ok(sum <= (added.get(key) ?? 0), `key ${key}: ${sum} of ${added.get(key)}`);
      // It holds up no member: the incarnation is closed, and the next one is heard.
      for (const member of [OTHER, AWAY]) {
        assert.ok(lifeOf(network, member).isClosed, `member ${member}`);
        assert.deepEqual(network.members[OTHER].alarms, []);
      }
    }
  });

  it('that is complete leaves nothing behind: the end of its origin is repaired as any other', () => {
    const { network, added } = inBacklog(5);
    assert.ok(network.runUntil(() => network.settled, 60_000));
    network.run(300);
    assert.equal(foldedAt(network), 0);
    network.restart(ORIGIN);
    network.run(3000);
    const { alarms, objects } = network.members[AWAY];
    assert.deepEqual(alarms, []);
    assert.equal(objects[0].sums.size, added.size);
    for (const [key, sum] of objects[0].sums) assert.equal(sum, added.get(key));
  });

  it('makes its receiver no donor until it is complete, as long as the origin is heard', () => {
    const { network } = inBacklog(6);
    const { board, objects, settings } = network.members[AWAY];
    const origin = (): number => backlogOrigin(new AckBoard(board), objects, settings.silentMs, network.now);
    assert.equal(origin(), ORIGIN);
    // A successor of the receive thread knows it as well.
    network.members[AWAY].startReceiver();
    network.run(5);
    assert.equal(origin(), ORIGIN);
    assert.ok(network.runUntil(() => network.settled, 60_000));
    network.run(300);
    assert.equal(origin(), NONE);
  });

  it('is claimed by no snapshot while the origin is silent: its numbers stand for other records elsewhere', () => {
    for (const delivery of ['in-order', 'any-order'] as const) {
      const { network } = inBacklog(7, delivery);
      const { board, objects, settings, index } = network.members[AWAY];
      const ours = new AckBoard(board);
      network.members[ORIGIN].up = false;
      network.run(2 * settings.silentMs);
      const vector = new VectorRecord();
      ours.readReception(0, ORIGIN, vector);
      assert.ok(vector.contiguous >= vector.folded && vector.folded > 0, 'a part of the backlog is here');
      const origin = backlogOrigin(ours, objects, settings.silentMs, network.now);
      // In order, a record cannot be taken twice, so there is no vector that fits.
      assert.equal(origin, delivery === 'in-order' ? ORIGIN : NONE, delivery);
      const { contiguous, ranges } = readVectors(ours, objects, index).present[0][ORIGIN];
      if (delivery === 'any-order') assert.deepEqual([contiguous, ranges], [vector.folded - 1, []]);
    }
  });
});

describe('a reception vector', () => {
  it('that is joined with another has the numbers of both', () => {
    const units = fc.array(fc.tuple(fc.nat(60), fc.integer({ min: 1, max: 5 })), { maxLength: 30 });
    const vectorOf = (drawn: readonly (readonly [number, number])[]): readonly [Reception, Set<number>] => {
      const reception = new Reception();
      const has = new Set<number>();
      for (const [first, count] of drawn) {
        const numbers = Array.from({ length: count }, (_, i) => first + 1 + i);
        if (numbers.some((number) => has.has(number))) continue;
        reception.add(first + 1, first + count);
        for (const number of numbers) has.add(number);
      }
      return [reception, has];
    };
    fc.assert(
      fc.property(units, units, (ours, theirs) => {
        const [reception, has] = vectorOf(ours);
        const [other, otherHas] = vectorOf(theirs);
        const isNew = [...otherHas].some((number) => !has.has(number));
        assert.equal(reception.join(other), isNew);
        for (let number = 1; number < 70; number++)
          assert.equal(reception.has(number), has.has(number) || otherHas.has(number), `number ${number}`);
        for (let i = 0; i < reception.ranges; i++)
          assert.ok(reception.start(i) > (i === 0 ? reception.contiguous : reception.end(i - 1)) + 1);
      }),
    );
  });

  it('that retreats has exactly the numbers before that one', () => {
    const units = fc.array(fc.tuple(fc.nat(60), fc.integer({ min: 1, max: 5 })), { maxLength: 30 });
    fc.assert(
      fc.property(units, fc.integer({ min: 1, max: 70 }), (drawn, from) => {
        const reception = new Reception();
        const has = new Set<number>();
        for (const [first, count] of drawn) {
          const numbers = Array.from({ length: count }, (_, i) => first + 1 + i);
          if (numbers.some((number) => has.has(number))) continue;
          reception.add(first + 1, first + count);
          for (const number of numbers) has.add(number);
        }
        reception.retreat(from);
        for (let number = 1; number < 70; number++)
          assert.equal(reception.has(number), number < from && has.has(number), `number ${number}`);
        for (let i = 0; i < reception.ranges; i++) assert.ok(reception.start(i) > reception.contiguous + 1);
      }),
    );
  });
});
