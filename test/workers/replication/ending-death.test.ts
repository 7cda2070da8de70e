/**
 * A receive thread that dies at any step of ending an incarnation leaves what its successor can go
 * on from.
 */

import { strict as assert } from 'node:assert';
import { AckBoard, VectorRecord } from '../../../shm/ack-board.js';
import { SlotIncarnations } from '../../../shm/board-records.js';
import { MemberTable, MemberTableWriter, Role } from '../../../shm/members.js';
import { createForeignLogs } from '../../../workers/replication/units/foreign-log.js';
import { Fuse } from '../../sim/deaths.js';
import { Death } from '../../sim/subjects.js';
import { NOTE } from '../../support/ledger.js';
import { Network } from './network.js';

const [ORIGIN, DYING, OTHER] = [0, 1, 2];
const NOTES = 30;

/** Main of both survivors hears that the origin's incarnation is over. */
function declareDead(network: Network): void {
  const dead = new AckBoard(network.members[ORIGIN].board).incarnation;
  for (const index of [DYING, OTHER]) {
    const { table } = network.members[index];
    const now = new MemberTable(table);
    const entries = Array.from({ length: now.slots }, (_, slot) => now.entry(slot));
    entries[ORIGIN] = { ...entries[ORIGIN], role: Role.EVICTED, dead };
    new MemberTableWriter(table).write(1, entries);
  }
}

function lifeAt(network: Network, index: number): SlotIncarnations {
  const life = new SlotIncarnations();
  new AckBoard(network.members[index].board).readIncarnations(ORIGIN, life);
  return life;
}

/**
 * The origin ends, and the receive thread of a survivor dies after so many steps of that; returns
 * where, '' for nowhere.
 */
function endWithDeath(points: number): string {
  const network = new Network({ seed: 9, members: 3 });
  network.run(500);
  for (let i = 0; i < NOTES; i++) for (const object of [0, 1]) network.append(ORIGIN, object, NOTE, i);
  assert.ok(network.runUntil(() => network.settled, 5000));
  network.run(500);
  // What all have is kept by nobody in the long run.
  const other = network.members[OTHER];
  other.foreignLogs = createForeignLogs(2, other.settings.slots, other.settings.foreignLogBytes);
  other.startReceiver();
  other.startSender();
  const dying = network.members[DYING];
  const { receiver } = dying;
  const fuse = new Fuse();
  fuse.light(points);
  const tick = receiver.tick.bind(receiver);
  receiver.tick = (now) => fuse.run(() => tick(now));
  network.members[ORIGIN].up = false;
  declareDead(network);
  const isClosed = (): boolean => [DYING, OTHER].every((index) => lifeAt(network, index).isClosed);
  for (let closed = false; !closed; ) {
    try {
      closed = network.runUntil(isClosed, 20_000);
      assert.ok(closed, `not closed after a death ${fuse.diedAt}`);
    } catch (error) {
      if (!(error instanceof Death)) throw error;
      dying.startReceiver();
    }
  }
  const where = `after a death ${fuse.diedAt} (${points})`;
  for (const index of [DYING, OTHER]) {
    const { counts, alarms, board, objects } = network.members[index];
    assert.deepEqual(alarms, [], where);
    assert.equal(counts.value('state_incarnations_unrepaired'), 0, where);
    for (const object of [0, 1]) {
      const vector = new VectorRecord();
      new AckBoard(board).readFormer(object, ORIGIN, vector);
      assert.equal(vector.incarnation, lifeAt(network, index).former, where);
      assert.equal(vector.contiguous, NOTES, `member ${index}, object ${object}: ${where}`);
      assert.equal(objects[object].notes.get(ORIGIN)?.length, NOTES, where);
    }
  }
  return fuse.diedAt;
}

describe('the end of an incarnation', () => {
  it('loses nothing that was received if the receive thread dies at any step of it', () => {
    const places: string[] = [];
    for (let points = 0; places.at(-1) !== ''; points++) places.push(endWithDeath(points));
    assert.ok(
      places.includes('after AckBoard.writeFormer') && places.includes('before AckBoard.writeIncarnations'),
      `${places}`,
    );
  });
});
