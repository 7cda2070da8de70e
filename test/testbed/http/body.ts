/** Bodies that both ends can generate: they look random, and are the same for the same path. */

import { createCipheriv, createHash } from 'node:crypto';

/** Path of a body of `bytes`. Another seed gives another body. */
export function bodyPath(bytes: number, seed: number): string {
  return `/${bytes}/${seed}`;
}

/** The body of a path; `null` if the path names none. */
export function bodyOf(path: string): Buffer | null {
  const match = /^\/(\d{1,9})\/(\d{1,9})$/.exec(path);
  if (match === null) return null;
  const key = createHash('sha256').update(path).digest();
  return createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(Number(match[1])));
}

export function sha256(data: Buffer): string {
  return createHash('sha256').update(data).digest('hex');
}
