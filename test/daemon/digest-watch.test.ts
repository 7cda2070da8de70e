import { strict as assert } from 'node:assert';
import { DigestWatch } from '../../daemon/digest-watch.js';
import { AckBoard, createAckBoard, VectorRecord } from '../../shm/ack-board.js';
import { DigestRecord } from '../../shm/board-records.js';
import type { StateObject } from '../../shm/objects/object.js';
import { Network } from '../workers/replication/network.js';

const PERIOD_S = 64;

/** Two members, and what each says of its content. */
class Pair {
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
    const digest = (self: number): string => {
      this.asked++;
      return this.contents[self];
    };
    const objects = (self: number): StateObject[] => [{ id: 0, digest: () => digest(self) } as unknown as StateObject];
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
