/**
 * Digests tell members that hold the same from those that do not; what a member evicts by itself is
 * no difference.
 */

import { strict as assert } from 'node:assert';
import { DigestWatch } from '../../../daemon/watch/digest-watch.js';
import { AckBoard, createAckBoard, VectorRecord } from '../../../shm/ack-board.js';
import { DigestRecord } from '../../../shm/board-records.js';
import { NONE } from '../../../shm/none.js';
import type { StateDefinition, StateObject } from '../../../shm/objects/core/object.js';
import { type FlowTable, flowTable } from '../../../shm/objects/flow/flow-table.js';
import { type NatBinding, natBinding, portAndProtocol } from '../../../shm/objects/nat/nat-binding.js';
import { idleExpiry } from '../../../shm/objects/table/idle-expiry.js';
import { Replica } from '../../shm/objects/replica.js';
import { Network } from '../../workers/replication/network.js';

const PERIOD_S = 64;

/** Two members, and what each says of its content: `contents`, or the digests of `objects`. */
class Pair {
  readonly objects: readonly StateObject[] | null;
  readonly boards = [0, 1].map((slot) => new AckBoard(createAckBoard(1, 2, 100 + slot)));
  readonly contents = ['0123456789abcdef', '0123456789abcdef'];
  readonly alarms: string[] = [];
  readonly busy = [false, false];
  readonly watches = this.boards.map(
    (board, self) =>
      new DigestWatch({
        board,
        self,
        ids: () => [1, 2],
        isBusy: () => this.busy[self],
        onDiffer: (object, slot) => this.alarms.push(`${self}: object ${object} of ${slot}`),
      }),
  );
  private asked = 0;

  constructor(objects: readonly StateObject[] | null = null) {
    this.objects = objects;
  }

  /** Each has all of the other's records: so many. */
  settle(...numbered: [number, number]): void {
    this.boards.forEach((board, self) => {
      const other = 1 - self;
      board.setNumbered(0, numbered[self]);
      const record = new VectorRecord();
      record.incarnation = 100 + other;
      record.contiguous = numbered[other];
      record.highest = numbered[other];
      board.writeReception(0, other, record);
    });
  }

  /** Both look, hear of each other, and look again. */
  period(n: number): void {
    const digest = (self: number, now: number): string => {
      this.asked++;
      return this.objects?.[self].digest(now) ?? this.contents[self];
    };
    const objects = (self: number): StateObject[] => [
      { id: 0, digest: (now: number) => digest(self, now) } as unknown as StateObject,
    ];
    this.watches.forEach((watch, self) => void watch.look(objects(self), n * PERIOD_S + 10 * self));
    const told = new DigestRecord();
    for (const self of [0, 1])
      if (this.boards[self].readDigest(0, self, told) !== 0) this.boards[1 - self].writeDigest(0, self, told);
    this.watches.forEach((watch, self) => void watch.look(objects(self), n * PERIOD_S + 20));
  }

  get found(): number {
    return this.asked;
  }
}

