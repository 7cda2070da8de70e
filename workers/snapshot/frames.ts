/**
 * What a donor sends once both sides have proved who they are: frames, each sealed by itself.
 *
 *     length (32 bits), kind (8), zero (24) | `length` bytes, encrypted | tag (16 bytes)
 *
 * AES-256-GCM with the session's key; the nonce is the frame's number, so one left out, repeated or
 * moved does not open, and the eight bytes before are authenticated with it. The last frame says
 * so: a stream cut short is not taken for a whole one. Without a key the tag is a CRC-32, against
 * accidents only.
 */

import { createCipheriv, createDecipheriv } from 'node:crypto';
import { crc32 } from 'node:zlib';

export const FRAME_HEAD_BYTES = 8;
export const FRAME_TAG_BYTES = 16;
/** Bytes in a frame at most. */
export const FRAME_BYTES_MAX = 64 << 10;

export const FrameKind = { REFUSAL: 1, DATA: 2, END: 3 } as const;
export type FrameKind = (typeof FrameKind)[keyof typeof FrameKind];

export class FrameError extends Error {}

export class FrameSealer {
  private readonly key: Buffer | null;
  private number = 0;

  constructor(key: Buffer | null) {
    this.key = key;
  }

  /** The frame's parts, to be written one after the other. */
  seal(kind: FrameKind, bytes: Uint8Array): Buffer[] {
    const head = Buffer.alloc(FRAME_HEAD_BYTES);
    head.writeUInt32LE(bytes.length, 0);
    head.writeUInt8(kind, 4);
    const number = this.number++;
    if (this.key === null) return [head, asBuffer(bytes), checksum(head, bytes, number)];
    const cipher = createCipheriv('aes-256-gcm', this.key, nonceOf(number));
    cipher.setAAD(head);
    const sealed = cipher.update(bytes);
    cipher.final();
    return [head, sealed, cipher.getAuthTag()];
  }
}

export class FrameOpener {
  private readonly key: Buffer | null;
  private number = 0;

  constructor(key: Buffer | null) {
    this.key = key;
  }

  /** How many bytes follow this head, the tag included. Throws where it is none. */
  length(head: Buffer): number {
    const length = head.readUInt32LE(0);
    if (length > FRAME_BYTES_MAX) throw new FrameError(`a frame of ${length} bytes, of at most ${FRAME_BYTES_MAX}`);
    return length + FRAME_TAG_BYTES;
  }

  /** What is in the frame. Throws where it is not the next of this stream as it was sealed. */
  open(head: Buffer, body: Buffer): { readonly kind: FrameKind; readonly bytes: Buffer } {
    const sealed = body.subarray(0, body.length - FRAME_TAG_BYTES);
    const tag = body.subarray(body.length - FRAME_TAG_BYTES);
    const number = this.number++;
    const kind = head.readUInt8(4) as FrameKind;
    if (this.key === null) {
      if (!checksum(head, sealed, number).equals(tag)) throw new FrameError(`frame ${number} was damaged on the way`);
      return { kind, bytes: sealed };
    }
    const decipher = createDecipheriv('aes-256-gcm', this.key, nonceOf(number), { authTagLength: FRAME_TAG_BYTES });
    decipher.setAAD(head);
    decipher.setAuthTag(tag);
    const bytes = decipher.update(sealed);
    try {
      decipher.final();
    } catch {
      throw new FrameError(`frame ${number} was forged or damaged on the way`);
    }
    return { kind, bytes };
  }
}

function nonceOf(number: number): Buffer {
  const nonce = Buffer.alloc(12);
  nonce.writeUIntLE(number, 0, 6);
  return nonce;
}

function checksum(head: Uint8Array, bytes: Uint8Array, number: number): Buffer {
  const tag = Buffer.alloc(FRAME_TAG_BYTES);
  tag.writeUInt32LE(crc32(head, crc32(bytes)), 0);
  tag.writeUIntLE(number, 4, 6);
  return tag;
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}
