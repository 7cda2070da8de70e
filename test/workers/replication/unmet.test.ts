import { strict as assert } from 'node:assert';
import { AckBoard, createAckBoard, PeerFlag, PeerRecord } from '../../../shm/ack-board.js';
import { MemberTable, MemberTableWriter, Role } from '../../../shm/members.js';
import { Unmet } from '../../../workers/replication/membership/unmet.js';
import { memberTableOf } from '../../../workers/replication/settings.js';
import { testSettings } from './network.js';

const NOW = 10_000;

describe('members that were not heard when an instance began', () => {
  it('are met once each: when they are heard with state, and not while they join', () => {
    const settings = testSettings(6, 0);
    const board = new AckBoard(createAckBoard(1, 6, 7));
    const table = memberTableOf(settings);
    const members = new MemberTable(table);
    const hear = (slot: number, flags: number, heardAt: number): void => {
      const peer = new PeerRecord();
      peer.incarnation = 9;
      peer.heardAt = heardAt;
      peer.flags = flags;
      board.writePeer(slot, peer);
    };
    const unmet = new Unmet([1, 2, 3, 4]);
    const met = (): number[] => unmet.met(board, members, settings.silentMs, NOW);
    assert.deepEqual(met(), []);
    hear(1, 0, NOW);
    hear(2, PeerFlag.JOINING, NOW);
    hear(3, 0, NOW - settings.silentMs - 1);
    hear(5, 0, NOW);
    assert.deepEqual(met(), [1], 'not the one that joins, is silent, or was heard before');
    assert.deepEqual(met(), []);
    assert.ok(unmet.slots.has(2), 'its state is still lacking');
    hear(2, 0, NOW);
    hear(3, PeerFlag.LEAVING, NOW);
    assert.deepEqual(met().sort(), [2, 3], 'the one that joined may have taken what its former incarnation had');
    const give = (slot: number, role: Role): void => {
      const entries = Array.from({ length: members.slots }, (_, other) => members.entry(other));
      entries[slot] = { ...entries[slot], role };
      new MemberTableWriter(table).write(members.view + 1, entries);
      members.refresh();
    };
    give(4, Role.EVICTED);
    assert.deepEqual(met(), []);
    assert.ok(unmet.slots.has(4), 'it may come back with its state');
    give(4, Role.MEMBER);
    hear(4, 0, NOW);
    assert.deepEqual(met(), [4]);
    unmet.slots.add(4);
    give(4, Role.LEFT);
    assert.deepEqual(met(), []);
    assert.ok(!unmet.slots.has(4), 'all members had what it had');
  });
});
