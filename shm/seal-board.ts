/**
 * What sealing keeps in shared memory, so that it outlives a thread: the keys, the send thread's counter, and what the
 * receive thread remembers against replays.
 *
 *     keys                 count, and of each its id and secret             written by main
 *     line of the sender   counter: datagrams are numbered below it         written by the send thread
 *     per member slot      member, key, and of each life: incarnation, highest      written by the receive thread
 *
 * **The counter** is moved ahead, a block at a time, before a number of the block is used, and a thread that starts begins
 * at it: no number is ever used twice, however a thread ends.
 *
 * **A life** is a sender's incarnation that proved, by a datagram sealed with the cluster's key, that it was there.
 * `highest` is stored before the datagram's content is believed. A receive thread that starts refuses everything up to it:
 * what was still under way is sent again, and nothing recorded is taken twice.
 */

import { Region } from './region.js';
import { LINE, struct } from './struct.js';
import { VersionedCells } from './versioned.js';

/** Keys at most, and words of a secret. */
const KEYS = 2;
const SECRET_WORDS = 8;
const KEY_FLOATS = 1 + SECRET_WORDS;
/** Lives of each member that are remembered. */
export const SEAL_LIVES = 4;

const HEADER = struct({ slots: LINE });
const SENDER = struct({ counter: { words: 2, line: true } });
const SLOT = struct({ member: LINE, key: 1, incarnation: 2 * SEAL_LIVES, highest: 2 * SEAL_LIVES });

export interface SealKey {
  /** 1 … 255. */
  readonly id: number;
  /** 32 bytes. */
  readonly secret: Uint8Array;
}

const SENDER_AT = HEADER.bytes;
const SLOTS_AT = SENDER_AT + SENDER.bytes;

function keysAt(slots: number): number {
  return SLOTS_AT + slots * SLOT.bytes;
}

/** Memory for the keys and for `slots` members. Main thread, once. */
export function createSealBoard(slots: number, keys: readonly SealKey[]): SharedArrayBuffer {
  const floats = 1 + KEYS * KEY_FLOATS;
  const buffer = new SharedArrayBuffer(keysAt(slots) + VersionedCells.bytes(1, floats));
  new Int32Array(buffer)[HEADER.at.slots] = slots;
  new SealBoard(buffer).writeKeys(keys);
  return buffer;
}

export class SealBoard {
  readonly slots: number;
  private readonly counters: Float64Array;
  private readonly i32: Int32Array;
  private readonly f64: Float64Array;
  private readonly keys: VersionedCells;

  constructor(buffer: SharedArrayBuffer) {
    this.slots = new Int32Array(buffer)[HEADER.at.slots];
    this.counters = new Region(buffer, SENDER_AT, SENDER.bytes).f64();
    const slots = new Region(buffer, SLOTS_AT, this.slots * SLOT.bytes);
    this.i32 = slots.i32();
    this.f64 = slots.f64();
    this.keys = new VersionedCells(new Region(buffer, keysAt(this.slots)), 1, 1 + KEYS * KEY_FLOATS);
  }

  /** Main: from the next datagram on, the first is used to send, and each is accepted. */
  writeKeys(keys: readonly SealKey[]): void {
    if (keys.length < 1 || keys.length > KEYS) throw new RangeError(`${keys.length} keys, not 1 … ${KEYS}`);
    const floats = new Float64Array(1 + KEYS * KEY_FLOATS);
    floats[0] = keys.length;
    keys.forEach(({ id, secret }, i) => {
      if (secret.length !== 4 * SECRET_WORDS) throw new RangeError(`key ${id} has ${secret.length} bytes`);
      floats[1 + i * KEY_FLOATS] = id;
      floats.set(new Uint32Array(Uint8Array.from(secret).buffer), 2 + i * KEY_FLOATS);
    });
    this.keys.write(0, floats, floats.length);
  }

  /** Changes when the keys do. */
  get keysVersion(): number {
    return this.keys.version(0);
  }

  /** The keys, the one to send with first. */
  readKeys(): SealKey[] {
    const floats = new Float64Array(1 + KEYS * KEY_FLOATS);
    this.keys.read(0, floats);
    return Array.from({ length: floats[0] }, (_, i) => {
      const at = 1 + i * KEY_FLOATS;
      const words = Uint32Array.from(floats.subarray(at + 1, at + KEY_FLOATS));
      return { id: floats[at], secret: new Uint8Array(words.buffer) };
    });
  }

  /** Every number used so far is below it; 0 at first. */
  get counter(): number {
    return this.counters[SENDER.at.counter >> 1];
  }

  /** Send thread, before it uses a number from `counter` on. */
  set counter(value: number) {
    this.counters[SENDER.at.counter >> 1] = value;
  }

  /** Id of the member that the slot's lives are of; 0: none. */
  memberOf(slot: number): number {
    return this.i32[slot * SLOT.words + SLOT.at.member];
  }

  /** Receive thread: the slot is another member's, of whom nothing is remembered. */
  setMember(slot: number, member: number): void {
    for (let i = 0; i < SEAL_LIVES; i++) this.setLife(slot, i, 0, 0);
    this.setKeyOf(slot, 0);
    this.i32[slot * SLOT.words + SLOT.at.member] = member;
  }

  /** The key of the last datagram opened of the member; 0: none was. */
  keyOf(slot: number): number {
    return this.i32[slot * SLOT.words + SLOT.at.key];
  }

  setKeyOf(slot: number, key: number): void {
    this.i32[slot * SLOT.words + SLOT.at.key] = key;
  }

  /** Incarnation of remembered life `i`; 0: none. */
  incarnation(slot: number, i: number): number {
    return this.f64[this.at(slot, SLOT.at.incarnation) + i];
  }

  highest(slot: number, i: number): number {
    return this.f64[this.at(slot, SLOT.at.highest) + i];
  }

  setHighest(slot: number, i: number, highest: number): void {
    this.f64[this.at(slot, SLOT.at.highest) + i] = highest;
  }

  /** Remembers another life. A thread that dies in between has forgotten the one and not yet noted the other. */
  setLife(slot: number, i: number, incarnation: number, highest: number): void {
    const at = this.at(slot, SLOT.at.incarnation) + i;
    this.f64[at] = 0;
    this.setHighest(slot, i, highest);
    this.f64[at] = incarnation;
  }

  private at(slot: number, field: number): number {
    return (slot * SLOT.words + field) >> 1;
  }
}
