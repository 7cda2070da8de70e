import { strict as assert } from 'node:assert';
import { Roster } from '../../../daemon/membership/roster.js';
import {
  createMemberTable,
  EMPTY_SLOT,
  MemberTable,
  MemberTableWriter,
  Role,
  type SlotEntry,
} from '../../../shm/members.js';

const entry = (name: string, id: number): SlotEntry => ({
  role: Role.MEMBER,
  id,
  name,
  address: `10.0.0.${id}`,
  port: 7400,
  dead: 0,
});

function roster(slots = 3): { roster: Roster; table: MemberTable } {
  const buffer = createMemberTable(slots);
  new MemberTableWriter(buffer).write(5, [entry('a', 1), entry('b', 2)]);
  return { roster: new Roster(buffer, 0), table: new MemberTable(buffer) };
}

describe('the roster', () => {
  it('adds to the lowest slot nobody ever had, and every change is a new view in the table', () => {
    const { roster: list, table } = roster(4);
    list.remove('b');
    const { slot } = list.add({ name: 'c', id: 9, address: '10.0.0.9', port: 7400 });
    assert.equal(slot, 2);
    assert.equal(list.add({ name: 'd', id: 4, address: '10.0.0.4', port: 7400 }, 1).slot, 1, 'as told');
    assert.ok(table.refresh());
    assert.equal(table.view, 8);
    assert.deepEqual([table.id(1), table.id(2), table.role(2)], [4, 9, Role.MEMBER]);
  });

  it('has who comes back in its slot, with what was declared dead of it', () => {
    const { roster: list, table } = roster();
    list.evict('b', 1000);
    table.refresh();
    assert.deepEqual([table.isMember(1), table.dead(1)], [true, 1000]);
    list.evict('b', 900);
    list.remove('b');
    list.add({ name: 'b', id: 2, address: '10.0.0.22', port: 7400 });
    table.refresh();
    assert.deepEqual(table.entry(1), { ...entry('b', 2), address: '10.0.0.22', dead: 1000 });
  });

  it('refuses what cannot be, and says why', () => {
    const { roster: list } = roster();
    const add = (name: string, id: number, address: string, slot?: number) => () =>
      list.add({ name, id, address, port: 7400 }, slot);
    assert.throws(add('b', 3, '10.0.0.3'), /name b is already that of member b/);
    assert.throws(add('c', 2, '10.0.0.3'), /id 2 is already that of member b/);
    assert.throws(add('c', 3, '10.0.0.2'), /address 10\.0\.0\.2 is already that of member b/);
    assert.throws(add('c', 3, '10.0.0.3', 1), /slot 1 is that of member b/);
    assert.throws(add('c', 3, '10.0.0.3', 3), /there is no slot 3: cluster\.slots is 3/);
    assert.throws(() => list.remove('x'), /no member is called x; there are a, b/);
    assert.throws(() => list.remove('a'), /a is this instance/);
    add('c', 3, '10.0.0.3')();
    assert.throws(add('d', 4, '10.0.0.4'), /all 3 slots are taken/);
  });

  it('takes a whole list over, but for our own place', () => {
    const { roster: list, table } = roster();
    assert.equal(list.replace(77, [EMPTY_SLOT, entry('b', 2), entry('c', 3)]), true);
    assert.equal(list.replace(78, [EMPTY_SLOT, entry('b', 2), entry('c', 3)]), false);
    table.refresh();
    assert.equal(table.view, 78);
    assert.deepEqual(
      [0, 1, 2].map((slot) => table.name(slot)),
      ['a', 'b', 'c'],
    );
  });
});
