/** Memory of state: its pages are made before packets come. */

import type { Instance } from '../workers/instance.js';
import { adviseMemory, isNativeError, type MemoryAdvice } from '../workers/native/index.js';
import type { Log } from './log.js';

/**
 * Huge pages where the kernel has them, and every page is made before a packet waits for one. A
 * fork is the faster for it, also by what workers count beside the arena.
 */
export function prepareArena({ buffers, declaration }: Instance, log: Log): void {
  const arena = new Uint8Array(buffers.arena);
  const huge = advise(arena, 'hugepage');
  advise(arena, 'populate');
  const locals = new Uint8Array(buffers.locals);
  advise(locals, 'hugepage');
  advise(locals, 'populate');
  const names = declaration.objects.map((object) => object.name).join(', ');
  log.info(
    `state: ${names}; ${mebibytes(arena.length)} MiB, ${huge === null ? 'without huge pages' : `of which ${mebibytes(huge)} MiB may be huge pages`}`,
  );
}

/**
 * How many bytes the advice was for; `null` where the kernel does not know it, which costs speed
 * and nothing else.
 */
function advise(view: Uint8Array, advice: MemoryAdvice): number | null {
  try {
    return adviseMemory(view, advice);
  } catch (error) {
    if (isNativeError(error, 'EINVAL')) return null;
    throw error;
  }
}

/** For people: with one decimal. */
export function mebibytes(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(1);
}
