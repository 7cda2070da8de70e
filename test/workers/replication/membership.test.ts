/**
 * Members that come and go while the protocol core runs: what main writes into the member table,
 * and what follows.
 */

import { strict as assert } from 'node:assert';
import { AckBoard, PeerRecord } from '../../../shm/ack-board.js';
import { EMPTY_SLOT, MemberTable, MemberTableWriter, Role, type SlotEntry } from '../../../shm/members.js';
import { readPeers } from '../../../workers/replication/membership/peers.js';
import { Network, type TestMember } from './network.js';

const NEWCOMER = 2;

/** Writes what every member that runs knows of slot 2. */
function enter(members: readonly TestMember[], view: number, change: Partial<SlotEntry> | null): void {
  for (const { table } of members) {
    const now = new MemberTable(table);
    const entries = Array.from({ length: now.slots }, (_, slot) => now.entry(slot));
    entries[NEWCOMER] = change === null ? EMPTY_SLOT : { ...entries[NEWCOMER], ...change };
    new MemberTableWriter(table).write(view, entries);
  }
}

function lone(): { network: Network; two: readonly TestMember[]; entry: SlotEntry } {
  const network = new Network({ seed: 1, members: 3 });
  const two = network.members.slice(0, 2);
  const entry = new MemberTable(network.members[0].table).entry(NEWCOMER);
  enter(two, 1, null);
  network.members[NEWCOMER].up = false;
  return { network, two, entry };
}

describe('a member table that changes', () => {
  it('has nobody wait for a slot that is empty, and believes nobody from there', () => {
    const { network, two } = lone();
    for (let i = 0; i < 100; i++) assert.ok(network.append(0, 0, 1, i));
    assert.ok(network.runUntil(() => network.settled, 5000));
    assert.equal(two[1].objects[0].applied, 100);
    network.members[NEWCOMER].up = true;
    network.run(1000);
    assert.ok(two[0].counts.value('state_rejected_sender') > 0);
    assert.equal(
      readPeers(new AckBoard(two[0].board), two[0].settings, network.now, new MemberTable(two[0].table)).length,
      1,
    );
  });

  it('takes in who is added, and forgets who left', () => {
    const { network, two, entry } = lone();
    network.members[NEWCOMER].up = true;
    enter(two, 2, entry);
    network.run(500);
    for (let i = 0; i < 50; i++) assert.ok(network.append(0, 0, 1, i));
    for (let i = 0; i < 50; i++) assert.ok(network.append(NEWCOMER, 0, 1, i));
    assert.ok(network.runUntil(() => network.settled, 5000));
    assert.deepEqual(
      network.members.map(({ objects }) => objects[0].applied),
      [50, 100, 50],
    );
    network.members[NEWCOMER].up = false;
    assert.ok(network.append(0, 0, 1, 1));
    assert.equal(
      network.runUntil(() => network.settled, 5000),
      false,
      'it is waited for',
    );
    enter(two, 3, { role: Role.LEFT });
    assert.ok(network.runUntil(() => network.settled, 1000));
  });

  it('leaves nothing due to an instance that is alone, though it owes an acknowledgement', () => {
    const network = new Network({ seed: 1, members: 2 });
    network.run(500);
    const [origin, alone] = network.members;
    const received = (): number => alone.counts.value('state_rx_units');
    assert.ok(network.append(0, 0, 1, 1));
    while (received() === 0) network.run(0.25);
    origin.up = false;
    const { table } = alone;
    const entry = new MemberTable(table).entry(0);
    const dead = new AckBoard(origin.board).incarnation;
    new MemberTableWriter(table).write(1, [{ ...entry, role: Role.EVICTED, dead }, new MemberTable(table).entry(1)]);
    network.run(1000);
    assert.ok(alone.sender.deadline > network.now, `due since ${network.now - alone.sender.deadline} ms`);
  });

  it('starts from nothing with another member in the slot', () => {
    const { network, two, entry } = lone();
    network.members[NEWCOMER].up = true;
    enter(two, 2, entry);
    assert.ok(network.append(NEWCOMER, 0, 1, 1));
    assert.ok(network.runUntil(() => network.settled, 5000));
    network.members[NEWCOMER].up = false;
    network.run(100);
    enter(two, 3, { id: 99, name: 'other' });
    assert.ok(network.append(0, 0, 1, 1));
    network.run(300);
    const board = new AckBoard(two[1].board);
    const peer = new PeerRecord();
    board.readPeer(NEWCOMER, peer);
    assert.equal(peer.incarnation, 0);
    const [, other] = readPeers(
      new AckBoard(two[1].board),
      two[1].settings,
      network.now,
      new MemberTable(two[1].table),
    );
    assert.deepEqual([other.id, other.name, other.state], [99, 'other', 'never']);
    assert.deepEqual([other.objects[0].receivedThrough, other.objects[0].acknowledgedThrough], [0, 0]);
  });

  it('believes no message of a life declared dead, and the next life', () => {
    const { network, two, entry } = lone();
    const newcomer = network.members[NEWCOMER];
    newcomer.up = true;
    enter(two, 2, { ...entry, dead: new AckBoard(newcomer.board).incarnation });
    network.run(500);
    assert.ok(two[0].counts.value('state_rejected_incarnation') > 0);
    const heard = (): boolean =>
      readPeers(new AckBoard(two[0].board), two[0].settings, network.now, new MemberTable(two[0].table))[1].state ===
      'heard';
    assert.equal(heard(), false);
    network.restart(NEWCOMER);
    assert.ok(network.runUntil(heard, 2000));
  });
});
