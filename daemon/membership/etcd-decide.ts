/**
 * What an instance makes of what it reads in etcd: a pure function of etcd's records, of the
 * members that are heard on the state channel, and of the clock. It decides what the member table
 * says, and what the instance has to write.
 *
 * **A member that is heard is alive, whatever etcd says.** Its lease lapses if it cannot reach
 * etcd, and its records are gone if etcd was restored empty or from a backup. Such a member stays
 * in the table while it is heard, and its slot goes to no other.
 *
 * **Grace.** For one lease after etcd is reached again, or after its records turned out to be older
 * than what was seen, no member is declared dead: the others may not have claimed their places
 * again.
 *
 * | slot in etcd                                   | our table has a member there             | it has none there      |
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
 * | another member, and our id is not ours         | the later incarnation of both ends; the earlier writes its record again |
 */

import { EMPTY_SLOT, Role, type SlotEntry } from '../../shm/members.js';
import type { SlotRecord } from './etcd-record.js';
import type { Records } from './etcd-records.js';

/** A slot of the member table, and the incarnation that its entry is about; 0: none. */
export interface Known {
  readonly entry: SlotEntry;
  readonly incarnation: number;
}

/** Which etcd was read, and when in its history. */
export interface Version {
  readonly clusterId: string;
  readonly revision: number;
}

export interface Situation {
  readonly records: Records;
  readonly version: Version;
  /** The latest version seen before; null: this is the first. */
  readonly seen: Version | null;
  /** Etcd was not reached before this was read. */
  readonly isRegained: boolean;
  readonly self: { readonly name: string; readonly id: number; readonly slot: number; readonly incarnation: number };
  /** By slot: what the table says now. */
  readonly known: readonly Known[];
  /** By slot: the incarnation that is heard on the state channel at present; 0: none. */
  readonly heard: readonly number[];
  readonly now: number;
  /** Until when no member is declared dead, as decided before. */
  readonly graceUntil: number;
  readonly leaseMs: number;
}

export type Own = { readonly do: 'nothing' | 'claim' | 'write' } | { readonly do: 'end'; readonly why: string };

export interface Decision {
  readonly known: readonly Known[];
  readonly own: Own;
  readonly graceUntil: number;
  /**
   * Slots whose members stay though etcd says otherwise, since they are heard, or in grace: decide
   * again soon.
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

/** A slot in which our table has no member. */
function startOf(situation: Situation, before: Known, there: Known, slot: number, isGrace: boolean): Known {
  const { records, known, self } = situation;
  const record = records.record(slot);
  if (record === null) return before.entry.role === Role.EMPTY ? there : before;
  const isSame = record.id === before.entry.id;
  // What we know of it is later than what etcd says.
  if (isSame && record.incarnation < before.incarnation) return before;
  const hasLapsed = there.entry.role === Role.EVICTED && !record.evicted;
  const isFirst = before.entry.role === Role.EMPTY;
  const isAnyAlive = known.some((_, other) => other !== self.slot && records.alive(other) !== 0);
  // At our start no other member has a lease: all have crashed, or etcd was away from all of them.
  if (hasLapsed && isFirst && isGrace && !isAnyAlive)
    return { ...there, entry: { ...there.entry, role: Role.MEMBER, dead: record.dead } };
  return isSame ? newer(before, there) : there;
}

/**
 * What etcd says, in which no incarnation before that one comes back. One that was evicted because
 * its lease lapsed may claim its place again.
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

/** What to do about our own place. */
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
