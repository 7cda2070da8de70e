/**
 * Where a snapshot goes that is being read: into the instance's arena, if it lies in memory as that
 * does, or else, or to be merged, into memory of its own, with the layout that its head says.
 */

import { type ArenaObject, createArena, layoutArena } from '../../shm/arena.js';
import type { Instance } from '../instance.js';
import { shapeOf } from './fork.js';
import { donorObjects, hasLayoutOf, type SnapshotStart } from './head.js';

/** A donor's arena in memory of its own, and its objects as they lie there. */
export interface Beside {
  readonly memory: SharedArrayBuffer;
  readonly objects: readonly ArenaObject[];
}

export class Landing {
  /** `null`: the snapshot goes into the instance's arena, or none came yet. */
  beside: Beside | null = null;
  private readonly instance: Instance;
  private readonly isBeside: boolean;

  /** `isBeside`: also if the layout is ours, as for a merge. */
  constructor(instance: Instance, isBeside: boolean) {
    this.instance = instance;
    this.isBeside = isBeside;
  }

  /** As `Place` of stream.ts. */
  readonly place = (start: SnapshotStart): Uint8Array => {
    const { declaration, buffers, plan } = this.instance;
    const isOurs = hasLayoutOf(start, shapeOf(this.instance));
    if (isOurs && !this.isBeside) return new Uint8Array(buffers.arena);
    const objects = isOurs ? declaration.objects : donorObjects(start, declaration.objects, declaration.definitions);
    const memory = createArena(layoutArena(objects, plan.replication.slots));
    this.beside = { memory, objects };
    return new Uint8Array(memory);
  };
}
