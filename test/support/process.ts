/** Information from /proc about this process. */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** The targets of open descriptors, without their numbers, sorted. */
export function openDescriptors(): string[] {
  return readdirSync('/proc/self/fd')
    .map((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`).replace(/:?\[\d+\]$/, '');
      } catch {
        return ''; // the descriptor of the listing itself
      }
    })
    .filter((name) => name !== '' && !/^\/proc\//.test(name))
    .sort();
}

/** State letters of our children by process id, including zombies (`Z`). */
export function children(): Record<number, string> {
  const found: Record<number, string> = {};
  for (const name of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
      const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      if (Number(parent) === process.pid) found[Number(name)] = state;
    } catch {
      // ended meanwhile
    }
  }
  return found;
}

/** Waits until `done` returns true, for at most `ms`. Returns whether it did. */
export async function soon(done: () => boolean, ms = 10_000): Promise<boolean> {
  for (const deadline = performance.now() + ms; performance.now() < deadline; await sleep(5)) if (done()) return true;
  return done();
}
