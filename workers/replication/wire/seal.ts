/**
 * Sealing: a state message is encrypted and authenticated before it is sent, and opened before
 * anything in it is read.
 *
 * docs/state-message.md specifies the sealed datagram. The offsets below are its table.
 *
 * **No nonce is used twice with one key.** The key of a datagram is derived from the cluster key
 * and the header's sender, incarnation and salt. The salt has 128 random bits and is drawn at each
 * start of an instance. So two starts have two keys, whatever their clocks and incarnations are.
 * Within a start, one thread seals at a time, and the counter is in shared memory, where it
 * survives the thread (shm/seal-board.ts). One case remains: if a running virtual machine is
 * copied, one start has two copies. Never run both.
 *
 * **Replays.** For each of a member's last incarnations, a window records which counters were
 * accepted. Only a datagram with the right tag creates or moves a window. An incarnation is known
 * by its number and its salt. Of more than SEAL_INCARNATIONS, those with the lowest numbers are
 * forgotten. A datagram that was recorded before we started, or that is from a forgotten
 * incarnation, passes here once. The protocol then decides whether that incarnation has ended
 * (incarnations.ts).
 *
 * **Floods.** Memory is fixed: nothing of a datagram is stored before its tag is verified. A wrong
 * datagram costs a check of its header. With a known incarnation and a fresh counter it costs one
 * decryption. With an unknown incarnation or salt it also costs a key derivation, whose rate is
 * limited. So a member that starts during a flood is heard once one of its messages gets a
 * derivation, which may take some seconds.
 */

import { createCipheriv, createDecipheriv } from 'node:crypto';
import { MemberTable } from '../../../shm/members.js';
import { SALT_WORDS, SEAL_INCARNATIONS, SealBoard } from '../../../shm/seal-board.js';
import { deriveKey } from './cluster-key.js';
import type { Reject } from './message.js';
import { ReplayWindow } from './replay-window.js';

/** Version of the sealed format: the only one that is written and read. */
export const SEAL_VERSION = 2;
/** First byte of the message's magic. */
const UNSEALED = 0x43;
const ALGORITHM = 'aes-256-gcm';
const HEADER = { version: 0, key: 1, sender: 2, incarnation: 4, salt: 12, counter: 28 } as const;
const HEADER_BYTES = 36;
const TAG_BYTES = 16;
const OPTIONS = { authTagLength: TAG_BYTES };
const NONCE_BYTES = 12;
const NONCE_COUNTER = 4;

/** Bytes that sealing adds to a message. */
export const SEAL_BYTES = HEADER_BYTES + TAG_BYTES;

/** Why a datagram is not opened, besides `length`, `sender` and `own`, which messages share. */
export const SEAL_REJECTS = [
  'unsealed',
  'seal_version',
  'seal_key',
  'seal_header',
  'seal_replay',
  'seal_busy',
  'seal_forged',
] as const;
export type SealReject = (typeof SEAL_REJECTS)[number] | Extract<Reject, 'length' | 'sender' | 'own'>;

/** Counters reserved at a time. */
const BLOCK = 1024;
/**
 * Key derivations for unknown incarnations and salts: the burst, and the rate. One takes about 20
 * µs.
 */
const DERIVATIONS_BURST = 64;
const DERIVATIONS_PER_MS = 0.5;
/**
 * An incarnation lower than all that are remembered replaces the lowest if that was silent for this
 * time, in ms.
 */
const FORGOTTEN_MS = 60_000;

function putNumber(bytes: Uint8Array, at: number, value: number): void {
  let rest = value;
  for (let i = 0; i < 8; i++) {
    bytes[at + i] = rest & 0xff;
    rest = Math.floor(rest / 256);
  }
}

/** Returns -1 if the number is not below 2^53. */
function getNumber(bytes: Uint8Array, at: number): number {
  if (bytes[at + 7] !== 0 || bytes[at + 6] > 0x1f) return -1;
  let value = 0;
  for (let i = 6; i >= 0; i--) value = value * 256 + bytes[at + i];
  return value;
}

/** The nonce: four zero bytes, then the header's counter. */
function putNonce(nonce: Uint8Array, header: Uint8Array): void {
  for (let i = NONCE_COUNTER; i < NONCE_BYTES; i++) nonce[i] = header[HEADER.counter + i - NONCE_COUNTER];
}

/** The key of one start of a member, derived from sender, incarnation and salt. */
function startKey(clusterId: number, key: { id: number; secret: Uint8Array }, header: Uint8Array): Buffer {
  return deriveKey(key, clusterId, 'datagram', header.subarray(HEADER.sender, HEADER.counter));
}

function isSame(salt: Int32Array, other: Int32Array): boolean {
  for (let i = 0; i < SALT_WORDS; i++) if (salt[i] !== other[i]) return false;
  return true;
}

interface SealerOptions {
  readonly clusterId: number;
  /** Our member id and incarnation. */
  readonly sender: number;
  readonly incarnation: number;
  /** From `createSealBoard`. */
  readonly board: SharedArrayBuffer;
}

