/** Which start of the kernel this is: only within one do monotonic times compare. */

import { readFileSync } from 'node:fs';

/** Random for each start of the kernel, or of a container. '': the kernel does not say. */
export function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  } catch {
    return '';
  }
}
