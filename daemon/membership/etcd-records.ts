/**
 * The records that a cluster keeps in etcd, and how they change. All keys begin with
 * `<prefix>/<cluster id>/`:
 *
 *     slots         number of slots, written by the first member
 *     ids/00001     name of the member that has this id; an id is never assigned twice
 *     slot/07       record of the slot's member: name, id, address, port, its present or last incarnation, the last incarnation declared dead before
 *     alive/07      the incarnation that has the slot; attached to the lease of that incarnation
 *
 * | slot/…                  | alive/… | the member                                          |
 * | ----------------------- | ------- | --------------------------------------------------- |
 * | no such key             | –       | EMPTY                                               |
 * | exists                  | exists  | MEMBER                                              |
 * | exists                  | gone    | EVICTED: its lease lapsed, or an operator evicted it |
 * | exists, with `left`     | gone    | LEFT in order: another member may get the slot      |
 */

import { EMPTY_SLOT, Role, type SlotEntry } from '../../shm/members.js';
import type { Condition, KeyValue, Operation } from './etcd-client.js';
import { decodeRecord, encodeRecord, type ReadRecord, type SlotRecord } from './etcd-record.js';
import { RosterError } from './roster.js';

/** An instance that applies for a slot. */
export interface Applicant {
  readonly name: string;
  readonly address: string;
  readonly port: number;
  readonly incarnation: number;
  readonly slots: number;
}

export interface Claim {
  readonly id: number;
  readonly slot: number;
  /**
   * The applicant's incarnation. It is later than requested if the clock was put back since its
   * last incarnation.
   */
  readonly incarnation: number;
  readonly conditions: readonly Condition[];
  readonly operations: readonly Operation[];
}

/** Operations that are done together if the conditions hold. */
interface Change {
  readonly conditions: readonly Condition[];
  readonly operations: readonly Operation[];
}

/** No slot can be had now, but one may become free later. */
export class NotYetError extends Error {}

const ID_MAX = 65_535;
/** Operations per transaction: etcd's default limit. */
const OPERATIONS_MAX = 128;

/** The prefix of all keys of a cluster. */
export function rootOf(prefix: string, cluster: string): string {
  return `${prefix.replace(/\/+$/, '')}/${encodeURIComponent(cluster)}/`;
}

export class Records {
  private readonly prefix: string;
  private readonly entries = new Map<string, KeyValue>();
  readonly slots: number;
  /** Each entry is decoded once. */
  private readonly decoded = new WeakMap<KeyValue, ReadRecord>();

  /** `prefix`: from `rootOf`. */
  constructor(prefix: string, slots: number) {
    this.prefix = prefix;
    this.slots = slots;
  }

  get root(): string {
    return this.prefix;
  }

  slotKey(slot: number): string {
    return `${this.prefix}slot/${String(slot).padStart(2, '0')}`;
  }

  aliveKey(slot: number): string {
    return `${this.prefix}alive/${String(slot).padStart(2, '0')}`;
  }

  /** Returns empty records of the same cluster. */
  empty(): Records {
    return new Records(this.prefix, this.slots);
  }

  /** Replaces everything with what was just read. */
  reset(entries: readonly KeyValue[]): void {
    this.entries.clear();
    for (const entry of entries) this.entries.set(entry.key, entry);
  }

  put(entry: KeyValue): void {
    this.entries.set(entry.key, entry);
  }

  delete(key: string): void {
    this.entries.delete(key);
  }

  /** Throws if this instance's number of slots differs from the cluster's. */
  check(): void {
    const slots = textOf(this.entries.get(`${this.prefix}slots`));
    if (slots !== undefined && slots !== String(this.slots))
      throw new RosterError(`cluster.slots is ${this.slots} here, and ${slots} at the members there are already`);
  }

  record(slot: number): SlotRecord | null {
    return this.read(slot)?.record ?? null;
  }

  private read(slot: number): ReadRecord | null {
    const entry = this.entries.get(this.slotKey(slot));
    if (entry === undefined) return null;
    let read = this.decoded.get(entry);
    if (read === undefined) {
      read = decodeRecord(entry.key, entry.value);
      this.decoded.set(entry, read);
    }
    return read;
  }

  /** Encodes a record for `slot` in a form that every member that is alive can read. */
  encode(record: SlotRecord, slot: number): Uint8Array {
    const others = Array.from({ length: this.slots }, (_, other) => other).filter((other) => other !== slot);
    const allRead = others.every((other) => this.alive(other) === 0 || this.read(other)?.readsCbor !== false);
    return encodeRecord(record, allRead);
  }

  /** Slot of the member with this name; −1: no such member. */
  slotOf(name: string): number {
    for (let slot = 0; slot < this.slots; slot++) if (this.record(slot)?.name === name) return slot;
    return -1;
  }

  /** The incarnation that is alive in the slot; 0: none. */
  alive(slot: number): number {
    return Number(textOf(this.entries.get(this.aliveKey(slot))) ?? 0);
  }

  revision(key: string): number {
    return this.entries.get(key)?.revision ?? 0;
  }

  /** Name of the member that has this id; null: the id was never assigned. */
  nameOf(id: number): string | null {
    return textOf(this.entries.get(this.idKey(id))) ?? null;
  }

