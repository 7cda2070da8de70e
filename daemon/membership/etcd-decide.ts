/**
 * Decides what an instance does with the records that it reads in etcd. It is a pure function of
 * etcd's records, of the members that are heard on the state channel, and of the clock. The result
 * is the member table and what the instance must write.
 *
 * **A member that is heard is alive, whatever etcd says.** Its lease lapses if it cannot reach
 * etcd. Its records are gone if etcd was restored empty or from a backup. Such a member stays in
 * the table while it is heard, and no other member gets its slot.
 *
 * **Grace.** No member is declared dead for one lease after etcd is reached again, or after its
 * records turned out to be older than what was seen. Within that time, the other members may not
 * have claimed their slots again yet.
 *
 * | slot in etcd                                   | our table has a member in it             | our table has none     |
 * | ---------------------------------------------- | ---------------------------------------- | ---------------------- |
 * | a later incarnation of the member, or the same, alive | MEMBER                            | MEMBER                 |
 * | the same incarnation, evicted or left          | EVICTED, LEFT                            | EVICTED, LEFT          |
 * | the same incarnation, lapsed                   | stays while heard or in grace, then EVICTED | EVICTED; MEMBER in grace, if no other member is alive |
 * | an earlier incarnation, another member, nothing | stays while heard or in grace, then as etcd says; if nothing, EVICTED | as etcd says |
 *
 * | our own slot in etcd                           | what we do                                                        |
 * | ---------------------------------------------- | ----------------------------------------------------------------- |
 * | our incarnation, alive                         | nothing                                                           |
 * | our incarnation, lapsed                        | claim it again, with a new lease                                  |
 * | our incarnation, evicted or left; a later one of ours | end                                                        |
 * | nothing, an earlier incarnation of ours        | write our record again, and those of other members that are missing |
 * | another member, and our id is still ours       | end: we were removed, and the slot was given away                 |
 * | another member, and our id is not ours         | end if the other is alive and its incarnation is earlier; else write our record again |
 */

import { EMPTY_SLOT, Role, type SlotEntry } from '../../shm/members.js';
import type { SlotRecord } from './etcd-record.js';
import type { Records } from './etcd-records.js';

/** A slot of the member table, and the incarnation that its entry describes; 0: none. */
export interface Known {
  readonly entry: SlotEntry;
  readonly incarnation: number;
}

/** The etcd cluster that was read, and the revision. */
export interface Version {
  readonly clusterId: string;
  readonly revision: number;
}

export interface Situation {
  readonly records: Records;
  readonly version: Version;
  /** The latest version seen before; null: this is the first. */
  readonly seen: Version | null;
  /** Whether etcd was unreachable before this read. */
  readonly isRegained: boolean;
  readonly self: { readonly name: string; readonly id: number; readonly slot: number; readonly incarnation: number };
  /** By slot: the present entry of the table. */
  readonly known: readonly Known[];
  /** By slot: the incarnation that is heard on the state channel now; 0: none. */
  readonly heard: readonly number[];
  readonly now: number;
  /** The end of the grace period, as decided before. No member is declared dead until then. */
  readonly graceUntil: number;
  readonly leaseMs: number;
}

type Own = { readonly do: 'nothing' | 'claim' | 'write' } | { readonly do: 'end'; readonly why: string };

export interface Decision {
  readonly known: readonly Known[];
  readonly own: Own;
  readonly graceUntil: number;
  /**
   * Slots whose members stay, because they are heard or in grace, although etcd does not list them
   * as alive. The caller must decide again soon.
   */
  readonly contested: readonly number[];
  /** Why etcd's records are older than what was seen; null: they are not. */
  readonly older: string | null;
}

