import { strict as assert } from 'node:assert';
import { AckBoard, VectorRecord } from '../../../shm/ack-board.js';
import { NOTE } from '../../support/ledger.js';
import { Network } from './network.js';

function has(network: Network, at: number, member: number, origin: number): VectorRecord {
  const record = new VectorRecord();
  new AckBoard(network.members[at].board).readVector(0, member, origin, record);
  return record;
}

describe('vectors of everybody', () => {
  it('tell each member what every other has of every origin', () => {
    const network = new Network({ seed: 40, members: 4, loss: 0.1, duplicate: 0.1 });
    for (let member = 0; member < 4; member++)
      for (let i = 0; i <= 10 * member; i++) network.append(member, 0, NOTE, i);
    assert.ok(network.runUntil(() => network.settled, 10_000));
    network.run(1000);
    for (let at = 0; at < 4; at++)
      for (let member = 0; member < 4; member++)
        for (let origin = 0; origin < 4; origin++) {
          if (member === at || member === origin) continue;
          const vector = has(network, at, member, origin);
          assert.deepEqual([vector.contiguous, vector.ranges], [10 * origin + 1, 0], `${at}: ${member} of ${origin}`);
          assert.equal(vector.incarnation, new AckBoard(network.members[origin].board).incarnation);
        }
  });

  it('of a member that started again are forgotten', () => {
    const network = new Network({ seed: 41, members: 3 });
    for (let i = 0; i < 5; i++) network.append(2, 0, NOTE, i);
    assert.ok(network.runUntil(() => network.settled, 5000));
    network.run(500);
    assert.equal(has(network, 0, 1, 2).contiguous, 5);
    network.members[2].up = false;
    network.restart(1);
    network.run(1000);
    assert.equal(has(network, 0, 1, 2).contiguous, 0);
  });
});
