/**
 * The secret that state objects have in common at all members: `OpenContext.clusterSecret`. It is
 * derived from the key that members send with, so it is the same at every member and after a
 * restart, and nobody outside can compute it. Without a key it is all zeros, which objects take for
 * none: what could be derived from the configuration would be no secret.
 *
 * Main writes it, at the start and when keys are read again; the workers read it as plain words.
 * One that reads while main writes may see words of both keys: it then proposes, once, what no
 * other member does, which is allowed at any time.
 */

import type { SealKey } from '../shm/seal-board.js';
import { SIPHASH_KEY_WORDS } from '../shm/siphash.js';
import { BYTES_PER_WORD } from '../shm/struct.js';
import { deriveKey } from './replication/cluster-key.js';

const PURPOSE = 'objects';
const NO_CONTEXT = new Uint8Array(0);

/** Shared memory with the secret. Main thread, once. */
export function createClusterSecret(clusterId: number, keys: readonly SealKey[] | null): SharedArrayBuffer {
  const buffer = new SharedArrayBuffer(SIPHASH_KEY_WORDS * BYTES_PER_WORD);
  if (keys !== null) writeClusterSecret(buffer, clusterId, keys);
  return buffer;
}

/** Main: the first key is now the one to send with. */
export function writeClusterSecret(buffer: SharedArrayBuffer, clusterId: number, keys: readonly SealKey[]): void {
  const derived = deriveKey(keys[0], clusterId, PURPOSE, NO_CONTEXT);
  const words = new Int32Array(buffer);
  for (let i = 0; i < words.length; i++) words[i] = derived.readInt32LE(i * BYTES_PER_WORD);
}