/** Seals messages in the send thread. */
export class Sealer {
  private readonly clusterId: number;
  private readonly board: SealBoard;
  private readonly header = Buffer.alloc(HEADER_BYTES);
  private readonly nonce = Buffer.alloc(NONCE_BYTES);
  private key: Buffer = Buffer.alloc(0);
  private keysVersion = 0;
  private counter: number;

  constructor({ clusterId, sender, incarnation, board }: SealerOptions) {
    this.clusterId = clusterId;
    this.board = new SealBoard(board);
    this.header[HEADER.version] = SEAL_VERSION;
    this.header.writeUInt16LE(sender, HEADER.sender);
    putNumber(this.header, HEADER.incarnation, incarnation);
    for (let i = 0; i < SALT_WORDS; i++) this.header.writeInt32LE(this.board.salt[i], HEADER.salt + 4 * i);
    this.counter = Math.max(1, this.board.counter);
  }

  /**
   * Seals the first `length` bytes in place, in memory with SEAL_BYTES more. Returns the length of
   * the datagram in bytes.
   */
  seal(bytes: Uint8Array, length: number): number {
    const { board, header, nonce } = this;
    if (board.keysVersion !== this.keysVersion) this.takeKey();
    if (this.counter >= board.counter) board.counter = this.counter + BLOCK;
    putNumber(header, HEADER.counter, this.counter++);
    putNonce(nonce, header);
    const cipher = createCipheriv(ALGORITHM, this.key, nonce, OPTIONS);
    cipher.setAAD(header);
    const sealed = cipher.update(bytes.subarray(0, length));
    cipher.final();
    bytes.set(header);
    bytes.set(sealed, HEADER_BYTES);
    bytes.set(cipher.getAuthTag(), HEADER_BYTES + length);
    return length + SEAL_BYTES;
  }

  private takeKey(): void {
    this.keysVersion = this.board.keysVersion;
    const [key] = this.board.readKeys();
    this.header[HEADER.key] = key.id;
    this.key = startKey(this.clusterId, key, this.header);
  }
}

/**
 * A remembered incarnation: its replay window, and its keys in the order of the cluster's keys,
 * derived when needed.
 */
interface Incarnation {
  readonly incarnation: number;
  readonly salt: Int32Array;
  readonly window: ReplayWindow;
  heardAt: number;
  keys: (Buffer | null)[];
}

interface OpenerOptions {
  readonly clusterId: number;
  /** Our member id. */
  readonly self: number;
  /** The member table. */
  readonly members: SharedArrayBuffer;
  /** The longest message, in bytes. */
  readonly messageBytes: number;
  /** From `createSealBoard`. */
  readonly board: SharedArrayBuffer;
  /** The time, in ms. */
  readonly now: number;
}

/** Opens datagrams in the receive thread. */
export class Opener {
  /** The message in the datagram that was opened last. */
  message: Uint8Array = new Uint8Array(0);
  private readonly options: OpenerOptions;
  private readonly board: SealBoard;
  private readonly members: MemberTable;
  private readonly known: (Incarnation | null)[][];
  private keys: readonly { readonly id: number; readonly secret: Uint8Array }[] = [];
  private keysVersion = 0;
  private readonly header = Buffer.alloc(HEADER_BYTES);
  /** The header's salt. */
  private readonly salt = new Int32Array(SALT_WORDS);
  private readonly nonce = Buffer.alloc(NONCE_BYTES);
  private readonly tag = Buffer.alloc(TAG_BYTES);
  private derivations = DERIVATIONS_BURST;
  private derivedAt = 0;

  constructor(options: OpenerOptions) {
    this.options = options;
    this.board = new SealBoard(options.board);
    this.members = new MemberTable(options.members);
    this.known = Array.from({ length: this.board.slots }, (_, slot) =>
      Array.from({ length: SEAL_INCARNATIONS }, (_, i): Incarnation | null => {
        const incarnation = this.board.incarnation(slot, i);
        if (incarnation === 0) return null;
        const salt = this.board.saltOf(slot, i).slice();
        const window = new ReplayWindow(this.board.highest(slot, i));
        return { incarnation, salt, window, heardAt: options.now, keys: [] };
      }),
    );
    this.noteMembers();
  }

