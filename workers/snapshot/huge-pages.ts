/**
 * Huge pages that a snapshot has broken up: who writes to memory that it shares with a child is
 * given a copy of 4 KiB, and the huge page around it falls into 512 small ones, for good, as the
 * kernel's own daemon takes minutes to put them together. With them the next fork would copy 512
 * times as many entries, while packets stand still; and every access would miss the TLB more often.
 * So once the child is gone they are put together (MADV_COLLAPSE, Linux 6.1), one at a time, which
 * holds up those who use that one page for the time of copying 2 MiB.
 */

import { setImmediate as nextTurn } from 'node:timers/promises';
import { addressOf, adviseMemory, isNativeError } from '../native/index.js';

const HUGE_BYTES = 2 << 20;

/**
 * Main thread, a page a turn of the event loop. Where the kernel does not, for want of memory or at
 * all, it stays as it is.
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