describe('digests of members with equal vectors', () => {
  it('are found once a period, and equal content is no alarm', () => {
    const pair = new Pair();
    pair.settle(10, 20);
    for (const n of [1, 2, 3]) pair.period(n);
    assert.equal(pair.found, 6);
    assert.deepEqual([pair.alarms, pair.watches[0].differing(0)], [[], []]);
  });

  it('that differ twice in a row are an alarm, once, until they agree', () => {
    const pair = new Pair();
    pair.settle(10, 20);
    pair.contents[1] = 'fedcba9876543210';
    pair.period(1);
    assert.deepEqual(pair.alarms, []);
    for (const n of [2, 3, 4]) pair.period(n);
    assert.deepEqual(pair.alarms, ['0: object 0 of 1', '1: object 0 of 0']);
    assert.deepEqual(pair.watches[0].differing(0), [1]);
    pair.contents[1] = pair.contents[0];
    pair.period(5);
    assert.deepEqual(pair.watches[0].differing(0), []);
  });

  it('are not compared where one has records that the other has not, nor found while something is under way', () => {
    const pair = new Pair();
    pair.settle(10, 20);
    pair.contents[1] = 'fedcba9876543210';
    pair.boards[1].setNumbered(0, 21);
    for (const n of [1, 2, 3]) pair.period(n);
    assert.deepEqual(pair.alarms, []);
    const { found } = pair;
    pair.busy.fill(true);
    pair.period(4);
    assert.equal(pair.found, found);
  });

  it('travel in keepalives', () => {
    const network = new Network({ seed: 1, members: 2 });
    const boards = network.members.map(({ board }) => new AckBoard(board));
    const said = new DigestRecord();
    said.set(Int32Array.of(1, -2), Int32Array.of(-3, 4));
    boards[0].writeDigest(1, 0, said);
    network.run(1000);
    const heard = new DigestRecord();
    assert.notEqual(boards[1].readDigest(1, 0, heard), 0);
    assert.deepEqual([...heard.floats], [1, -2, -3, 4]);
    assert.equal(boards[1].readDigest(0, 0, heard), 0, 'of the other object nothing was said');
  });
});

const QUOTA = 70;
const HALF_OPEN_S = 240;
const FLOOD_S = 4;
const PER_SECOND = 40;
const FIRST = 1_000_000;

/**
 * Two members that hold a table whose half-open entries have a quota. `add` makes a half-open entry
 * for a number.
 */
function checkEvictions<T extends FlowTable | NatBinding>(
  name: string,
  definition: StateDefinition<T>,
  add: (object: T, n: number, now: number) => number,
): void {
  it(`of a ${name} agree after a flood in which each member evicted other entries, and show what really differs`, () => {
    const members = [0, 1].map((self) => new Replica(definition, self, 2));
    const [a, b] = members.map(({ object }) => object);
    const pair = new Pair([a, b]);
    pair.settle(10, 20);
    const start = FIRST * PERIOD_S;
    const deliver = (now: number): void => {
      const said = members.map((member) => member.drain());
      for (const record of said[0]) members[1].apply(record, now);
      for (const record of said[1]) members[0].apply(record, now);
    };
    for (let second = 0; second < FLOOD_S; second++) {
      const now = start + second;
      for (let n = 0; n < PER_SECOND; n++) {
        add(a, 1000 * second + n, now);
        if (n % 4 === 0) add(b, 100_000 + 1000 * second + n, now);
      }
      deliver(now);
    }
    const after = start + FLOOD_S;
    assert.ok(a.describe(after)['half_open_evicted'] > 0);
    assert.notEqual(a.digest(after, true), b.digest(after, true), 'their half-open entries differ');
    for (const n of [0, 1, 2]) pair.period(FIRST + n);
    assert.equal(pair.found, 6);
    assert.deepEqual(pair.alarms, []);
    // One member alone knows of an established entry.
    const now = start + 3 * PERIOD_S;
    const slot = add(a, 500_000, now);
    assert.notEqual(slot, NONE);
    assert.ok(a.refresh(slot, 2, now, 10 * PERIOD_S));
    for (const n of [3, 4]) pair.period(FIRST + n);
    assert.deepEqual(pair.alarms, ['0: object 0 of 1', '1: object 0 of 0']);
  });
}

describe('digests of tables with a quota of half-open entries', () => {
  const key = new Int32Array(2);
  const limits = { halfOpen: QUOTA, halfOpenRecords: 10_000 };
  checkEvictions('flow table', flowTable({ capacity: 200, keyWords: 2, valueWords: 0, ...limits }), (table, n, now) => {
    key[0] = n;
    key[1] = ~n;
    return table.add(table.hash(key, 0), key, 0, key, 0, 0, now, idleExpiry(now, HALF_OPEN_S));
  });
  const port = portAndProtocol(0x1234, 17);
  const nat = natBinding({ addresses: [0x010200c0], flows: 200, allocation: 'leased', ...limits });
  checkEvictions('NAT', nat, (table, n, now) =>
    table.add(table.hash(n, port), n, port, now, idleExpiry(now, HALF_OPEN_S)),
  );
});