  /** The entry of the slot for the member table. */
  entry(slot: number): SlotEntry {
    const record = this.record(slot);
    if (record === null) return EMPTY_SLOT;
    const { name, id, address, port } = record;
    const role = record.left ? Role.LEFT : this.alive(slot) === record.incarnation ? Role.MEMBER : Role.EVICTED;
    return { role, name, id, address, port, dead: role === Role.MEMBER ? record.dead : record.incarnation };
  }

  /**
   * The change by which a member claims its own slot again. Only the member itself may do this. The
   * alive key is attached to `lease`.
   */
  claimAgain(slot: number, incarnation: number, lease: string): Change {
    return {
      conditions: this.unchanged([this.slotKey(slot)]),
      operations: [{ put: this.aliveKey(slot), value: String(incarnation), lease }],
    };
  }

  /**
   * The change by which a member writes its record into a restored etcd in which it is missing or
   * older. It also writes missing records of other members, so that no newcomer gets their ids and
   * slots.
   */
  restore(slot: number, own: SlotRecord, others: ReadonlyMap<number, SlotRecord>, lease: string): Change {
    const slotsKey = `${this.prefix}slots`;
    const operations: Operation[] = [
      ...(this.entries.has(slotsKey) ? [] : [{ put: slotsKey, value: String(this.slots) }]),
      { put: this.idKey(own.id), value: own.name },
      { put: this.slotKey(slot), value: this.encode(own, slot) },
      { put: this.aliveKey(slot), value: String(own.incarnation), lease },
    ];
    for (const [other, record] of others) {
      if (operations.length + 2 > OPERATIONS_MAX) break;
      if (this.record(other) !== null || this.nameOf(record.id) !== null) continue;
      operations.push({ put: this.idKey(record.id), value: record.name });
      operations.push({ put: this.slotKey(other), value: this.encode(record, other) });
    }
    return { conditions: this.unchanged(operations.map((operation) => keyOf(operation))), operations };
  }

  private idKey(id: number): string {
    return `${this.prefix}ids/${String(id).padStart(5, '0')}`;
  }

  private unchanged(keys: readonly string[]): Condition[] {
    return keys.map((key) => ({ key, revision: this.revision(key) }));
  }

  /**
   * Finds a slot for an applicant, and the change that claims it. This is the applicant's slot from
   * an earlier incarnation. Otherwise it is the lowest slot that nobody ever had, or else the
   * lowest that a member left, with a new id. Throws a `NotYetError` if no slot is free, or while a
   * member with this name is alive.
   */
  claim(applicant: Applicant, lease: string): Claim {
    this.check();
    const { name, address } = applicant;
    const own = this.slotOf(name);
    if (own >= 0 && this.alive(own) !== 0 && this.alive(own) !== applicant.incarnation)
      throw new NotYetError(
        `a member called ${name} is alive, or was until a moment ago: waiting for its lease to lapse`,
      );
    for (let slot = 0; slot < this.slots; slot++) {
      const other = this.record(slot);
      if (other !== null && slot !== own && !other.left && other.address === address)
        throw new RosterError(`address ${address} is already that of member ${other.name}`);
    }
    const slot = own >= 0 ? own : this.freeSlot();
    const before = own >= 0 ? this.record(own) : null;
    const id = before?.id ?? this.nextId();
    const isSameIncarnation = before?.incarnation === applicant.incarnation;
    const incarnation = isSameIncarnation
      ? applicant.incarnation
      : Math.max(applicant.incarnation, incarnationOf(before) + 1);
    const dead = before === null ? 0 : isSameIncarnation ? before.dead : before.incarnation;
    const record: SlotRecord = {
      ...{ name, id, address, port: applicant.port, incarnation, dead },
      ...{ left: false, evicted: false },
    };
    const idKey = this.idKey(id);
    const slotsKey = `${this.prefix}slots`;
    return {
      id,
      slot,
      incarnation,
      conditions: this.unchanged([idKey, slotsKey, this.slotKey(slot), this.aliveKey(slot)]),
      operations: [
        ...(own >= 0 ? [] : [{ put: idKey, value: name }]),
        ...(this.entries.has(slotsKey) ? [] : [{ put: slotsKey, value: String(this.slots) }]),
        { put: this.slotKey(slot), value: this.encode(record, slot) },
        { put: this.aliveKey(slot), value: String(incarnation), lease },
      ],
    };
  }

  private freeSlot(): number {
    for (const isFree of [(record: SlotRecord | null) => record === null, (record: SlotRecord | null) => record?.left])
      for (let slot = 0; slot < this.slots; slot++) if (isFree(this.record(slot))) return slot;
    throw new NotYetError(`all ${this.slots} slots are taken: waiting until a member leaves, or is removed`);
  }

  private nextId(): number {
    let last = 0;
    for (const key of this.entries.keys())
      if (key.startsWith(`${this.prefix}ids/`)) last = Math.max(last, Number(key.slice(-5)));
    if (last >= ID_MAX) throw new RosterError(`all ${ID_MAX} member ids were given out`);
    return last + 1;
  }
}

const keyOf = (operation: Operation): string => ('put' in operation ? operation.put : operation.delete);

const incarnationOf = (record: SlotRecord | null): number => record?.incarnation ?? 0;

const textOf = (entry: KeyValue | undefined): string | undefined =>
  entry === undefined ? undefined : Buffer.from(entry.value).toString();
