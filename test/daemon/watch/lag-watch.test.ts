import { strict as assert } from 'node:assert';
import { LagWatch } from '../../../daemon/watch/lag-watch.js';
import { AckBoard, createAckBoard, VectorRecord } from '../../../shm/ack-board.js';

const SELF = 0;
const OTHER = 1;

describe('the lag', () => {
  it('is counted in records, and in time since there was none', () => {
    const board = new AckBoard(createAckBoard(1, 2, 99));
    const watch = new LagWatch(board, SELF);
    const look = (now: number) => {
      const [theirs, ours] = watch.look([SELF, OTHER], now);
      return [theirs.records, theirs.ms, ours.records, ours.ms];
    };
    assert.deepEqual(look(1000), [0, 0, 0, 0]);
    const record = new VectorRecord();
    record.incarnation = 7;
    record.contiguous = 10;
    record.highest = 15;
    record.ranges = 1;
    record.setRange(0, 12, 13);
    board.writeReception(0, OTHER, record);
    board.setNumbered(0, 4);
    assert.deepEqual(look(1100), [3, 100, 4, 100]);
    record.clear();
    record.incarnation = 99;
    record.contiguous = 4;
    board.writeVector(0, OTHER, SELF, record);
    assert.deepEqual(look(1250), [3, 250, 0, 0]);
    board.setNumbered(0, 5);
    assert.deepEqual(look(1300), [3, 300, 1, 50]);
    record.incarnation = 98;
    board.writeVector(0, OTHER, SELF, record);
    assert.deepEqual(look(1400).slice(2), [5, 150], 'what an earlier life of ours was acknowledged counts for nothing');
  });
});
