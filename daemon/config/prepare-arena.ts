/** Prepares the memory of the state: its pages are allocated before packets come. */

import type { Instance } from '../../workers/engine/instance.js';
import { adviseMemory, isNativeError, type MemoryAdvice } from '../../workers/native/index.js';
import type { Log } from '../base/log.js';

/**
 * Uses huge pages if the kernel has them, and allocates every page, so that no packet waits for a
 * page fault. Huge pages also make a fork faster, both of the arena and of the workers' local
 * memory.
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
 * Returns how many bytes the advice applies to; `null` if the kernel does not know the advice. That
 * costs only speed.
 */
function advise(view: Uint8Array, advice: MemoryAdvice): number | null {
  try {
    return adviseMemory(view, advice);
  } catch (error) {
    if (isNativeError(error, 'EINVAL')) return null;
    throw error;
  }
}

/** For people, with one decimal. */
export function mebibytes(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(1);
}
