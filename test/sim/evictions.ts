/**
 * Evictions of living members, as main sees them through etcd: a lease lapsed, or an operator
 * evicted the member. Each instance that hears of it declares the member's incarnation dead. The
 * member learns it from their messages, ends and starts again. If two halves evict each other,
 * nobody learns it; an operator restarts the members of one half.
 */

import type { Step } from './plan.js';
import type { World } from './world.js';

interface Eviction {
  /** Slots. */
  readonly by: number;
  readonly victim: number;
  readonly incarnation: number;
}

export class Evictions {
  private readonly world: World;
  private evictions: Eviction[] = [];

  constructor(world: World) {
    this.world = world;
  }

  begin({ members, by, ms, emptiedMs }: Extract<Step, { do: 'evict' }>): void {
    const { world } = this;
    const lives = members.map((victim) => world.members[victim].life);
    // One that cannot reach etcd hears later.
    by.forEach((one, i) => {
      world.queue.after((i * ms) / by.length, () => {
        if (world.healed) return;
        for (const { member, incarnation } of lives) this.evict(one, member, incarnation);
      });
    });
    if (emptiedMs !== undefined) world.queue.after(ms + emptiedMs, () => this.forget());
  }

  /**
   * The list of members says of no incarnation any more that it is dead; for the core those that
   * ended have ended.
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
    // It is gone, or has started again, by now.
    if (by === victim || !world.members[by].up || !up || life.incarnation !== incarnation) return;
    world.happened('a living member was evicted');
    this.evictions.push({ by, victim, incarnation });
    world.members[victim].isCondemned = true;
    // Whoever evicted it keeps nothing for it.
    for (const { ledger } of world.members[victim].subjects) if (ledger !== null) ledger.mayLack = true;
    world.members[by].evict(victim, incarnation);
  }

  /**
   * The process of the member has ended: its own evictions are gone with it, and its next life
   * takes part.
   */
  ended(member: number): void {
    const { evictions, world } = this;
    this.evictions = evictions.filter(({ by, victim }) => by !== member && victim !== member);
    for (const { by, victim, incarnation } of evictions)
      if (victim === member) world.members[by].admit(member, incarnation);
  }

  /**
   * Members to restart so that all understand each other again: those that are evicted by members
   * that are not restarted.
   */
  get toRestart(): number[] {
    const restarted: number[] = [];
    for (const { by, victim } of this.evictions)
      if (!restarted.includes(by) && !restarted.includes(victim)) restarted.push(victim);
    return restarted;
  }
}
