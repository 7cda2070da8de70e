/**
 * The sealer and opener of a simulated member, as its shells have them, and the keys of a cluster
 * that rotates them. The content of the key file passes through stages. Every member reaches a
 * stage before any member reaches the next.
 */

import { createSealBoard, SealBoard, type SealKey } from '../../shm/seal-board.js';
import { messageBytes, type ReplicationSettings } from '../../workers/replication/settings.js';
import { Opener, SEAL_BYTES, Sealer, type SealReject } from '../../workers/replication/wire/seal.js';
import { mix } from './random.js';
import { demand } from './violation.js';

/** Stages of one rotation, until the new key is alone. */
const STAGES = 3;
const COUNTER_AT = 28;

/**
 * Keys in the key file at a stage: the old key; then a new one after it; then the new one before
 * it. The next stage has the new key alone and is the first of the next rotation.
 */
export function keysOf(stage: number): SealKey[] {
  const old = keyOf(Math.floor(stage / STAGES) + 1);
  const next = keyOf(old.id + 1);
  return [[old], [old, next], [next, old]][stage % STAGES];
}

function keyOf(id: number): SealKey {
  return { id, secret: Uint8Array.from({ length: 32 }, (_, i) => (i * 7 + id) & 0xff) };
}

export class SealedEnds {
  private readonly settings: ReplicationSettings;
  private readonly members: SharedArrayBuffer;
  private incarnation: number;
  private readonly board: SharedArrayBuffer;
  private sealer!: Sealer;
  private opener!: Opener;
  private readonly used = new Set<number>();
  private readonly taken = new Set<string>();

  constructor(settings: ReplicationSettings, members: SharedArrayBuffer, incarnation: number, stage: number) {
    this.settings = settings;
    this.members = members;
    this.incarnation = incarnation;
    this.board = createSealBoard(settings.slots, keysOf(stage));
    // The salt is derived, not random, so that the same run has the same datagrams.
    const { salt } = new SealBoard(this.board);
    for (let word = 0; word < salt.length; word++) salt[word] = mix('salt', settings.self, incarnation, word);
  }

  /** The key file has reached a stage and is read again. */
  reload(stage: number): void {
    new SealBoard(this.board).writeKeys(keysOf(stage));
  }

  /** Takes effect with the next send thread. */
  raiseIncarnation(incarnation: number): void {
    this.incarnation = incarnation;
  }

  /** A send thread starts. */
  startSender(): void {
    const { settings, incarnation, board } = this;
    this.sealer = new Sealer({ clusterId: settings.clusterId, sender: settings.self, incarnation, board });
  }

  /** A receive thread starts. */
  startReceiver(now: number): void {
    const { settings, members, board } = this;
    const { clusterId, self } = settings;
    this.opener = new Opener({ clusterId, self, members, messageBytes: messageBytes(settings), board, now });
  }

  seal(message: Uint8Array): Uint8Array {
    const bytes = new Uint8Array(message.length + SEAL_BYTES);
    bytes.set(message);
    this.sealer.seal(bytes, message.length);
    const counter = counterOf(bytes);
    demand(
      !this.used.has(counter),
      'sealed-once',
      () => `member ${this.settings.self} used the counter ${counter} twice`,
    );
    this.used.add(counter);
    return bytes;
  }

  /** The message in a datagram, or the reason why the datagram is rejected. */
  open(datagram: Uint8Array, now: number): Uint8Array | SealReject {
    const reject = this.opener.open(datagram, now);
    if (reject !== null) return reject;
    const header = Buffer.from(datagram.subarray(2, COUNTER_AT + 8)).toString('hex');
    demand(!this.taken.has(header), 'sealed-once', () => `member ${this.settings.self} took a datagram twice`);
    this.taken.add(header);
    return this.opener.message;
  }
}

function counterOf(datagram: Uint8Array): number {
  return Number(new DataView(datagram.buffer, datagram.byteOffset).getBigUint64(COUNTER_AT, true));
}
