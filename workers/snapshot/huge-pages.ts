/**
 * Restores huge pages that a snapshot has split. If a thread writes to memory that is shared with a
 * child, the kernel gives it a copy of 4 KiB, and splits the huge page around it into 512 small
 * ones. That lasts, because the kernel's own daemon takes minutes to collapse them. With small
 * pages the next fork would copy 512 times as many entries while packets are paused, and every
 * access would miss the TLB more often. So once the child has ended, the pages are collapsed
 * (MADV_COLLAPSE, Linux 6.1), one at a time. Each collapse delays only users of that page, while 2
 * MiB are copied.
 */

import { setImmediate as nextTurn } from 'node:timers/promises';
import { addressOf, adviseMemory, isNativeError } from '../native/index.js';

const HUGE_BYTES = 2 << 20;

/**
 * Collapses one page per turn of the event loop. Main thread. If the kernel does not, because it
 * lacks memory or the feature, the pages stay split.
 */
export async function rejoinHugePages(memory: SharedArrayBuffer): Promise<void> {
  const bytes = new Uint8Array(memory);
  const beyond = addressOf(bytes) % HUGE_BYTES;
  for (let at = beyond === 0 ? 0 : HUGE_BYTES - beyond; at + HUGE_BYTES <= bytes.length; at += HUGE_BYTES) {
    try {
      adviseMemory(bytes.subarray(at, at + HUGE_BYTES), 'collapse');
    } catch (error) {
      if (!isNativeError(error)) throw error;
      return;
    }
    await nextTurn();
  }
}
