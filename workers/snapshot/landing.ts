/**
 * Where a snapshot is read to. It goes into the instance's arena if it has the same memory layout.
 * Otherwise, or if it will be merged, it goes into memory of its own, with the layout that its head
 * gives.
 */

import { type ArenaObject, createArena, layoutArena } from '../../shm/arena.js';
import type { Instance } from '../engine/instance.js';
import { shapeOf } from './fork.js';
import { donorObjects, hasLayoutOf, type SnapshotStart } from './head.js';

/** A donor's arena in memory of its own, and its objects with their layout there. */
export interface Beside {
  readonly memory: SharedArrayBuffer;
  readonly objects: readonly ArenaObject[];
}

export class Landing {
  /** `null`: the snapshot goes into the instance's arena, or none has come yet. */
  beside: Beside | null = null;
  private readonly instance: Instance;
  private readonly isBeside: boolean;

  /** `isBeside`: use memory of its own even if the layout is ours, as for a merge. */
  constructor(instance: Instance, isBeside: boolean) {
    this.instance = instance;
    this.isBeside = isBeside;
  }

  /** The `Place` of stream.ts. */
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
