/**
 * Datagrams that no member sent, or sent before, drawn from a seed and from what genuine members
 * were heard to send.
 */

import { createCipheriv } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { seeded } from '../../workers/transport/fault.js';

export const KINDS = ['random', 'headed', 'mutated', 'replayed', 'forged'] as const;
export type Kind = (typeof KINDS)[number];

const BYTES_MAX = 1600;
/** Bytes of a message that its checksum is at, and of fields that a member can check. */
const CHECKSUM_AT = 8;
const CLUSTER_AT = 12;
const LAYOUT_AT = 16;
const SENDER_AT = 24;
const OBJECT_AT = 26;
const VIEW_AT = 28;
const INCARNATION_AT = 32;
/** After the sender's incarnation. */
const BODY_AT = 40;
const UNITS_AT = 7;
/** Of a sealed datagram. */
const HEADER_BYTES = 36;
const TAG_BYTES = 16;
const SEALED_INCARNATION_AT = 4;
const SALT_AT = 12;
const COUNTER_AT = 28;

export class DatagramFuzzer {
  readonly random: () => number;
  private readonly recorded: readonly Uint8Array[];
  private readonly self: number;
  /** The wrong key of who forges. */
  private readonly key = Buffer.alloc(32, 7);
  private readonly memory = Buffer.alloc(2 * BYTES_MAX);
  private readonly noise: Buffer;

  /** `self`: member id of the receiver. */
  constructor(seed: number, recorded: readonly Uint8Array[], self: number) {
    this.random = seeded(seed);
    this.recorded = recorded;
    this.self = self;
    this.noise = Buffer.from(Uint8Array.from({ length: 1 << 16 }, () => this.below(256)));
  }

  below(limit: number): number {
    return Math.floor(this.random() * limit);
  }

  kind(): Kind {
    return KINDS[this.below(KINDS.length)];
  }

  /** One datagram, in memory that the next call uses again. `sealed`: of a cluster with a key. */
  draw(kind: Kind, sealed: boolean): Uint8Array {
    switch (kind) {
      case 'random':
        return this.fill(0, this.below(BYTES_MAX));
      case 'headed': {
        const length = this.take();
        const kept = Math.min(length, sealed ? HEADER_BYTES : 16 + this.below(100));
        return this.fill(kept, kept + this.below(BYTES_MAX - kept));
      }
      case 'mutated':
        return this.mutate(this.take());
      case 'replayed':
        return this.memory.subarray(0, this.take());
      case 'forged':
        return sealed ? this.forgeSealed() : this.forge(this.take());
    }
  }

  /**
   * A message with right checksum and whatever inside: where there is no key, it may be believed.
   * `late`: also with another incarnation of its sender; once a later one is believed, all that was
   * recorded is refused.
   */
  hostile(late: boolean): Uint8Array {
    let length = this.take();
    const from = late ? INCARNATION_AT : BODY_AT;
    for (let changes = this.below(4); changes >= 0; changes--) {
      const at = from + this.below(length - from);
      this.memory[at] = this.random() < 0.3 ? [0, 1, 0x7f, 0x80, 0xff][this.below(5)] : this.below(256);
    }
    if (this.random() < 0.1) length = Math.max(CHECKSUM_AT + 4, this.below(length)) & ~3;
    if (this.random() < 0.1) this.memory[UNITS_AT - this.below(2)] = this.below(256);
    return this.checksummed(length);
  }

  /** Puts a recorded datagram into the memory; returns its length. */
  private take(): number {
    const datagram = this.recorded[this.below(this.recorded.length)];
    this.memory.set(datagram);
    return datagram.length;
  }

  private fill(from: number, to: number): Uint8Array {
    const at = this.below(this.noise.length - (to - from));
    this.noise.copy(this.memory, from, at, at + to - from);
    return this.memory.subarray(0, to);
  }

  private mutate(taken: number): Uint8Array {
    let length = taken;
    switch (this.below(5)) {
      case 0:
        length = this.below(length);
        break;
      case 1: {
        const more = 1 + this.below(64);
        this.fill(length, length + more);
        length += more;
        break;
      }
      case 2: {
        // The beginning of one and the end of another.
        const other = this.recorded[this.below(this.recorded.length)];
        const cut = 1 + this.below(Math.min(length, other.length) - 1);
        this.memory.set(other.subarray(cut), cut);
        length = other.length;
        // Two halves of one are a replay.
        this.memory[cut] ^= 1;
        break;
      }
      default: {
        // One bit for certain; others wherever they fall, but not on it.
        const first = this.below(length);
        for (let flips = this.below(8); flips > 0; flips--) {
          const at = this.below(length);
          if (at !== first) this.memory[at] ^= 1 << this.below(8);
        }
        this.memory[first] ^= 1 << this.below(8);
      }
    }
    return this.memory.subarray(0, length);
  }

  /** A message of right form and checksum, wrong in one fact that every member can check. */
  private forge(length: number): Uint8Array {
    const { memory } = this;
    switch (this.below(8)) {
      case 0:
        memory[CLUSTER_AT] ^= 1 + this.below(255);
        break;
      case 1:
        memory[LAYOUT_AT + this.below(8)] ^= 1 + this.below(255);
        break;
      case 2:
        memory[OBJECT_AT + 1] = 1 + this.below(255);
        break;
      case 3:
        memory.writeUInt16LE(0xff00 + this.below(255), SENDER_AT);
        break;
      case 4:
        memory.writeUInt16LE(this.self, SENDER_AT);
        break;
      case 5:
        memory[VIEW_AT] ^= 1 + this.below(255);
        break;
      case 6:
        memory.writeBigUInt64LE(BigInt(1 + this.below(2 ** 30)), INCARNATION_AT);
        break;
      default:
        memory[UNITS_AT] = 200;
    }
    return this.checksummed(length);
  }

  private checksummed(length: number): Uint8Array {
    this.memory.writeUInt32LE(0, CHECKSUM_AT);
    this.memory.writeUInt32LE(crc32(this.memory.subarray(0, length)), CHECKSUM_AT);
    return this.memory.subarray(0, length);
  }

  /**
   * In the name of a member: with a fresh counter, sealed with another key or not at all; at times
   * of another life.
   */
  private forgeSealed(): Uint8Array {
    const { memory } = this;
    const length = this.take();
    memory.writeBigUInt64LE(BigInt(1 + this.below(2 ** 40)), COUNTER_AT);
    if (this.random() < 0.3) memory.writeUInt32LE(this.below(2 ** 32), SEALED_INCARNATION_AT);
    if (this.random() < 0.3) memory.writeUInt32LE(this.below(2 ** 32), SALT_AT);
    if (this.random() < 0.2) memory.writeUInt16LE(this.below(4) * 10, 2);
    if (this.random() < 0.5) {
      const nonce = Buffer.concat([Buffer.alloc(4), memory.subarray(COUNTER_AT, HEADER_BYTES)]);
      const cipher = createCipheriv('aes-256-gcm', this.key, nonce).setAAD(memory.subarray(0, HEADER_BYTES));
      cipher.update(memory.subarray(HEADER_BYTES, length - TAG_BYTES)).copy(memory, HEADER_BYTES);
      cipher.final();
      cipher.getAuthTag().copy(memory, length - TAG_BYTES);
    }
    return memory.subarray(0, length);
  }
}
