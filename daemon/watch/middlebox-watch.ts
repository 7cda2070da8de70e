/**
 * Conditions that middleboxes report from the main thread, beside their packets. An operator should
 * know them while they last; an example is a suspended decision. `status` shows them.
 */

import { coarseSeconds } from '../../shm/clock.js';
import type { Watch } from '../../workers/api/middlebox.js';
import { monotonicMs } from '../../workers/base/monotonic.js';
import type { Instance } from '../../workers/engine/instance.js';

const LOOK_MS = 500;

export class MiddleboxWatch {
  private readonly watches: readonly { readonly name: string; readonly watch: Watch }[];
  private lookedAt = Number.NEGATIVE_INFINITY;

  constructor(instance: Instance) {
    this.watches = instance.declaration.links.flatMap(({ name, middlebox, options, objectIds }) => {
      const members = instance.openMembers(Object.values(objectIds));
      const watch = middlebox.watch?.({ options: options as never, members });
      return watch === undefined ? [] : [{ name, watch }];
    });
  }

  /** May be called often; looks twice a second. */
  look(): void {
    const now = monotonicMs();
    if (now - this.lookedAt < LOOK_MS) return;
    this.lookedAt = now;
    for (const { watch } of this.watches) watch.look(coarseSeconds(Date.now()));
  }

  conditions(): string[] {
    return this.watches.flatMap(({ name, watch }) => watch.conditions().map((text) => `${name}: ${text}`));
  }
}
