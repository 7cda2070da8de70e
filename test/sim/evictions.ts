/**
 * Evictions of living members, as main learns of them through etcd: a lease expired, or an operator
 * evicted the member. Each instance that learns of it declares the member's incarnation dead. The
 * member learns it from their messages, ends and restarts. This may be after the healing.
 *
 * If two halves evict each other, no member learns it from the other half; an operator restarts the
 * members of one half. Members pass on that an incarnation has ended. So two members may refuse
 * each other although neither main evicted the other. Their alarms report it, and the operator
 * restarts one of them.
 */

import type { Instance } from './instance.js';
import type { Step } from './plan.js';
import type { World } from './world.js';

/** An evicted member, and one that an operator restarts, starts again after this time, ms. */
export const RESTART_MS = 100;

interface Eviction {
  /** Slots. */
  readonly by: number;
  readonly victim: number;
  readonly incarnation: number;
}

export class Evictions {
  private readonly world: World;
  private evictions: Eviction[] = [];
  /** Instances that refuse each other, as their alarms reported before the healing. */
  private readonly estranged: [Instance, Instance][] = [];

  constructor(world: World) {
    this.world = world;
  }

  begin({ members, by, ms, emptiedMs }: Extract<Step, { do: 'evict' }>): void {
    const { world } = this;
    const lives = members.map((victim) => world.members[victim].life);
    // Members learn of it one after the other: some cannot reach etcd at first.
    by.forEach((one, i) => {
      world.queue.after((i * ms) / by.length, () => {
        if (world.healed) return;
        for (const { member, incarnation } of lives) this.evict(one, member, incarnation);
      });
    });
    if (emptiedMs !== undefined) world.queue.after(ms + emptiedMs, () => this.forget());
  }

  /**
   * etcd was restored empty. The member list no longer declares any incarnation dead, but the core
   * keeps ended incarnations ended.
   */
  private forget(): void {
    const { world, evictions } = this;
    if (world.healed) return;
    for (const { by, victim } of evictions) world.members[by].admit(victim, 0);
    if (evictions.length > 0) world.happened('etcd was restored empty');
  }

  private evict(by: number, victim: number, incarnation: number): void {
    const { world } = this;
    const { up, life } = world.members[victim];
    // The victim may have died or restarted meanwhile.
    if (by === victim || !world.members[by].up || !up || life.incarnation !== incarnation) return;
    world.happened('a living member was evicted');
    this.evictions.push({ by, victim, incarnation });
    world.members[victim].isCondemned = true;
    // A member that evicted it retains nothing for it.
    for (const { ledger } of world.members[victim].subjects) if (ledger !== null) ledger.mayLack = true;
    world.members[by].evict(victim, incarnation);
  }

  /**
   * The member's process has ended. The evictions that it knew end with it, and the others admit
   * its next incarnation.
   */
  ended(member: number): void {
    const { evictions, world } = this;
    this.evictions = evictions.filter(({ by, victim }) => by !== member && victim !== member);
    for (const { by, victim, incarnation } of evictions)
      if (victim === member) world.members[by].admit(member, incarnation);
  }

  /** `at` reports that it and the member in `slot` refuse each other. */
  reported(at: Instance, slot: number): void {
    const { world } = this;
    const other = world.members[slot];
    if (!world.healed) {
      this.estranged.push([at, other]);
      return;
    }
    // The other one may report it, too, and may have restarted meanwhile.
    world.queue.after(0, () => {
      if (!at.up || !other.up || !other.isCondemned) return;
      world.happened('an operator restarted one side');
      world.crash(slot, RESTART_MS);
    });
  }

  /**
   * Slots of members to restart at the healing so that all members accept each other again: the
   * victims of members that are not restarted themselves.
   */
  get toRestart(): number[] {
    const restarted: number[] = [];
    const apart = this.estranged.filter(([at, other]) => at.up && other.up);
    const pairs = apart.map(([at, other]) => ({ by: at.member, victim: other.member }));
    for (const { by, victim } of [...this.evictions, ...pairs])
      if (!restarted.includes(by) && !restarted.includes(victim)) restarted.push(victim);
    return restarted;
  }
}
