/** Checks that the memory of an instance stays within its settings. */

import type { Instance } from './instance.js';
import { demand } from './violation.js';

export function checkMemory(at: Instance): void {
  const { settings, sender, receiver } = at;
  const objects = at.subjects.length;
  if (sender !== null)
    demand(
      sender.keptBytes <= objects * settings.unitLogBytes,
      'memory-bounded',
      () => `${at.name}: unit logs overflow`,
    );
  if (receiver !== null)
    demand(
      receiver.bufferedBytes <= objects * settings.members.length * settings.reorderBytes,
      'memory-bounded',
      () => `${at.name}: ${receiver.bufferedBytes} bytes wait for earlier ones`,
    );
}
