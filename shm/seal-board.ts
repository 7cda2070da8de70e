/**
 * The memory of sealing that outlives a thread: the keys, the salt of this run, the send thread's
 * counter, and what the receive thread remembers against replays.
 *
 *     keys                 count; id and secret of each key                 written by main
 *     line of the sender   counter: every used number is below it           written by the send thread
 *                          salt: random, drawn when the board is made       written by main, once
 *     per member slot      member, key; for each of its last incarnations   written by the receive thread
 *                          that proved itself: incarnation, salt, highest
 *
 * **The counter** is moved ahead by a block before a number of that block is used. A send thread
 * that starts begins at the counter. So no number is used twice, however a thread ends.
 *
 * **The salt** belongs to this memory: one salt for each start of an instance. The key of sealed
 * datagrams is derived from it (workers/replication/wire/seal.ts). It is never used with another
 * counter.
 *
 * **Remembered incarnations.** An incarnation is remembered after a datagram with a correct tag
 * came from it. `highest` is stored before the datagram's content is used. A receive thread that
 * starts refuses every number up to `highest`. So datagrams in flight must be sent again, and no
 * recorded datagram is accepted twice.
 */

import { randomBytes } from 'node:crypto';
import { Region } from './region.js';
import { LINE, struct } from './struct.js';
import { VersionedCells } from './versioned.js';

/** Maximum number of keys. `SECRET_WORDS`: words of a secret. */
const KEYS = 2;
const SECRET_WORDS = 8;
const KEY_FLOATS = 1 + SECRET_WORDS;
/** How many incarnations of each member are remembered. */
export const SEAL_INCARNATIONS = 4;
/** Words of a salt: 128 bits. */
export const SALT_WORDS = 4;

const HEADER = struct({ slots: LINE });
const SENDER = struct({ counter: { words: 2, line: true }, salt: SALT_WORDS });
const SLOT = struct({
  member: LINE,
  key: 1,
  incarnation: 2 * SEAL_INCARNATIONS,
  highest: 2 * SEAL_INCARNATIONS,
  salt: SALT_WORDS * SEAL_INCARNATIONS,
});

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

/** Memory for the keys and for `slots` members, with a fresh salt. Main thread, once per start. */
export function createSealBoard(slots: number, keys: readonly SealKey[]): SharedArrayBuffer {
  const floats = 1 + KEYS * KEY_FLOATS;
  const buffer = new SharedArrayBuffer(keysAt(slots) + VersionedCells.bytes(1, floats));
  new Int32Array(buffer)[HEADER.at.slots] = slots;
  const board = new SealBoard(buffer);
  board.salt.set(new Int32Array(Uint8Array.from(randomBytes(4 * SALT_WORDS)).buffer));
  board.writeKeys(keys);
  return buffer;
}

export class SealBoard {
  readonly slots: number;
  /** The salt of our own datagrams. */
  readonly salt: Int32Array;
  private readonly counters: Float64Array;
  private readonly i32: Int32Array;
  private readonly f64: Float64Array;
  private readonly keys: VersionedCells;

  constructor(buffer: SharedArrayBuffer) {
    this.slots = new Int32Array(buffer)[HEADER.at.slots];
    const sender = new Region(buffer, SENDER_AT, SENDER.bytes);
    this.counters = sender.f64();
    this.salt = sender.i32(4 * SENDER.at.salt, SALT_WORDS);
    const slots = new Region(buffer, SLOTS_AT, this.slots * SLOT.bytes);
    this.i32 = slots.i32();
    this.f64 = slots.f64();
    this.keys = new VersionedCells(new Region(buffer, keysAt(this.slots)), 1, 1 + KEYS * KEY_FLOATS);
  }

  /**
   * Main only: replaces the keys. From the next datagram on, the first key is used to send, and all
   * are accepted. Throws if there are too few or too many keys, or a secret has another length.
   */
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

  /** Changes whenever the keys change. */
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

  /** All numbers used so far are below it. 0: none was used. */
  get counter(): number {
    return this.counters[SENDER.at.counter >> 1];
  }

  /** The send thread sets it before it uses a number from `counter` on. */
  set counter(value: number) {
    this.counters[SENDER.at.counter >> 1] = value;
  }

  /** Id of the member whose incarnations the slot remembers. 0: none. */
  memberOf(slot: number): number {
    return this.i32[slot * SLOT.words + SLOT.at.member];
  }

  /**
   * The receive thread calls this when another member has the slot. Everything about the former
   * member is forgotten.
   */
  setMember(slot: number, member: number): void {
    for (let i = 0; i < SEAL_INCARNATIONS; i++) this.forget(slot, i);
    this.setKeyOf(slot, 0);
    this.i32[slot * SLOT.words + SLOT.at.member] = member;
  }

  /** Id of the key of the member's last opened datagram. 0: none was opened. */
  keyOf(slot: number): number {
    return this.i32[slot * SLOT.words + SLOT.at.key];
  }

  setKeyOf(slot: number, key: number): void {
    this.i32[slot * SLOT.words + SLOT.at.key] = key;
  }

  /** Number of remembered incarnation `i`. 0: none. */
  incarnation(slot: number, i: number): number {
    return this.f64[this.at(slot, SLOT.at.incarnation) + i];
  }

  highest(slot: number, i: number): number {
    return this.f64[this.at(slot, SLOT.at.highest) + i];
  }

  setHighest(slot: number, i: number, highest: number): void {
    this.f64[this.at(slot, SLOT.at.highest) + i] = highest;
  }

  /** The salt of remembered incarnation `i`: a view of this memory. */
  saltOf(slot: number, i: number): Int32Array {
    const at = slot * SLOT.words + SLOT.at.salt + i * SALT_WORDS;
    return this.i32.subarray(at, at + SALT_WORDS);
  }

  /**
   * Remembers an incarnation in place of another. If the thread dies in between, the old one is
   * forgotten and the new one is not yet remembered.
   */
  remember(slot: number, i: number, incarnation: number, salt: Int32Array, highest: number): void {
    this.forget(slot, i);
    this.setHighest(slot, i, highest);
    this.saltOf(slot, i).set(salt);
    this.f64[this.at(slot, SLOT.at.incarnation) + i] = incarnation;
  }

  private forget(slot: number, i: number): void {
    this.f64[this.at(slot, SLOT.at.incarnation) + i] = 0;
  }

  private at(slot: number, field: number): number {
    return (slot * SLOT.words + field) >> 1;
  }
}
