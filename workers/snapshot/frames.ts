/**
 * The frames that a donor sends after the handshake, each sealed by itself.
 *
 *     length (32 bits), kind (8), zero (24) | `length` bytes, encrypted | tag (16 bytes)
 *
 * Encryption is AES-256-GCM with the session's key. The nonce is the frame's number, so a frame
 * that is omitted, repeated or moved does not open. The first eight bytes are authenticated too.
 * The last frame is marked, so a truncated stream is not taken for a whole one. Without a key the
 * tag is a CRC-32, which only detects accidents.
 */

import { createCipheriv, createDecipheriv } from 'node:crypto';
import { crc32 } from 'node:zlib';

export const FRAME_HEAD_BYTES = 8;
export const FRAME_TAG_BYTES = 16;
/** The most bytes in a frame. */
export const FRAME_BYTES_MAX = 64 << 10;

export const FrameKind = { REFUSAL: 1, DATA: 2, END: 3 } as const;
export type FrameKind = (typeof FrameKind)[keyof typeof FrameKind];

class FrameError extends Error {}

export class FrameSealer {
  private readonly key: Buffer | null;
  private number = 0;

  constructor(key: Buffer | null) {
    this.key = key;
  }

  /** Returns the frame's parts, to be written one after the other. */
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

  /**
   * The number of bytes that follow this head, including the tag. Throws a `FrameError` if it
   * exceeds `FRAME_BYTES_MAX`.
   */
  length(head: Buffer): number {
    const length = head.readUInt32LE(0);
    if (length > FRAME_BYTES_MAX) throw new FrameError(`a frame of ${length} bytes, of at most ${FRAME_BYTES_MAX}`);
    return length + FRAME_TAG_BYTES;
  }

  /**
   * Returns the frame's content. Throws a `FrameError` if it is not the next frame of this stream
   * as it was sealed.
   */
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
