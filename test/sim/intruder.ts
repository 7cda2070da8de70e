/** An attacker who is not a member: forges datagrams, records them, and plays them back. */

import type { Flight } from './flight.js';
import { forge } from './forge.js';
import type { Instance } from './instance.js';
import type { Step } from './plan.js';
import type { Stream } from './random.js';
import { demand } from './violation.js';
import type { Witness } from './witness.js';
import type { World } from './world.js';

/** Byte offsets and sizes in a sealed datagram (docs/state-message.md). */
const VERSION_AT = 0;
const SALT_AT = 12;
const SALT_BYTES = 16;

export class Intruder {
  /** The reason for which a forged message must be refused, while it is received. */
  rejectWanted: string | null = null;
  private readonly world: World;
  private readonly witness: Witness;
  private readonly draw: Stream;

  constructor(world: World, witness: Witness, draw: Stream) {
    this.world = world;
    this.witness = witness;
    this.draw = draw;
  }

  forge({ member, to, what }: Extract<Step, { do: 'forge' }>): void {
    const victim = this.world.members[to];
    if (!victim.up || victim.receiver === null || victim.isPaused || member === to) return;
    const object = this.draw.below(this.world.plan.objects.length);
    const { incarnation } = this.world.members[member].life;
    // A victim that has heard no incarnation of the member cannot recognise an earlier one.
    if (what === 'incarnation' && !this.witness.hasHeard(victim, member, incarnation)) return;
    const bytes = forge(what, victim, member, incarnation, object);
    const before = this.stateOf(victim);
    this.rejectWanted = this.world.plan.sealed ? 'unsealed' : what;
    victim.deliver({ bytes, sender: member, to, object, contents: null });
    this.rejectWanted = null;
    demand(
      this.stateOf(victim) === before,
      'forgery-refused',
      () => `${victim.name}: a forged ${what} changed its state`,
    );
  }

  /** The content of all objects, which a refused message must not change. */
  private stateOf(instance: Instance): string {
    return instance.subjects.map((subject) => subject.digest(instance.moment.coarse)).join();
  }

  /**
   * Sends recorded datagrams: one with another version, the others each with another salt, so that
   * the victim must derive a key for each.
   */
  flood(member: number, to: number, count: number): void {
    const recorded = this.world.links.played(to).find(({ sender }) => sender === member);
    if (recorded === undefined || this.world.plan.sealed !== true) return;
    for (let i = 0; i < count; i++) {
      const bytes = recorded.bytes.slice();
      if (i === 0) bytes[VERSION_AT]++;
      else for (let at = SALT_AT; at < SALT_AT + SALT_BYTES; at++) bytes[at] = this.draw.below(256);
      this.world.happened('flooded');
      this.world.members[to].deliver({ ...recorded, bytes, contents: null });
    }
  }

  replay(to: number, count: number): void {
    const played = this.world.links.played(to);
    for (let i = 0; i < count && played.length > 0; i++) {
      this.world.happened('replayed');
      this.world.members[to].deliver(this.draw.pick(played));
    }
  }

  /** Plays recorded datagrams back, spread over time. */
  playBack(step: Extract<Step, { do: 'playback' }>): void {
    const recorded = this.recorded(step);
    if (recorded.length === 0) return;
    const { to, count, ms, what } = step;
    for (let i = 0; i < count; i++)
      this.world.queue.after(what === 'start' ? (i * ms) / count : this.draw.between(0, ms), () => {
        if (this.world.healed) return;
        this.world.happened(`played back: ${what}`);
        this.world.members[to].deliver(what === 'start' ? recorded[i % recorded.length] : this.draw.pick(recorded));
      });
  }

  private recorded({ what, member, to, count }: Extract<Step, { do: 'playback' }>): readonly Flight[] {
    const played = this.world.links.played(to);
    const isPresent = ({ sender, contents }: Flight): boolean =>
      contents?.incarnation === this.world.members[sender].life.incarnation;
    if (what === 'start') return played.filter(isPresent).slice(0, count);
    if (what === 'former') return played.filter((one) => one.sender === member && !isPresent(one));
    if (played.length === 0) return played;
    const { sender, contents } = this.draw.pick(played);
    return played.filter((one) => one.sender === sender && one.contents?.incarnation === contents?.incarnation);
  }
}
