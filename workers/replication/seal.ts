/**
 * Sealing: a state message is encrypted and authenticated before it leaves, and opened before anything in it is read.
 *
 * The sealed datagram is specified in docs/state-message.md; the offsets below are its table.
 *
 * **No nonce is used twice with one key.** Two members have two keys, and so have two lives of a member: an incarnation is
 * the millisecond of the start and a random number. Within a life one thread seals at a time, and the counter outlives it
 * in shared memory (shm/seal-board.ts). What remains: a virtual machine that is copied while it runs has two of one life.
 * Never go on with both.
 *
 * **Replays.** Of each of a member's last lives a window of the counters taken is kept; only a datagram with the right tag
 * makes or moves one. A life that is new to us is told from an old one by its incarnation: among more than SEAL_LIVES the
 * earliest are forgotten. What was recorded before we started, or of a life forgotten, passes here once; that such a life
 * is over is for the protocol to tell (lives.ts).
 *
 * **Floods.** Memory is fixed. A datagram that is wrong costs a look at its header; with a known incarnation and a fresh
 * counter, one decryption; with an unknown incarnation a derivation too, of which there are so many a second at most:
 * a member that starts during a flood is heard when one of its messages comes by, which may take some seconds.
 */

import { createCipheriv, createDecipheriv } from 'node:crypto';
import { MemberTable } from '../../shm/members.js';
import { SEAL_LIVES, SealBoard } from '../../shm/seal-board.js';
import { deriveKey } from './cluster-key.js';
import type { Reject } from './message.js';
import { ReplayWindow } from './replay-window.js';

const VERSION = 1;
/** First byte of the message's magic. */
const UNSEALED = 0x43;
const ALGORITHM = 'aes-256-gcm';
const HEADER = { version: 0, key: 1, sender: 2, incarnation: 4, counter: 12 } as const;
const HEADER_BYTES = 20;
const TAG_BYTES = 16;
const OPTIONS = { authTagLength: TAG_BYTES };
const NONCE_BYTES = 12;
const NONCE_COUNTER = 4;

/** What sealing adds to a message. */
export const SEAL_BYTES = HEADER_BYTES + TAG_BYTES;

/** Why a datagram is not opened, besides `length`, `sender` and `own` as of messages. */
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
/** Derivations for incarnations not heard of: at once, and each second. One takes about 20 µs. */
const DERIVATIONS_BURST = 64;
const DERIVATIONS_PER_MS = 0.5;
/** A life earlier than all that are remembered, as after a clock was set back, is heard when the earliest is silent so long. */
const FORGOTTEN_MS = 60_000;

function putNumber(bytes: Uint8Array, at: number, value: number): void {
  let rest = value;
  for (let i = 0; i < 8; i++) {
    bytes[at + i] = rest & 0xff;
    rest = Math.floor(rest / 256);
  }
}

/** -1 if it is not below 2^53. */
function getNumber(bytes: Uint8Array, at: number): number {
  if (bytes[at + 7] !== 0 || bytes[at + 6] > 0x1f) return -1;
  let value = 0;
  for (let i = 6; i >= 0; i--) value = value * 256 + bytes[at + i];
  return value;
}

/** Four zero bytes, and the header's counter. */
function putNonce(nonce: Uint8Array, header: Uint8Array): void {
  for (let i = NONCE_COUNTER; i < NONCE_BYTES; i++) nonce[i] = header[HEADER.counter + i - NONCE_COUNTER];
}

/** The key of one life of a member. */
function lifeKey(clusterId: number, key: { id: number; secret: Uint8Array }, header: Uint8Array): Buffer {
  return deriveKey(key, clusterId, 'datagram', header.subarray(HEADER.sender, HEADER.counter));
}

export interface SealerOptions {
  readonly clusterId: number;
  /** Our member id and incarnation. */
  readonly sender: number;
  readonly incarnation: number;
  /** From `createSealBoard`. */
  readonly board: SharedArrayBuffer;
}

/** The send thread's half. */
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
    this.header[HEADER.version] = VERSION;
    this.header.writeUInt16LE(sender, HEADER.sender);
    putNumber(this.header, HEADER.incarnation, incarnation);
    this.counter = Math.max(1, this.board.counter);
  }

  /** Seals the first `length` bytes where they are, in memory that has SEAL_BYTES more. Returns the datagram's length. */
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
    this.key = lifeKey(this.clusterId, key, this.header);
  }
}

/** A life of a member: what of it was taken, and its keys, in the order of the cluster's, made when they are needed. */
interface Life {
  incarnation: number;
  window: ReplayWindow;
  heardAt: number;
  keys: (Buffer | null)[];
}

export interface OpenerOptions {
  readonly clusterId: number;
  /** Our member id. */
  readonly self: number;
  /** The member table. */
  readonly members: SharedArrayBuffer;
  /** Longest message. */
  readonly messageBytes: number;
  /** From `createSealBoard`. */
  readonly board: SharedArrayBuffer;
  /** The time, in ms. */
  readonly now: number;
}