export function decide(situation: Situation): Decision {
  const { records, self, known, isRegained, now, leaseMs } = situation;
  const older = olderThanSeen(situation);
  const isReset = older !== null || isRegained || situation.seen === null;
  const graceUntil = isReset ? Math.max(situation.graceUntil, now + leaseMs) : situation.graceUntil;
  const after = known.map((before, slot) => {
    if (slot === self.slot) return before;
    const there = inEtcd(records, slot);
    const { role, id } = before.entry;
    if (role !== Role.MEMBER) return startOf(situation, before, there, slot, now < graceUntil);
    const record = records.record(slot);
    const isSame = record !== null && record.id === id && record.name === before.entry.name;
    if (isSame && record.incarnation > before.incarnation) return newer(before, there);
    const isSettled = there.entry.role === Role.MEMBER || record?.left === true || record?.evicted === true;
    if (isSame && record.incarnation === before.incarnation && isSettled) return newer(before, there);
    const isAlive = situation.heard[slot] !== 0 && situation.heard[slot] >= before.incarnation;
    if (isAlive || now < graceUntil) return before;
    if (isSame || record === null) return evicted(before);
    return record.id === id ? newer(before, there) : there;
  });
  const contested = after.flatMap(({ entry, incarnation }, slot) => {
    if (slot === self.slot || entry.role !== Role.MEMBER) return [];
    const there = inEtcd(records, slot);
    const isSame = there.entry.role === Role.MEMBER && there.incarnation === incarnation && there.entry.id === entry.id;
    return isSame ? [] : [slot];
  });
  return { known: after, own: ownPlace(records, self), graceUntil, contested, older };
}

/** Decides a slot in which our table has no member. */
function startOf(situation: Situation, before: Known, there: Known, slot: number, isGrace: boolean): Known {
  const { records, known, self } = situation;
  const record = records.record(slot);
  if (record === null) return before.entry.role === Role.EMPTY ? there : before;
  const isSame = record.id === before.entry.id;
  // Our entry is later than the record in etcd.
  if (isSame && record.incarnation < before.incarnation) return before;
  const hasLapsed = there.entry.role === Role.EVICTED && !record.evicted;
  const isFirst = before.entry.role === Role.EMPTY;
  const isAnyAlive = known.some((_, other) => other !== self.slot && records.alive(other) !== 0);
  // At our start, no other member has a lease. Either all have crashed, or none could reach etcd.
  if (hasLapsed && isFirst && isGrace && !isAnyAlive)
    return { ...there, entry: { ...there.entry, role: Role.MEMBER, dead: record.dead } };
  return isSame ? newer(before, there) : there;
}

/**
 * The entry from etcd, with the latest incarnation that was declared dead here or there. A member
 * that was evicted because its lease lapsed may claim its slot again.
 */
function newer(before: Known, there: Known): Known {
  const isBack = there.entry.role === Role.MEMBER && before.entry.dead >= there.incarnation;
  const dead = isBack ? there.entry.dead : Math.max(before.entry.dead, there.entry.dead);
  return { ...there, entry: { ...there.entry, dead } };
}

function evicted({ entry, incarnation }: Known): Known {
  return { incarnation, entry: { ...entry, role: Role.EVICTED, dead: Math.max(entry.dead, incarnation) } };
}

function inEtcd(records: Records, slot: number): Known {
  const record = records.record(slot);
  if (record === null) return { entry: EMPTY_SLOT, incarnation: 0 };
  return { entry: records.entry(slot), incarnation: record.incarnation };
}

function olderThanSeen({ seen, version, self, records }: Situation): string | null {
  if (seen === null) return null;
  if (seen.clusterId !== version.clusterId)
    return `it is another etcd cluster (${version.clusterId}, and not ${seen.clusterId})`;
  if (version.revision < seen.revision) return `its revision is ${version.revision}, and was ${seen.revision} already`;
  return records.record(self.slot) === null ? 'the record of this instance is gone' : null;
}

/** Decides what to do about our own slot. */
export function ownPlace(records: Records, self: Situation['self']): Own {
  const { name, id, slot, incarnation } = self;
  const record = records.record(slot);
  if (record === null) return { do: 'write' };
  if (record.name !== name || record.id !== id) return ownPlaceTaken(records, record, self);
  if (record.incarnation > incarnation)
    return { do: 'end', why: 'a later start of this instance has its place in etcd' };
  if (record.incarnation < incarnation) return { do: 'write' };
  if (record.evicted || record.left)
    return { do: 'end', why: 'the incarnation of this instance was declared over; it has to begin another one' };
  return { do: records.alive(slot) === incarnation ? 'nothing' : 'claim' };
}

function ownPlaceTaken(records: Records, record: SlotRecord, self: Situation['self']): Own {
  const { id, name, slot, incarnation } = self;
  const isLost = records.nameOf(id) !== name;
  const isAlive = records.alive(slot) === record.incarnation && !record.left && !record.evicted;
  const isEarlier = record.incarnation < incarnation || (record.incarnation === incarnation && record.name < self.name);
  if (isLost && !(isAlive && isEarlier)) return { do: 'write' };
  return { do: 'end', why: `slot ${slot} of this instance was given to member ${record.name}` };
}
