/**
 * The cluster's keys: secrets that all members share, from the key file (daemon/config/key-file.ts
 * reads it).
 *
 *     # ID:SECRET, one a line; the first is used to send, each is accepted
 *     2:q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=
 *     1:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
 *
 * ID is 1 … 255. Everything sealed contains it in clear text, so the receiver knows which key to
 * use. A new secret needs a new id. SECRET is 32 random bytes, as 44 characters of base64 or 64
 * hexadecimal digits.
 *
 * **Rotation** takes three changes of the file. Make each one at every member before the next: add
 * the new key as the second line; swap the two lines; remove the old line. Between two steps, every
 * member accepts what every other sends.
 *
 * No secret is ever used directly: `deriveKey` derives one key for each purpose and use.
 */

import { hkdfSync, randomBytes } from 'node:crypto';
import type { SealKey } from '../../../shm/seal-board.js';

export type ClusterKey = SealKey;

export const KEY_ID_MAX = 255;
const SECRET_BYTES = 32;
/** The most keys accepted at a time: enough to change from one to the next. */
export const KEYS_MAX = 2;

const LINE = /^([0-9]{1,3}):(?:([0-9a-fA-F]{64})|([A-Za-z0-9+/]{43}=))$/;

/**
 * Parses the text of a key file. The first key is used to send. Throws an error that names `file`
 * and the line.
 */
export function parseKeys(text: string, file: string): readonly ClusterKey[] {
  const keys: ClusterKey[] = [];
  text.split('\n').forEach((whole, i) => {
    const line = whole.trim();
    if (line === '' || line.startsWith('#')) return;
    const wrong = (message: string): Error => new Error(`${file}:${i + 1}: ${message}`);
    const match = LINE.exec(line);
    // Never show the line: a malformed key may contain most of a secret.
    if (match === null)
      throw wrong('expected ID:SECRET, with 32 random bytes as 44 characters of base64 or 64 hexadecimal digits');
    const id = Number(match[1]);
    if (id < 1 || id > KEY_ID_MAX) throw wrong(`a key's id is 1 … ${KEY_ID_MAX}, not ${id}`);
    const secret = match[2] === undefined ? Buffer.from(match[3], 'base64') : Buffer.from(match[2], 'hex');
    if (secret.every((byte) => byte === secret[0])) throw wrong('32 equal bytes are no secret');
    for (const other of keys) {
      if (other.id === id) throw wrong(`there is a key ${id} already; a new key needs a new id`);
      if (secret.equals(other.secret)) throw wrong(`this is the secret of key ${other.id} again`);
    }
    if (keys.length === KEYS_MAX)
      throw wrong(`more than ${KEYS_MAX} keys; take out the one that no member sends with any more`);
    keys.push({ id, secret: Uint8Array.from(secret) });
  });
  if (keys.length === 0) throw new Error(`${file}: holds no key; constellationd --generate-key FILE makes one`);
  return keys;
}

/** A new secret under `id`. */
export function newKey(id: number): ClusterKey {
  return { id, secret: Uint8Array.from(randomBytes(SECRET_BYTES)) };
}

/** Formats a key as a line of a key file. */
export function keyLine({ id, secret }: ClusterKey): string {
  return `${id}:${Buffer.from(secret).toString('base64')}\n`;
}

/**
 * Derives a key of 32 bytes for one use of one `purpose`: HKDF-SHA256 (RFC 5869). The salt is the
 * cluster's id, so two clusters with one secret have no key in common. The info is purpose and
 * `context`. The same use has the same key at every member. Two uses that could have the same nonce
 * must differ in `context`.
 */
export function deriveKey(key: ClusterKey, clusterId: number, purpose: string, context: Uint8Array): Buffer {
  const salt = Buffer.alloc(4);
  salt.writeUInt32LE(clusterId >>> 0);
  const info = Buffer.concat([Buffer.from(`constellation ${purpose}\0`), context]);
  return Buffer.from(hkdfSync('sha256', key.secret, salt, info, SECRET_BYTES));
}
