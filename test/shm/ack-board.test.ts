import { strict as assert } from 'node:assert';
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { AckBoard, createAckBoard, PeerFlag, PeerRecord, VectorRecord } from '../../shm/ack-board.js';
import { AttachmentRecord, BARRED_MAX, SlotIncarnations } from '../../shm/board-records.js';
import { Region } from '../../shm/region.js';
import { VersionedCells } from '../../shm/versioned.js';
import type { WriterTask } from './versioned-writer.js';

const CELLS = 4;
const FLOATS = 100;
const READS = 50_000;

describe('versioned cells', () => {
  const memory = (): SharedArrayBuffer => new SharedArrayBuffer(VersionedCells.bytes(CELLS, FLOATS));

  it('are read as last written', () => {
    const cells = new VersionedCells(new Region(memory()), CELLS, FLOATS);
    const into = new Float64Array(FLOATS).fill(-1);
    assert.equal(cells.read(2, into), 0);
    assert.equal(into[0], -1);
    cells.write(2, Float64Array.of(1, 2, 3), 3);
    cells.write(2, Float64Array.of(4, 5), 2);
    assert.equal(cells.read(2, into), 2);
    assert.deepEqual([...into.slice(0, 3)], [4, 5, -1]);
    assert.equal(cells.version(1), 0);
  });

  it('are never read half old, half new, and outlive a writer that is cut off anywhere', async () => {
    const shared = memory();
    const stop = new SharedArrayBuffer(4);
    const cells = new VersionedCells(new Region(shared), CELLS, FLOATS);
    const into = new Float64Array(FLOATS);
    const last = new Float64Array(CELLS);
    let changes = 0;
    const check = (cell: number): void => {
      if (cells.read(cell, into) === 0) return;
      for (let i = 1; i < FLOATS; i++) if (into[i] !== into[0]) assert.fail(`${into[i]} beside ${into[0]}`);
      assert.ok(into[0] >= last[cell]);
      if (into[0] !== last[cell]) changes++;
      last[cell] = into[0];
    };
    for (let incarnations = 0; incarnations < 3; incarnations++) {
      const task: WriterTask = { memory: shared, stop, cells: CELLS, floats: FLOATS };
      const writer = new Worker(new URL('versioned-writer.js', import.meta.url), { workerData: task });
      await once(writer, 'online');
      last.fill(0);
      changes = 0;
      for (let i = 0; changes < 1000 || i < READS; i++) {
        check(i % CELLS);
        if (i % READS === 0) await new Promise((resolve) => setImmediate(resolve));
      }
      await writer.terminate();
      for (let cell = 0; cell < CELLS; cell++) check(cell);
      // The next life counts from 1 again: let nothing old be compared with it.
      for (let cell = 0; cell < CELLS; cell++) cells.write(cell, new Float64Array(FLOATS), FLOATS);
    }
  });
});

