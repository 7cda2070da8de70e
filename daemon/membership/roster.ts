/**
 * The member list in the main thread: the only writer of the member table (shm/members.ts).
 * Operators' commands and etcd change it here. The send and receive threads read the table.
 */

import { EMPTY_SLOT, MemberTable, MemberTableWriter, Role, type SlotEntry } from '../../shm/members.js';

/** A change that cannot be made. The message gives the reason, for an operator. */
export class RosterError extends Error {}

export interface Placed {
  readonly slot: number;
  readonly entry: SlotEntry;
}

export class Roster {
  /** Our own slot. */
  readonly self: number;
  private readonly writer: MemberTableWriter;
  private readonly entries: SlotEntry[];
  private version: number;

  /** Starts with the present content of the table. */
  constructor(table: SharedArrayBuffer, self: number) {
    const now = new MemberTable(table);
    this.self = self;
    this.writer = new MemberTableWriter(table);
    this.entries = Array.from({ length: now.slots }, (_, slot) => now.entry(slot));
    this.version = now.view;
  }

  get view(): number {
    return this.version;
  }

  /** Every slot that a member has or had, in order. */
  list(): Placed[] {
    return this.entries.flatMap((entry, slot) => (entry.role === Role.EMPTY ? [] : [{ slot, entry }]));
  }

  /** Finds a member by name. Throws an error that lists all names. */
  find(name: string): Placed {
    const found = this.list().find(({ entry }) => entry.name === name);
    if (found !== undefined) return found;
    const names = this.list().map(({ entry }) => entry.name);
    throw new RosterError(`no member is called ${name}; there are ${names.join(', ')}`);
  }

  /**
   * Adds a member. Without `slot` it gets the lowest free slot. A member with a known name and id
   * returns to its slot; its dead incarnations stay dead.
   */
  add(member: Pick<SlotEntry, 'name' | 'id' | 'address' | 'port'>, slot?: number): Placed {
    const known = this.list().find(({ entry }) => entry.name === member.name && entry.id === member.id);
    const place = slot ?? known?.slot ?? this.freeSlot();
    this.checkPlace(place, known);
    for (const { slot: other, entry } of this.list()) {
      if (other === place) continue;
      for (const key of ['name', 'id', 'address'] as const)
        if (entry[key] === member[key] && entry.role !== Role.LEFT)
          throw new RosterError(`${key} ${member[key]} is already that of member ${entry.name}`);
    }
    return this.put(place, { ...member, role: Role.MEMBER, dead: known?.entry.dead ?? 0 });
  }

  /**
   * Removes a member from the list. Nobody waits for it, and its messages are no longer accepted.
   */
  remove(name: string): Placed {
    const { slot, entry } = this.findOther(name);
    return this.put(slot, { ...entry, role: Role.LEFT });
  }

  /** Declares `incarnation` of a member dead. A later incarnation of it may come. */
  evict(name: string, incarnation: number): Placed {
    const { slot, entry } = this.findOther(name);
    return this.put(slot, { ...entry, dead: Math.max(entry.dead, incarnation) });
  }

  /**
   * Replaces the whole table except our own slot. Returns whether anything but the view changed.
   */
  replace(view: number, entries: readonly SlotEntry[]): boolean {
    const own = this.entries[this.self];
    let changed = false;
    for (let slot = 0; slot < this.entries.length; slot++) {
      const entry = slot === this.self ? own : (entries[slot] ?? EMPTY_SLOT);
      changed ||= !isSame(entry, this.entries[slot]);
      this.entries[slot] = entry;
    }
    if (changed || view !== this.version) this.write(view);
    return changed;
  }

  private put(slot: number, entry: SlotEntry): Placed {
    this.entries[slot] = entry;
    this.write(this.version + 1);
    return { slot, entry };
  }

  private write(view: number): void {
    this.version = view;
    this.writer.write(view, this.entries);
  }

  private findOther(name: string): Placed {
    const found = this.find(name);
    if (found.slot === this.self)
      throw new RosterError(`${name} is this instance; drain and shutdown take it out of service`);
    return found;
  }

  /**
   * Prefers slots that no member ever had, because objects may still have a former member's totals
   * in its slot.
   */
  private freeSlot(): number {
    for (const role of [Role.EMPTY, Role.LEFT]) {
      const slot = this.entries.findIndex((entry) => entry.role === role);
      if (slot >= 0) return slot;
    }
    throw new RosterError(
      `all ${this.entries.length} slots are taken: remove a member, or restart the cluster with a larger cluster.slots`,
    );
  }

  private checkPlace(slot: number, known: Placed | undefined): void {
    const { length } = this.entries;
    if (slot >= length) throw new RosterError(`there is no slot ${slot}: cluster.slots is ${length}, counted from 0`);
    const { role, name } = this.entries[slot];
    if (slot === known?.slot || role === Role.EMPTY || role === Role.LEFT) return;
    throw new RosterError(`slot ${slot} is that of member ${name}`);
  }
}

function isSame(a: SlotEntry, b: SlotEntry): boolean {
  return (
    a.role === b.role &&
    a.id === b.id &&
    a.name === b.name &&
    a.address === b.address &&
    a.port === b.port &&
    a.dead === b.dead
  );
}
