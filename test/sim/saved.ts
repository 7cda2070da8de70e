/**
 * State files of simulated members, and the choice of the file to restore: main's part
 * (daemon/membership/state-keeper.ts and restoration.ts) in simulated time. A file survives its
 * process. It is restored if no member with state is heard.
 */

import { type Candidate, type Offer, restorer, Stands } from '../../workers/snapshot/offer.js';
import { restoredVectors } from '../../workers/snapshot/restore.js';
import type { Snapshot } from './entry.js';
import type { Instance } from './instance.js';
import type { World } from './world.js';

/** A state file. */
export interface Saved {
  readonly snapshot: Snapshot;
  readonly savedMs: number;
  readonly incarnation: number;
}

export type Decision = 'wait' | 'empty' | Saved;

export class SavedStates {
  private readonly world: World;
  private readonly files = new Map<number, Saved>();

  constructor(world: World) {
    this.world = world;
  }

  /** Whether any member saves its state in this run. */
  get isUsed(): boolean {
    return this.world.plan.steps.some((step) => step.do === 'save');
  }

  save(instance: Instance): void {
    const snapshot = instance.up && !instance.isPaused ? instance.entry.copy() : null;
    if (snapshot === null) return;
    this.world.happened('state saved');
    const { incarnation } = instance.life;
    this.files.set(instance.member, { snapshot, savedMs: instance.moment.wallMs, incarnation });
  }

  private offerOf(instance: Instance): Offer {
    const { joining } = instance.entry;
    const savedMs = this.files.get(instance.member)?.savedMs ?? 0;
    if (joining.state !== 'ready') return { stands: Stands.JOINING, savedMs };
    return { stands: joining.hasBegunEmpty ? Stands.BEGUN_EMPTY : Stands.READY, savedMs };
  }

  /**
   * Decides for an instance that hears no member with state. `heard`: slots of the members that it
   * hears.
   */
  decide(at: Instance, heard: readonly number[]): Decision {
    const own = this.files.get(at.member);
    const candidates: Candidate[] = [{ slot: at.member, savedMs: own?.savedMs ?? 0 }];
    for (const slot of heard) {
      const other = this.world.members[slot];
      if (!other.up) return 'wait';
      const { stands, savedMs } = this.offerOf(other);
      const hasBegunAlike = stands === Stands.BEGUN_EMPTY && at.entry.joining.isTogether && own === undefined;
      if (stands !== Stands.JOINING && !hasBegunAlike) return 'wait';
      candidates.push({ slot, savedMs });
    }
    const best = restorer(candidates);
    if (best === null) return 'empty';
    return best.slot === at.member && own !== undefined ? own : 'wait';
  }
}

/** The snapshot in the state file of `member`, as its next start must load it. */
export function restored({ snapshot, incarnation }: Saved, member: number): Snapshot {
  const saver = { slot: member, incarnation, members: [] };
  return { ...snapshot, vectors: restoredVectors(snapshot.vectors, saver, () => 0) };
}