describe('acknowledgement board', () => {
  it('keeps what each side writes apart', () => {
    const buffer = createAckBoard(3, 4, 2 ** 52 + 1);
    const board = new AckBoard(buffer);
    const vector = new VectorRecord();
    vector.incarnation = 5;
    const attachment = new AttachmentRecord();
    const cellValue = (object: number, member: number, origin: number): number => object * 100 + member * 10 + origin;
    const incarnations = new SlotIncarnations();
    incarnations.current = 8;
    incarnations.bar(7);
    board.writeIncarnations(2, incarnations);
    board.setStatus(PeerFlag.JOINING);
    for (let object = 0; object < 3; object++) {
      for (let member = 0; member < 4; member++) {
        vector.contiguous = object * 100 + member;
        vector.setRange(0, 1000, 1001);
        vector.ranges = 1;
        board.writeReception(object, member, vector);
        for (let origin = 0; origin < 4; origin++) {
          vector.contiguous = cellValue(object, member, origin);
          board.writeVector(object, member, origin, vector);
          vector.contiguous += 1000;
          board.writeFormerVector(object, member, origin, vector);
        }
        vector.contiguous = 5000 + cellValue(object, member, 0);
        board.writeFormer(object, member, vector);
        attachment.backlogRecords = object * 10 + member;
        board.writeAttachment(object, member, attachment);
      }
      board.setNumbered(object, 2 ** 52 + object);
      board.setSequence(object, 2 ** 53 - 1 - object);
      board.setDatagram(object, 7 + object);
      board.setAckRequests(object, 1 + object);
      board.setServed(object, 2 + object);
      board.setOwedAt(object, 0.5 + object);
      board.noteChange(object);
    }
    const peer = new PeerRecord();
    peer.incarnation = 9;
    peer.setRoundTrip(1, 2, 3, 4, 5);
    board.writePeer(3, peer);

    const other = new AckBoard(buffer);
    assert.equal(other.incarnation, 2 ** 52 + 1);
    for (let object = 0; object < 3; object++) {
      for (let member = 0; member < 4; member++) {
        assert.equal(other.readReception(object, member, vector), 1);
        assert.equal(vector.contiguous, object * 100 + member);
        assert.equal(vector.missing(1001), 999 - vector.contiguous);
        for (let origin = 0; origin < 4; origin++) {
          assert.equal(other.readVector(object, member, origin, vector), 1);
          assert.equal(vector.contiguous, cellValue(object, member, origin));
          assert.equal(other.readFormerVector(object, member, origin, vector), 1);
          assert.equal(vector.contiguous, 1000 + cellValue(object, member, origin));
        }
        assert.equal(other.readFormer(object, member, vector), 1);
        assert.equal(vector.contiguous, 5000 + cellValue(object, member, 0));
        other.readAttachment(object, member, attachment);
        assert.equal(attachment.backlogRecords, object * 10 + member);
      }
      assert.equal(other.numbered(object), 2 ** 52 + object);
      assert.equal(other.sequence(object), 2 ** 53 - 1 - object);
      assert.equal(other.datagram(object), 7 + object);
      assert.equal(other.ackRequests(object), 1 + object);
      assert.equal(other.served(object), 2 + object);
      assert.equal(other.ackRequestedAt(object), 0.5 + object);
      assert.equal(other.changes(object), 1);
      assert.equal(other.logFull(object), false);
    }
    assert.equal(other.status, PeerFlag.JOINING);
    const lived = new SlotIncarnations();
    other.readIncarnations(2, lived);
    assert.deepEqual(lived.floats, incarnations.floats);
    const read = new PeerRecord();
    assert.equal(other.readPeer(2, read), 0);
    assert.equal(other.readPeer(3, read), 1);
    assert.deepEqual(read.floats, peer.floats);
  });

  it('refuses other memory and impossible incarnations', () => {
    assert.throws(() => new AckBoard(new SharedArrayBuffer(4096)), /not an acknowledgement board/);
    assert.throws(() => createAckBoard(1, 1, 0), /incarnation 0/);
    assert.throws(() => createAckBoard(1, 1, 2 ** 53), /incarnation/);
  });

  it('remembers which lives are over, with room for as many as ever come', () => {
    const incarnations = new SlotIncarnations();
    incarnations.closedThrough = 10;
    for (let i = 0; i < 3 * BARRED_MAX; i++) {
      const over = 20 + ((i * 7) % (3 * BARRED_MAX));
      incarnations.bar(over);
      assert.ok(incarnations.isOver(over));
    }
    assert.ok(incarnations.isOver(10) && !incarnations.isOver(1000));
    assert.ok(incarnations.closedThrough > 10, 'those it has no room for are over by their order');
    for (let over = 20; over < 20 + 3 * BARRED_MAX; over++) assert.ok(incarnations.isOver(over));
    assert.equal(incarnations.barred, BARRED_MAX);
  });

  it('compares vectors number by number', () => {
    const [a, b] = [new VectorRecord(), new VectorRecord()];
    for (const vector of [a, b]) {
      vector.incarnation = 3;
      vector.contiguous = 5;
      vector.setRange(0, 8, 9);
      vector.ranges = 1;
    }
    assert.ok(a.equals(b));
    assert.equal(a.last, 9);
    b.setRange(0, 8, 10);
    assert.ok(!a.equals(b));
    b.ranges = 0;
    assert.ok(!a.equals(b));
    a.setExcluded(1, 2 ** 31);
    assert.deepEqual([a.excludes(0), a.excludes(1), a.excludes(62), a.excludes(63)], [true, false, false, true]);
  });
});
