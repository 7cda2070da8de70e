/**
 * The member table: the members of the cluster by slot. Main writes it as a whole. The send and the
 * receive thread read it as a whole when its version has changed.
 *
 *     one versioned cell: view, then per slot: id, role, dead, port, name (text), address (text)
 *
 * A member keeps its *slot* as long as it takes part: acknowledgement vectors, totals and leased
 * ports go by slots. The number of slots is fixed when the instance starts; which of them are taken
 * is not.
 *
 * | role    | messages      | is waited for | `dead`                                                                 |
 * | ------- | ------------- | ------------- | ---------------------------------------------------------------------- |
 * | EMPTY   | refused       | no            | 0                                                                      |
 * | MEMBER  | of incarnations above `dead` | yes | the last incarnation declared dead; 0: none                      |
 * | EVICTED | refused       | no            | the incarnation declared dead: survivors complete what it left half-delivered |
 * | LEFT    | refused       | no            | the incarnation that left, after all members had everything of it      |
 *
 * Only an EMPTY or a LEFT slot is given to another member.
 */

import { Region } from './region.js';
import { getText, putText } from './text-floats.js';
import { VersionedCells } from './versioned.js';

export const Role = { EMPTY: 0, MEMBER: 1, EVICTED: 2, LEFT: 3 } as const;
export type Role = (typeof Role)[keyof typeof Role];

/** Each member has a bit in the masks of messages, and an index in every vector. */
export const SLOTS_MAX = 64;

/** One slot of the table. */
export interface SlotEntry {
  readonly role: Role;
  /** Member id; 0 while EMPTY. */
  readonly id: number;
  /** Up to 36 ASCII characters. */
  readonly name: string;
  /** Numeric IP address, up to 60 ASCII characters. */
  readonly address: string;
  readonly port: number;
  /** The last incarnation declared dead. 0: none. */
  readonly dead: number;
}

export const EMPTY_SLOT: SlotEntry = { role: Role.EMPTY, id: 0, name: '', address: '', port: 0, dead: 0 };

const NAME_FLOATS = 6;
const ADDRESS_FLOATS = 10;
const SLOT = { id: 0, role: 1, dead: 2, port: 3, name: 4, address: 4 + NAME_FLOATS } as const;
const SLOT_FLOATS = SLOT.address + ADDRESS_FLOATS;
const SLOTS_AT = 1;

function cellFloats(slots: number): number {
  return SLOTS_AT + slots * SLOT_FLOATS;
}

function slotsOf(buffer: SharedArrayBuffer): number {
  for (let slots = 1; slots <= SLOTS_MAX; slots++)
    if (VersionedCells.bytes(1, cellFloats(slots)) === buffer.byteLength) return slots;
  throw new Error('not a member table');
}

/**
 * Memory for an empty table. Main calls it once. Throws if `slots` is not from 1 to `SLOTS_MAX`.
 */
export function createMemberTable(slots: number): SharedArrayBuffer {
  if (!(Number.isInteger(slots) && slots >= 1 && slots <= SLOTS_MAX))
    throw new RangeError(`${slots} slots, from 1 to ${SLOTS_MAX} are possible`);
  return new SharedArrayBuffer(VersionedCells.bytes(1, cellFloats(slots)));
}

/** The only writer: main. */
export class MemberTableWriter {
  readonly slots: number;
  private readonly cells: VersionedCells;
  private readonly floats: Float64Array;

  constructor(buffer: SharedArrayBuffer) {
    this.slots = slotsOf(buffer);
    this.floats = new Float64Array(cellFloats(this.slots));
    this.cells = new VersionedCells(new Region(buffer), 1, this.floats.length);
  }

  /**
   * Replaces the table by `entries`; slots past its end become EMPTY. `view` is the version of the
   * member list. Throws if there are more entries than slots.
   */
  write(view: number, entries: readonly SlotEntry[]): void {
    const { floats } = this;
    if (entries.length > this.slots) throw new RangeError(`${entries.length} entries for ${this.slots} slots`);
    floats[0] = view;
    for (let slot = 0; slot < this.slots; slot++) {
      const entry = entries[slot] ?? EMPTY_SLOT;
      const at = SLOTS_AT + slot * SLOT_FLOATS;
      floats[at + SLOT.id] = entry.id;
      floats[at + SLOT.role] = entry.role;
      floats[at + SLOT.dead] = entry.dead;
      floats[at + SLOT.port] = entry.port;
      putText(floats, at + SLOT.name, NAME_FLOATS, entry.name);
      putText(floats, at + SLOT.address, ADDRESS_FLOATS, entry.address);
    }
    this.cells.write(0, floats, floats.length);
  }
}

/** A thread's own copy of the table. `refresh` updates it. */
export class MemberTable {
  readonly slots: number;
  /** Grows with every change of this copy. */
  version = 0;
  view = 0;
  private readonly cells: VersionedCells;
  private readonly floats: Float64Array;
  private readonly names: string[];
  private readonly addresses: string[];
  private readonly slotsById = new Map<number, number>();

  constructor(buffer: SharedArrayBuffer) {
    this.slots = slotsOf(buffer);
    this.floats = new Float64Array(cellFloats(this.slots));
    this.cells = new VersionedCells(new Region(buffer), 1, this.floats.length);
    this.names = new Array<string>(this.slots).fill('');
    this.addresses = new Array<string>(this.slots).fill('');
    this.refresh();
  }

  /**
   * Copies the table if it was written since the last call, and returns whether it was. If not, it
   * costs one atomic load.
   */
  refresh(): boolean {
    if (this.cells.version(0) === this.version) return false;
    const { floats } = this;
    this.version = this.cells.read(0, floats);
    this.view = floats[0];
    this.slotsById.clear();
    for (let slot = 0; slot < this.slots; slot++) {
      const at = SLOTS_AT + slot * SLOT_FLOATS;
      this.names[slot] = getText(floats, at + SLOT.name, NAME_FLOATS);
      this.addresses[slot] = getText(floats, at + SLOT.address, ADDRESS_FLOATS);
      if (this.role(slot) !== Role.EMPTY) this.slotsById.set(this.id(slot), slot);
    }
    return true;
  }

  /** Slot of the member with this id, whatever its role is now. −1: no such member. */
  slotOf(id: number): number {
    return this.slotsById.get(id) ?? -1;
  }

  role(slot: number): Role {
    return this.floats[SLOTS_AT + slot * SLOT_FLOATS + SLOT.role] as Role;
  }

  /** Whether a member takes part in this slot. */
  isMember(slot: number): boolean {
    return this.role(slot) === Role.MEMBER;
  }

  id(slot: number): number {
    return this.floats[SLOTS_AT + slot * SLOT_FLOATS + SLOT.id];
  }

  /** The last incarnation of the slot that was declared dead. 0: none. */
  dead(slot: number): number {
    return this.floats[SLOTS_AT + slot * SLOT_FLOATS + SLOT.dead];
  }

  port(slot: number): number {
    return this.floats[SLOTS_AT + slot * SLOT_FLOATS + SLOT.port];
  }

  name(slot: number): string {
    return this.names[slot];
  }

  address(slot: number): string {
    return this.addresses[slot];
  }

  /** Number of slots in which a member takes part. */
  get members(): number {
    let members = 0;
    for (let slot = 0; slot < this.slots; slot++) if (this.isMember(slot)) members++;
    return members;
  }

  entry(slot: number): SlotEntry {
    return {
      role: this.role(slot),
      id: this.id(slot),
      name: this.name(slot),
      address: this.address(slot),
      port: this.port(slot),
      dead: this.dead(slot),
    };
  }
}