/** The receive thread's half. */
export class Opener {
  /** What the last datagram opened contained. */
  message: Uint8Array = new Uint8Array(0);
  private readonly options: OpenerOptions;
  private readonly board: SealBoard;
  private readonly members: MemberTable;
  private readonly lives: (Life | null)[][];
  private keys: readonly { readonly id: number; readonly secret: Uint8Array }[] = [];
  private keysVersion = 0;
  private readonly header = Buffer.alloc(HEADER_BYTES);
  private readonly nonce = Buffer.alloc(NONCE_BYTES);
  private readonly tag = Buffer.alloc(TAG_BYTES);
  private derivations = DERIVATIONS_BURST;
  private derivedAt = 0;

  constructor(options: OpenerOptions) {
    this.options = options;
    this.board = new SealBoard(options.board);
    this.members = new MemberTable(options.members);
    this.lives = Array.from({ length: this.board.slots }, (_, slot) =>
      Array.from({ length: SEAL_LIVES }, (_, i): Life | null => {
        const incarnation = this.board.incarnation(slot, i);
        if (incarnation === 0) return null;
        return { incarnation, window: new ReplayWindow(this.board.highest(slot, i)), heardAt: options.now, keys: [] };
      }),
    );
    this.noteMembers();
  }

  /** Opens one datagram, received at `now` (ms), into `message`; or returns why not, having changed nothing. */
  open(datagram: Uint8Array, now: number): SealReject | null {
    const { board, header, members, options } = this;
    if (datagram[0] === UNSEALED) return 'unsealed';
    const { length } = datagram;
    if (length < SEAL_BYTES || length > options.messageBytes + SEAL_BYTES) return 'length';
    for (let i = 0; i < HEADER_BYTES; i++) header[i] = datagram[i];
    if (header[HEADER.version] !== VERSION) return 'seal_version';
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
    const known = this.find(slot, incarnation);
    if (known === -1) return this.meet(datagram, slot, key, incarnation, counter, now);
    const life = this.lives[slot][known] as Life;
    if (!life.window.isFresh(counter)) return 'seal_replay';
    life.keys[key] ??= lifeKey(options.clusterId, this.keys[key], header);
    if (!this.decrypt(datagram, life.keys[key])) return 'seal_forged';
    life.window.take(counter);
    life.heardAt = now;
    board.setHighest(slot, known, life.window.highest);
    board.setKeyOf(slot, header[HEADER.key]);
    return null;
  }

  /** Opens the first datagram of an incarnation not heard of. */
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
    const secret = lifeKey(this.options.clusterId, this.keys[key], this.header);
    if (!this.decrypt(datagram, secret)) return 'seal_forged';
    const window = new ReplayWindow(0);
    window.take(counter);
    const keys: (Buffer | null)[] = [];
    keys[key] = secret;
    this.lives[slot][place] = { incarnation, window, heardAt: now, keys };
    this.board.setLife(slot, place, incarnation, counter);
    this.board.setKeyOf(slot, this.header[HEADER.key]);
    return null;
  }

  private find(slot: number, incarnation: number): number {
    const lives = this.lives[slot];
    for (let i = 0; i < SEAL_LIVES; i++) if (lives[i]?.incarnation === incarnation) return i;
    return -1;
  }

  /** Where another life may be remembered: a free place, or the earliest life's, if it is the later one or that long silent. */
  private placeFor(slot: number, incarnation: number, now: number): number {
    const lives = this.lives[slot];
    let earliest = 0;
    for (let i = 0; i < SEAL_LIVES; i++) {
      const life = lives[i];
      if (life === null) return i;
      if (life.incarnation < (lives[earliest] as Life).incarnation) earliest = i;
    }
    const life = lives[earliest] as Life;
    return life.incarnation < incarnation || now - life.heardAt > FORGOTTEN_MS ? earliest : -1;
  }

  private mayDerive(now: number): boolean {
    const earned = Math.max(0, now - this.derivedAt) * DERIVATIONS_PER_MS;
    this.derivations = Math.min(DERIVATIONS_BURST, this.derivations + earned);
    this.derivedAt = now;
    if (this.derivations < 1) return false;
    this.derivations--;
    return true;
  }

  /** Whether the tag is right; only then does `message` change. */
  private decrypt(datagram: Uint8Array, key: Buffer): boolean {
    const { header, nonce, tag } = this;
    const end = datagram.length - TAG_BYTES;
    putNonce(nonce, header);
    for (let i = 0; i < TAG_BYTES; i++) tag[i] = datagram[end + i];
    const decipher = createDecipheriv(ALGORITHM, key, nonce, OPTIONS);
    decipher.setAAD(header);
    decipher.setAuthTag(tag);
    const message = decipher.update(datagram.subarray(HEADER_BYTES, end));
    // A wrong tag is told by an exception; without its stack, which nobody reads, it costs half.
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

  /** A slot given to another member begins anew. */
  private noteMembers(): void {
    const { board, members } = this;
    for (let slot = 0; slot < board.slots; slot++) {
      if (members.id(slot) === board.memberOf(slot)) continue;
      this.lives[slot].fill(null);
      board.setMember(slot, members.id(slot));
    }
  }

  private takeKeys(): void {
    this.keysVersion = this.board.keysVersion;
    this.keys = this.board.readKeys();
    for (const lives of this.lives) for (const life of lives) if (life !== null) life.keys = [];
  }
}
