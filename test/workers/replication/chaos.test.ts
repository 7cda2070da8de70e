/**
 * Members that crash, are cut off, come back without state and lose their threads, in any order,
 * under load: in the end all have the same, or say that they have not. The seeds are such that once
 * found something.
 */

import { strict as assert } from 'node:assert';
import { AckBoard } from '../../../shm/ack-board.js';
import { seeded } from '../../../workers/transport/fault.js';
import { JoiningNetwork } from './joining-network.js';

const ROUNDS = 120;
const LIFE_IDS = 100_000;

/** What happens to member `index` between two rounds, if anything. */
function befall(network: JoiningNetwork, index: number, what: number, cut: Set<number>): void {
  const member = network.members[index];
  const isAnotherReady = network.members.some(
    (other) => other !== member && other.up && network.isReady(other.index) && !cut.has(other.index),
  );
  if (what < 0.05) {
    if (member.up && (isAnotherReady || !network.isReady(index))) network.crash(index);
  } else if (what < 0.15) {
    if (!member.up) network.rejoin(index);
  } else if (what < 0.18) {
    if (cut.size > 0) cut.clear();
    else if (network.isReady(index)) cut.add(index);
  } else if (what < 0.2) {
    if (member.up) member.startReceiver();
  } else if (what < 0.22) {
    if (member.up) member.startSender();
  } else if (what < 0.25) network.run(800);
}

function live(seed: number): JoiningNetwork {
  const random = seeded(seed);
  const members = 3 + (seed % 4);
  const network = new JoiningNetwork({
    seed,
    members,
    loss: random() * 0.2,
    duplicate: random() * 0.1,
    multicast: random() < 0.5,
    delayMs: [1, 1 + random() * 20],
  });
  const cut = new Set<number>();
  network.drop = (from, to) => cut.has(from) !== cut.has(to);
  assert.ok(network.runUntil(() => network.members.every(({ index }) => network.isReady(index)), 10_000));
  let written = 0;
  for (let round = 0; round < ROUNDS; round++) {
    for (const { index, up, board } of network.members) {
      if (!up || !network.isReady(index)) continue;
      const life = new AckBoard(board).incarnation - 2 ** 40;
      for (const object of [0, 1]) if (random() < 0.5) network.note(index, object, life * LIFE_IDS + ++written);
    }
    network.run(1 + random() * 15);
    befall(network, Math.floor(random() * members), random(), cut);
  }
  cut.clear();
  for (const { index, up } of network.members) if (!up) network.rejoin(index);
  assert.ok(
    network.runUntil(() => network.settled && network.members.every(({ index }) => network.isReady(index)), 60_000),
    network.joinings.map(({ state, reason }) => `${state}: ${reason}`).join('; '),
  );
  network.run(3000);
  return network;
}

/**
 * Whether all members have the same notes of the origin; none has one twice, or in order one before
 * an earlier of its life.
 */
function isSame(network: JoiningNetwork, object: number, origin: number): boolean {
  const all = network.members.map(({ objects }) => objects[object].notes.get(origin) ?? []);
  for (const ids of all) {
    assert.equal(new Set(ids).size, ids.length, `nothing twice: object ${object}, origin ${origin}`);
    const last = new Map<number, number>();
    for (const id of ids) {
      const life = Math.floor(id / LIFE_IDS);
      if (object === 1) assert.ok(id > (last.get(life) ?? 0), 'in order');
      last.set(life, id);
    }
  }
  const sorted = all.map((ids) => ids.toSorted((a, b) => a - b).join());
  return sorted.every((ids) => ids === sorted[0]);
}

describe('members that come and go as they like', () => {
  it('end with the same, or say that they have not', () => {
    let different = 0;
    for (let seed = 1; seed <= 12; seed++) {
      const network = live(seed);
      const said = network.members.reduce(
        (sum, { counts }) =>
          sum + counts.value('state_incarnations_unrepaired') + counts.value('state_rx_records_skipped'),
        0,
      );
      let same = true;
      for (const object of [0, 1])
        network.members.forEach(({ index }) => {
          same = isSame(network, object, index) && same;
        });
      if (!same) different++;
      assert.ok(same || said > 0, `seed ${seed}: they are not the same, and nobody says so`);
    }
    assert.ok(different <= 2, `${different} lives in which something was lost`);
  });
});
