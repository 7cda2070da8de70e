/**
 * What becomes of a snapshot that has come: a fresh instance *loads* it, one that has state of its own *merges* it.
 *
 * Both happen where nobody else writes what they write. A snapshot is loaded in place, before workers run, and while the
 * receive thread takes no units; it is started again after it, for the objects it has opened hash with the old secret and
 * its vectors are those from before.
 */

import { AckBoard } from '../../shm/ack-board.js';
import { Arena } from '../../shm/arena.js';
import type { StateObject } from '../../shm/objects/object.js';
import type { Instance } from '../instance.js';
import { selfIndex } from '../replication/settings.js';
import type { SnapshotHead } from './head.js';
import { writeVectors } from './vectors.js';

/**
 * After `fetchSnapshot` into `instance.buffers.arena`: the objects take over what it says of our former life, and the board
 * what it has of every origin. Throws where it is not of our layout; then, as after a failed fetch, `clearArena`.
 */
export function loadSnapshot(instance: Instance, objects: readonly StateObject[], head: SnapshotHead): void {
  const { buffers, declaration, plan } = instance;
  new Arena(buffers.arena, declaration.objects, plan.replication.slots);
  for (const object of objects) object.adopt?.();
  writeVectors(new AckBoard(buffers.ackBoard), head.vectors, selfIndex(plan.replication));
}

export interface MergeOutcome {
  /** Entries that changed ours, by object. */
  readonly changed: readonly number[];
  /** Objects that could not take theirs, and why. */
  readonly problems: readonly { readonly object: number; readonly problem: string }[];
}

/**
 * Joins a snapshot that was fetched into memory of its own with what is here. The receive thread's, which alone writes
 * what other instances counted. An object that cannot merge says why, and the others do.
 */
export function mergeSnapshot(theirs: Arena, objects: readonly StateObject[], now: number): MergeOutcome {
  const problems: { object: number; problem: string }[] = [];
  const changed = objects.map((object) => {
    try {
      if (object.merge === undefined) throw new Error('this kind of state object cannot be merged');
      return object.merge(theirs.region(object.id), now);
    } catch (error) {
      problems.push({ object: object.id, problem: error instanceof Error ? error.message : String(error) });
      return 0;
    }
  });
  return { changed, problems };
}
