/** What an instance makes of etcd's records, of the members that are heard, and of the clock. */

import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { type Decision, decide, type Known, type Situation } from '../../../daemon/membership/etcd-decide.js';
import { encodeRecord, type SlotRecord } from '../../../daemon/membership/etcd-record.js';
import { Records } from '../../../daemon/membership/etcd-records.js';
import { EMPTY_SLOT, Role } from '../../../shm/members.js';

const SLOTS = 4;
const SELF = { name: 'a', id: 1, slot: 0, incarnation: 100 } as const;
const LEASE_MS = 10_000;
const NAMES = ['a', 'b', 'c', 'd'];

interface InEtcd extends Partial<SlotRecord> {
  readonly slot: number;
  /** Its key of the living is there. */
  readonly alive?: boolean;
}

function recordsOf(places: readonly InEtcd[], ids?: readonly (readonly [number, string])[]): Records {
  const records = new Records('/ct/x/', SLOTS);
  const given = ids ?? places.map(({ slot, id = slot + 1, name = NAMES[slot] }) => [id, name] as const);
  for (const [id, name] of given)
    records.put({ key: `/ct/x/ids/${String(id).padStart(5, '0')}`, value: Buffer.from(name), revision: 1 });
  for (const { slot, alive = false, ...more } of places) {
    const record = {
      ...{ name: NAMES[slot], id: slot + 1, address: `10.0.0.${slot + 1}`, port: 7400, incarnation: 100 },
      ...{ dead: 0, left: false, evicted: false, ...more },
    };
    records.put({ key: records.slotKey(slot), value: encodeRecord(record, true), revision: 1 });
    if (alive)
      records.put({ key: records.aliveKey(slot), value: Buffer.from(String(record.incarnation)), revision: 1 });
  }
  return records;
}

const OWN: InEtcd = { slot: 0, alive: true };

function knownOf(entries: readonly { slot: number; role: Role; incarnation: number; dead?: number }[]): Known[] {
  return Array.from({ length: SLOTS }, (_, slot) => {
    const found = entries.find((entry) => entry.slot === slot);
    if (slot !== 0 && found === undefined) return { entry: EMPTY_SLOT, incarnation: 0 };
    const { role, incarnation, dead = 0 } = found ?? { role: Role.MEMBER, incarnation: 100 };
    const entry = { role, name: NAMES[slot], id: slot + 1, address: `10.0.0.${slot + 1}`, port: 7400, dead };
    return { entry, incarnation };
  });
}

const B = { slot: 1, role: Role.MEMBER, incarnation: 100 } as const;

function decideOn(more: Partial<Situation> & Pick<Situation, 'records'>): Decision {
  return decide({
    ...{ version: { clusterId: 'x', revision: 20 }, seen: { clusterId: 'x', revision: 10 }, isRegained: false },
    ...{ self: SELF, known: knownOf([B]), heard: [0, 0, 0, 0], now: 1e6, graceUntil: 0, leaseMs: LEASE_MS },
    ...more,
  });
}

const roleOfB = (decision: Decision): Role => decision.known[1].entry.role;