  /**
   * Opens one datagram, received at `now` (ms), into `message`. If it cannot, returns the reason
   * and changes nothing.
   */
  open(datagram: Uint8Array, now: number): SealReject | null {
    const { board, header, members, options } = this;
    if (datagram[0] === UNSEALED) return 'unsealed';
    const { length } = datagram;
    if (length < SEAL_BYTES || length > options.messageBytes + SEAL_BYTES) return 'length';
    for (let i = 0; i < HEADER_BYTES; i++) header[i] = datagram[i];
    if (header[HEADER.version] !== SEAL_VERSION) return 'seal_version';
    if (board.keysVersion !== this.keysVersion) this.takeKeys();
    const key = this.keyIndex(header[HEADER.key]);
    if (key === -1) return 'seal_key';
    const sender = header[HEADER.sender] | (header[HEADER.sender + 1] << 8);
    if (sender === options.self) return 'own';
    if (members.refresh()) this.noteMembers();
    const slot = members.slotOf(sender);
    if (slot < 0 || !members.isMember(slot)) return 'sender';
    const incarnation = getNumber(header, HEADER.incarnation);
    const counter = getNumber(header, HEADER.counter);
    if (incarnation < 1 || counter < 1) return 'seal_header';
    for (let i = 0; i < SALT_WORDS; i++) this.salt[i] = header.readInt32LE(HEADER.salt + 4 * i);
    const place = this.find(slot, incarnation);
    if (place === -1) return this.meet(datagram, slot, key, incarnation, counter, now);
    const known = this.known[slot][place] as Incarnation;
    if (!known.window.isFresh(counter)) return 'seal_replay';
    known.keys[key] ??= startKey(options.clusterId, this.keys[key], header);
    if (!this.decrypt(datagram, known.keys[key])) return 'seal_forged';
    known.window.take(counter);
    known.heardAt = now;
    board.setHighest(slot, place, known.window.highest);
    board.setKeyOf(slot, header[HEADER.key]);
    return null;
  }

  /** Opens the first datagram of an unknown incarnation. */
  private meet(
    datagram: Uint8Array,
    slot: number,
    key: number,
    incarnation: number,
    counter: number,
    now: number,
  ): SealReject | null {
    const place = this.placeFor(slot, incarnation, now);
    if (place === -1) return 'seal_replay';
    if (!this.mayDerive(now)) return 'seal_busy';
    const secret = startKey(this.options.clusterId, this.keys[key], this.header);
    if (!this.decrypt(datagram, secret)) return 'seal_forged';
    const window = new ReplayWindow(0);
    window.take(counter);
    const keys: (Buffer | null)[] = [];
    keys[key] = secret;
    this.known[slot][place] = { incarnation, salt: this.salt.slice(), window, heardAt: now, keys };
    this.board.remember(slot, place, incarnation, this.salt, counter);
    this.board.setKeyOf(slot, this.header[HEADER.key]);
    return null;
  }

  /** The index at which the incarnation with the header's salt is remembered; -1: it is not. */
  private find(slot: number, incarnation: number): number {
    const known = this.known[slot];
    for (let i = 0; i < SEAL_INCARNATIONS; i++) {
      const one = known[i];
      if (one !== null && one.incarnation === incarnation && isSame(one.salt, this.salt)) return i;
    }
    return -1;
  }

  /**
   * The index at which another incarnation can be remembered: a free one, or that of the lowest
   * incarnation if that one is lower or was silent for `FORGOTTEN_MS`; -1: none.
   */
  private placeFor(slot: number, incarnation: number, now: number): number {
    const known = this.known[slot];
    let lowest = 0;
    for (let i = 0; i < SEAL_INCARNATIONS; i++) {
      const one = known[i];
      if (one === null) return i;
      if (one.incarnation < (known[lowest] as Incarnation).incarnation) lowest = i;
    }
    const one = known[lowest] as Incarnation;
    return one.incarnation < incarnation || now - one.heardAt > FORGOTTEN_MS ? lowest : -1;
  }

  private mayDerive(now: number): boolean {
    const earned = Math.max(0, now - this.derivedAt) * DERIVATIONS_PER_MS;
    this.derivations = Math.min(DERIVATIONS_BURST, this.derivations + earned);
    this.derivedAt = now;
    if (this.derivations < 1) return false;
    this.derivations--;
    return true;
  }

  /** Decrypts into `message` if the tag is right. Returns whether it is. */
  private decrypt(datagram: Uint8Array, key: Buffer): boolean {
    const { header, nonce, tag } = this;
    const end = datagram.length - TAG_BYTES;
    putNonce(nonce, header);
    for (let i = 0; i < TAG_BYTES; i++) tag[i] = datagram[end + i];
    const decipher = createDecipheriv(ALGORITHM, key, nonce, OPTIONS);
    decipher.setAAD(header);
    decipher.setAuthTag(tag);
    const message = decipher.update(datagram.subarray(HEADER_BYTES, end));
    // Node reports a wrong tag by an exception. Without its stack, which nobody reads, it costs
    // half.
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = 0;
    try {
      decipher.final();
    } catch {
      return false;
    } finally {
      Error.stackTraceLimit = stackTraceLimit;
    }
    this.message = message;
    return true;
  }

  private keyIndex(id: number): number {
    for (let i = 0; i < this.keys.length; i++) if (this.keys[i].id === id) return i;
    return -1;
  }

  /** Forgets what a slot remembers if another member has that slot. */
  private noteMembers(): void {
    const { board, members } = this;
    for (let slot = 0; slot < board.slots; slot++) {
      if (members.id(slot) === board.memberOf(slot)) continue;
      this.known[slot].fill(null);
      board.setMember(slot, members.id(slot));
    }
  }

  private takeKeys(): void {
    this.keysVersion = this.board.keysVersion;
    this.keys = this.board.readKeys();
    for (const known of this.known) for (const one of known) if (one !== null) one.keys = [];
  }
}
