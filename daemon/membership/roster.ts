/**
 * Who takes part, as main knows it: the one writer of the member table (shm/members.ts). Whoever
 * learns of changes, an operator's command or etcd, tells them here; the send and the receive
 * thread see them in the table.
 */

import { EMPTY_SLOT, MemberTable, MemberTableWriter, Role, type SlotEntry } from '../../shm/members.js';

/** A change that cannot be made; the message says why, for an operator. */
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

  /** Goes on from what the table says. */
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

  /** Every slot that somebody has or had, in order. */
  list(): Placed[] {
    return this.entries.flatMap((entry, slot) => (entry.role === Role.EMPTY ? [] : [{ slot, entry }]));
  }

  /** By name; throws, naming those there are. */
  find(name: string): Placed {
    const found = this.list().find(({ entry }) => entry.name === name);
    if (found !== undefined) return found;
    const names = this.list().map(({ entry }) => entry.name);
    throw new RosterError(`no member is called ${name}; there are ${names.join(', ')}`);
  }

  /**
   * Takes a member in. Without `slot` it gets the lowest that nobody has. A name and id that left
   * or were evicted come back to their slot; what was declared dead of them stays dead.
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

  /** Takes a member off the list: nobody waits for it, nothing of it is believed. */
  remove(name: string): Placed {
    const { slot, entry } = this.findOther(name);
    return this.put(slot, { ...entry, role: Role.LEFT });
  }

  /** Declares the life `incarnation` of a member dead; another life of it may come. */
  evict(name: string, incarnation: number): Placed {
    const { slot, entry } = this.findOther(name);
    return this.put(slot, { ...entry, dead: Math.max(entry.dead, incarnation) });
  }

  /**
   * Takes over a whole table, in which our own slot stays ours. Returns whether anything changed
   * but the view.
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

  /** Slots nobody ever had first: what somebody else's totals are in is better left to them. */
  private freeSlot(): number {
    for (const role of [Role.EMPTY, Role.LEFT]) {
      const slot = this.entries.findIndex((entry) => entry.role === role);
      if (slot >= 0) return slot;
    }
    throw new RosterError(
      `all ${this.entries.length} slots are taken: remove a member, or start the cluster anew with a larger cluster.slots`,
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