describe('what follows from etcd', () => {
  it('a member whose lease lapsed stays while it is heard, and is evicted once it is not', () => {
    const records = recordsOf([OWN, { slot: 1 }]);
    const heard = decideOn({ records, heard: [0, 100, 0, 0] });
    assert.deepEqual([roleOfB(heard), heard.contested], [Role.MEMBER, [1]]);
    // An earlier incarnation that is heard says nothing of this one.
    for (const incarnation of [0, 99]) {
      const silent = decideOn({ records, heard: [0, incarnation, 0, 0] });
      assert.deepEqual([roleOfB(silent), silent.known[1].entry.dead, silent.contested], [Role.EVICTED, 100, []]);
    }
  });

  it('nobody is declared dead before a lease has passed since etcd was reached again, or turned out to be older', () => {
    const gone = recordsOf([OWN]);
    const lapsed = recordsOf([OWN, { slot: 1 }]);
    const older = { clusterId: 'x', revision: 5 };
    const other = { clusterId: 'y', revision: 50 };
    for (const more of [
      { records: lapsed, isRegained: true },
      { records: gone, version: older },
      { records: gone, version: other },
      { records: lapsed, version: older },
      { records: recordsOf([]), isRegained: false },
    ]) {
      const first = decideOn(more);
      assert.equal(roleOfB(first), Role.MEMBER);
      assert.equal(first.graceUntil, 1e6 + LEASE_MS);
      const then = { records: more.records, graceUntil: first.graceUntil, seen: more.version ?? null };
      const settled = { ...then, version: more.version ?? { clusterId: 'x', revision: 20 } };
      const seen = settled.version;
      assert.equal(roleOfB(decideOn({ ...settled, seen, now: 1e6 + LEASE_MS - 1 })), Role.MEMBER);
      if (more.records.record(0) !== null)
        assert.equal(roleOfB(decideOn({ ...settled, seen, now: 1e6 + LEASE_MS })), Role.EVICTED);
    }
  });

  it('an older truth is named, and only then', () => {
    const records = recordsOf([OWN]);
    assert.equal(decideOn({ records }).older, null);
    assert.equal(decideOn({ records, seen: null }).older, null);
    assert.match(
      decideOn({ records, version: { clusterId: 'x', revision: 9 } }).older ?? '',
      /revision is 9, and was 10/,
    );
    assert.match(
      decideOn({ records, version: { clusterId: 'y', revision: 11 } }).older ?? '',
      /another etcd cluster \(y, and not x\)/,
    );
    assert.match(decideOn({ records: recordsOf([]) }).older ?? '', /the record of this instance is gone/);
  });

  it('an operator who evicts, and a member that leaves, are believed at once, even if it is heard', () => {
    const heard = [0, 100, 0, 0];
    for (const [more, role] of [
      [{ evicted: true }, Role.EVICTED],
      [{ left: true }, Role.LEFT],
    ] as const) {
      assert.equal(roleOfB(decideOn({ records: recordsOf([OWN, { slot: 1, ...more }]), heard })), role);
      // But not in the record of an incarnation before this one.
      const earlier = recordsOf([OWN, { slot: 1, incarnation: 50, ...more }]);
      assert.equal(roleOfB(decideOn({ records: earlier, heard })), Role.MEMBER);
    }
  });

  it('the slot of a member that is heard goes to no other', () => {
    const records = recordsOf([OWN, { slot: 1, name: 'n', id: 9, alive: true }]);
    assert.equal(decideOn({ records, heard: [0, 100, 0, 0] }).known[1].entry.name, 'b');
    assert.equal(decideOn({ records }).known[1].entry.name, 'n');
  });

  it('a later incarnation takes the place of the one before, and what was declared dead stays dead', () => {
    const later = recordsOf([OWN, { slot: 1, incarnation: 200, dead: 100, alive: true }]);
    const { entry, incarnation } = decideOn({ records: later, heard: [0, 100, 0, 0] }).known[1];
    assert.deepEqual([entry.role, entry.dead, incarnation], [Role.MEMBER, 100, 200]);
    const evicted = knownOf([{ slot: 1, role: Role.EVICTED, incarnation: 100, dead: 100 }]);
    for (const record of [{ incarnation: 50, alive: true }, { incarnation: 100 }]) {
      const { entry: after } = decideOn({ records: recordsOf([OWN, { slot: 1, ...record }]), known: evicted }).known[1];
      assert.deepEqual([after.role, after.dead], [Role.EVICTED, 100]);
    }
  });

  it('an incarnation that was evicted because its lease lapsed may claim its place again', () => {
    const known = knownOf([{ slot: 1, role: Role.EVICTED, incarnation: 100, dead: 100 }]);
    const { entry } = decideOn({ records: recordsOf([OWN, { slot: 1, dead: 50, alive: true }]), known }).known[1];
    assert.deepEqual([entry.role, entry.dead], [Role.MEMBER, 50]);
  });

  it('at its start an instance waits for members without leases, if none has one: etcd may have been away', () => {
    const start = { known: knownOf([]), seen: null };
    const all = decideOn({ records: recordsOf([OWN, { slot: 1 }, { slot: 2 }]), ...start });
    assert.deepEqual(
      all.known.map(({ entry }) => entry.role),
      [Role.MEMBER, Role.MEMBER, Role.MEMBER, Role.EMPTY],
    );
    const some = decideOn({ records: recordsOf([OWN, { slot: 1 }, { slot: 2, alive: true }]), ...start });
    assert.deepEqual([roleOfB(some), some.known[2].entry.role], [Role.EVICTED, Role.MEMBER]);
    assert.equal(roleOfB(decideOn({ records: recordsOf([OWN, { slot: 1, evicted: true }]), ...start })), Role.EVICTED);
  });

  it('our own place is claimed, written again or lost, by the table', () => {
    const own = (places: readonly InEtcd[], ids?: readonly (readonly [number, string])[]): string =>
      decideOn({ records: recordsOf(places, ids) }).own.do;
    assert.equal(own([OWN]), 'nothing');
    assert.equal(own([{ slot: 0 }]), 'claim');
    assert.equal(own([]), 'write');
    assert.equal(own([{ slot: 0, incarnation: 50, left: true }]), 'write');
    assert.equal(own([{ slot: 0, incarnation: 200, alive: true }]), 'end');
    assert.equal(own([{ slot: 0, evicted: true }]), 'end');
    assert.equal(own([{ slot: 0, left: true }]), 'end');
    const other = { slot: 0, name: 'n', id: 9, alive: true };
    // Removed by an operator while it was cut off: its id is still its own.
    const removed = [
      [1, 'a'],
      [9, 'n'],
    ] as const;
    assert.equal(own([{ ...other, incarnation: 500 }], removed), 'end');
    // Of two members that both were given the slot, the later one ends.
    assert.equal(own([{ ...other, id: 1, incarnation: 500 }], [[1, 'n']]), 'write');
    assert.equal(own([{ ...other, id: 1, incarnation: 50 }], [[1, 'n']]), 'end');
    assert.equal(own([{ ...other, id: 1, incarnation: 50, alive: false }], [[1, 'n']]), 'write');
  });

  it('whatever etcd says: who is heard and was not ended stays, and the dead stay dead', () => {
    const place = fc.record({
      slot: fc.integer({ min: 0, max: SLOTS - 1 }),
      name: fc.constantFrom(...NAMES),
      id: fc.integer({ min: 1, max: 6 }),
      incarnation: fc.integer({ min: 1, max: 4 }),
      dead: fc.nat(3),
      left: fc.boolean(),
      evicted: fc.boolean(),
      alive: fc.boolean(),
    });
    const one = fc.record({
      role: fc.constantFrom(Role.EMPTY, Role.MEMBER, Role.EVICTED, Role.LEFT),
      incarnation: fc.integer({ min: 1, max: 4 }),
      dead: fc.nat(3),
      heard: fc.nat(4),
    });
    fc.assert(
      fc.property(
        fc.uniqueArray(place, { selector: ({ slot }) => slot }),
        fc.array(one, { minLength: SLOTS, maxLength: SLOTS }),
        fc.record({ revision: fc.integer({ min: 1, max: 20 }), isRegained: fc.boolean(), grace: fc.nat(2) }),
        (places, drawn, { revision, isRegained, grace }) => {
          const records = recordsOf(
            places.map((each) => ({ ...each, dead: Math.min(each.dead, each.incarnation - 1) })),
          );
          const known = knownOf(drawn.map((each, slot) => ({ ...each, slot: each.role === Role.EMPTY ? 99 : slot })));
          const heard = drawn.map((each) => each.heard);
          const now = 1e6;
          const graceUntil = now + (grace - 1) * LEASE_MS;
          const decision = decideOn({
            records,
            known,
            heard,
            now,
            graceUntil,
            isRegained,
            version: { clusterId: 'x', revision },
          });
          const isGrace = now < decision.graceUntil;
          assert.ok(decision.graceUntil >= graceUntil);
          assert.deepEqual(decision.known[0], known[0], 'our own slot stays ours');
          for (let slot = 1; slot < SLOTS; slot++) {
            const [before, after] = [known[slot], decision.known[slot]];
            const record = records.record(slot);
            const isSame = record?.id === before.entry.id && record.name === before.entry.name;
            const isEnded = isSame && record.incarnation >= before.incarnation && (record.left || record.evicted);
            const isNewer = isSame && record.incarnation > before.incarnation;
            const mustStay = isGrace || heard[slot] >= before.incarnation;
            if (before.entry.role === Role.MEMBER && mustStay && !isEnded && !isNewer)
              assert.deepEqual([after.entry.role, after.entry.id], [Role.MEMBER, before.entry.id]);
            const isMember = after.entry.role === Role.MEMBER;
            if (after.entry.id === before.entry.id && !(isMember && before.entry.dead >= after.incarnation))
              assert.ok(after.entry.dead >= before.entry.dead, 'the dead stay dead');
            if (isMember && after !== before) assert.ok(after.entry.dead < after.incarnation, 'a member is believed');
            if (before.entry.role !== Role.EMPTY) assert.notEqual(after.entry.role, Role.EMPTY);
          }
        },
      ),
      { numRuns: 500 },
    );
  });

  it('of two members that were given one slot, by an etcd that was restored, exactly one ends', () => {
    const incarnation = fc.integer({ min: 1, max: 5 });
    fc.assert(
      fc.property(incarnation, incarnation, fc.boolean(), (ours, theirs, isSameId) => {
        const both = [
          { name: 'a', id: 1, slot: 0, incarnation: ours },
          { name: 'n', id: isSameId ? 1 : 2, slot: 0, incarnation: theirs },
        ];
        const verdicts = both.map((self, i) => {
          const { name, id, incarnation } = both[1 - i];
          const records = recordsOf([{ slot: 0, name, id, incarnation, alive: true }], [[id, name]]);
          return decideOn({ records, self }).own.do;
        });
        assert.deepEqual(verdicts.toSorted(), ['end', 'write']);
      }),
    );
  });
});
