/**
 * The secret that state objects share at all members: `OpenContext.clusterSecret`. It is derived
 * from the key that members seal with. So it is the same at every member and after a restart, and
 * nobody outside the cluster can compute it. Without a key it is all zeros, which objects treat as
 * no secret, because a value derived from the configuration would not be secret.
 *
 * Main writes it at the start and when keys are reloaded. Workers read it as plain words. A worker
 * that reads while main writes can see words of both keys. It then proposes, once, what no other
 * member would, which is allowed at any time.
 */

import type { SealKey } from '../../shm/seal-board.js';
import { SIPHASH_KEY_WORDS } from '../../shm/siphash.js';
import { BYTES_PER_WORD } from '../../shm/struct.js';
import { deriveKey } from '../replication/wire/cluster-key.js';

const PURPOSE = 'objects';
const NO_CONTEXT = new Uint8Array(0);

/** Makes the shared memory with the secret. Called once, by the main thread. */
export function createClusterSecret(clusterId: number, keys: readonly SealKey[] | null): SharedArrayBuffer {
  const buffer = new SharedArrayBuffer(SIPHASH_KEY_WORDS * BYTES_PER_WORD);
  if (keys !== null) writeClusterSecret(buffer, clusterId, keys);
  return buffer;
}

/** Called by main when the first key has become the one to seal with. */
export function writeClusterSecret(buffer: SharedArrayBuffer, clusterId: number, keys: readonly SealKey[]): void {
  const derived = deriveKey(keys[0], clusterId, PURPOSE, NO_CONTEXT);
  const words = new Int32Array(buffer);
  for (let i = 0; i < words.length; i++) words[i] = derived.readInt32LE(i * BYTES_PER_WORD);
}
