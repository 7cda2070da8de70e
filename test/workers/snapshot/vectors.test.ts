/** What an instance takes from the vectors of a snapshot. */

import { strict as assert } from 'node:assert';
import { AckBoard, createAckBoard, VectorRecord } from '../../../shm/ack-board.js';
import { INCARNATIONS_FLOATS, SlotIncarnations } from '../../../shm/board-records.js';
import { type OriginVector, writeVectors } from '../../../workers/snapshot/vectors.js';

const NOTHING: OriginVector = { incarnation: 0, contiguous: 0, ranges: [] };
const SELF = 1;
const OLD = 100;
const LAST = 200;
const OWN = 300;

describe('vectors of a snapshot', () => {
  const write = (known: Partial<SlotIncarnations>, present: OriginVector, former = NOTHING): AckBoard => {
    const board = new AckBoard(createAckBoard(1, 2, OWN));
    const incarnations = [new SlotIncarnations(), Object.assign(new SlotIncarnations(), known)];
    assert.equal(incarnations[SELF].floats.length, INCARNATIONS_FLOATS);
    const vectors = {
      present: [[NOTHING, present]],
      former: [[NOTHING, former]],
      incarnations: incarnations.map(({ floats }) => [...floats]),
    };
    writeVectors(board, vectors, SELF, 5);
    return board;
  };
  const knownAt = (board: AckBoard): SlotIncarnations => {
    const incarnations = new SlotIncarnations();
    board.readIncarnations(SELF, incarnations);
    return incarnations;
  };
  const formerAt = (board: AckBoard): unknown[] => {
    const vector = new VectorRecord();
    board.readFormer(0, SELF, vector);
    return [vector.incarnation, vector.contiguous, vector.ranges];
  };

  it('make the slot’s incarnation that the donor still believes the former one', () => {
    const present = { incarnation: LAST, contiguous: 7, ranges: [9, 12] };
    const board = write({ current: LAST, former: OLD, isClosed: true }, present, { ...NOTHING, incarnation: OLD });
    const { current, former, isClosed } = knownAt(board);
    assert.deepEqual([current, former, isClosed], [0, LAST, false]);
    assert.deepEqual(formerAt(board), [LAST, 7, 1]);
    assert.ok(knownAt(board).isOver(OLD), 'the one before it has ended');
  });

  it('claim nothing of it if the donor has nothing', () => {
    assert.deepEqual(formerAt(write({ current: LAST }, NOTHING)), [LAST, 0, 0]);
  });

  it('are taken as they are if the donor knows what has ended', () => {
    const former = { incarnation: LAST, contiguous: 7, ranges: [] };
    for (const current of [0, OWN]) {
      const board = write({ current, former: LAST, isClosed: true }, { ...NOTHING, incarnation: current }, former);
      assert.deepEqual([knownAt(board).current, knownAt(board).former, knownAt(board).isClosed], [0, LAST, true]);
      assert.deepEqual(formerAt(board), [LAST, 7, 0]);
    }
  });
});
