import { strict as assert } from 'node:assert';
import {
  createMemberTable,
  EMPTY_SLOT,
  MemberTable,
  MemberTableWriter,
  Role,
  type SlotEntry,
} from '../../shm/members.js';

const A: SlotEntry = { role: Role.MEMBER, id: 7, name: 'site-a', address: '10.255.0.1', port: 7400, dead: 0 };
const B: SlotEntry = {
  role: Role.EVICTED,
  id: 65_535,
  name: 'a-name-of-thirty-one-characters',
  address: '2001:0db8:85a3:0000:0000:8a2e:0370:7334%enp0s31f6',
  port: 65_535,
  dead: 2 ** 53 - 1,
};

describe('the member table', () => {
  it('is read as it was written, slot by slot', () => {
    const buffer = createMemberTable(5);
    new MemberTableWriter(buffer).write(2 ** 40, [A, EMPTY_SLOT, B]);
    const table = new MemberTable(buffer);
    assert.equal(table.slots, 5);
    assert.equal(table.view, 2 ** 40);
    assert.deepEqual(
      [0, 1, 2, 3, 4].map((slot) => table.entry(slot)),
      [A, EMPTY_SLOT, B, EMPTY_SLOT, EMPTY_SLOT],
    );
    assert.equal(table.members, 1);
    assert.equal(table.slotOf(7), 0);
    assert.equal(table.slotOf(65_535), 2, 'who is evicted keeps its slot');
    assert.equal(table.slotOf(0), -1);
    assert.equal(table.slotOf(8), -1);
  });

  it('changes for its readers when they look, and forgets who is gone', () => {
    const buffer = createMemberTable(2);
    const writer = new MemberTableWriter(buffer);
    const table = new MemberTable(buffer);
    assert.equal(table.members, 0);
    assert.equal(table.refresh(), false);
    writer.write(1, [A, B]);
    assert.equal(table.members, 0, 'not before it looks');
    assert.equal(table.refresh(), true);
    assert.equal(table.slotOf(7), 0);
    writer.write(2, [EMPTY_SLOT, { ...A, name: 'b' }]);
    assert.equal(table.refresh(), true);
    assert.equal(table.refresh(), false);
    assert.equal(table.slotOf(7), 1);
    assert.equal(table.slotOf(65_535), -1);
    assert.equal(table.name(0), '');
    assert.equal(table.name(1), 'b', 'nothing of the longer name is left');
    assert.equal(table.isMember(0), false);
    assert.equal(table.isMember(1), true);
  });

  it('refuses what does not fit', () => {
    assert.throws(() => createMemberTable(0), /0 slots/);
    assert.throws(() => createMemberTable(65), /65 slots/);
    const writer = new MemberTableWriter(createMemberTable(1));
    assert.throws(() => writer.write(1, [A, B]), /2 entries for 1 slots/);
    assert.throws(() => writer.write(1, [{ ...A, name: 'x'.repeat(37) }]), /too long/);
    assert.throws(() => new MemberTable(new SharedArrayBuffer(64)), /not a member table/);
  });
});
