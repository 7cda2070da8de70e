/** The transfer of a snapshot from its donor to the member that fetches it, and how it may fail. */

import type { Snapshot } from './entry.js';
import type { Instance } from './instance.js';
import type { Stream } from './random.js';
import type { World } from './world.js';

/** Transfer time if the plan sets none, and time until a failure is noticed, ms. */
const TRANSFER_MS = [1, 200] as const;
const FETCH_FAILS_MS = 300;

/** `done` gets the snapshot, or the reason why there is none. */
export function transfer(
  world: World,
  draw: Stream,
  at: Instance,
  donor: number,
  done: (snapshot: Snapshot | string) => void,
): void {
  const { queue, links, plan } = world;
  const isCut = (): boolean => links.link(at.member, donor).cuts + links.link(donor, at.member).cuts > 0;
  const fail = (why: string): void => queue.after(FETCH_FAILS_MS, () => done(why));
  if (isCut()) {
    fail('unreachable');
    return;
  }
  queue.after(links.link(at.member, donor).delayMs, () => {
    const giver = world.members[donor];
    const snapshot = giver.up && !giver.isPaused ? giver.entry.capture() : null;
    if (snapshot === null) {
      fail('refused');
      return;
    }
    world.reachedStep(at, 'copied');
    const travelMs = links.link(donor, at.member).delayMs + draw.between(...(plan.transferMs ?? TRANSFER_MS));
    queue.after(travelMs, () => {
      if (giver.up && !isCut()) done(snapshot);
      else fail('broken off');
    });
  });
}
