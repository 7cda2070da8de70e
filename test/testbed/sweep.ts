/**
 * Names everything that a run creates outside its process, and removes what killed runs left
 * behind.
 *
 * All names begin with `ct-<pid>-<start>-`. The start time of the process makes the name unique
 * even if its process number is reused. What carries the name of a process that no longer exists is
 * stale and is removed.
 */

import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Folder of the runs' files: configurations, sockets, logs. */
export const RUNS_FOLDER = join(tmpdir(), 'constellation-testbed');

const NAMED = /^ct-(\d+)-([0-9a-z]+)-/;

/** Prefix of all names that this process creates. */
export const OWN_PREFIX = `ct-${process.pid}-${startOf(process.pid)}-`;

/**
 * Start time of a process in the kernel's ticks, base 36; `null` if there is no such process
 * (proc(5), field 22).
 */
function startOf(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? null : Number(fields[19]).toString(36);
  } catch {
    return null;
  }
}

/** Whether a name belongs to a testbed process that no longer exists. */
export function isStale(name: string): boolean {
  const match = NAMED.exec(name);
  return match !== null && startOf(Number(match[1])) !== match[2];
}

function entries(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/**
 * Removes all that killed runs left: processes, namespaces with their interfaces, and files.
 * Returns what it removed.
 */
export function sweep(): string[] {
  const namespaces = entries('/run/netns').filter(isStale);
  removeNamespaces(namespaces);
  return [...namespaces, ...sweepFolders()];
}

/** Removes only the files. Needs no privileges and leaves other users' files. */
export function sweepFolders(): string[] {
  return [RUNS_FOLDER, tmpdir()].flatMap((parent) =>
    entries(parent).filter((name) => isStale(name) && remove(parent, name)),
  );
}

function remove(parent: string, name: string): boolean {
  try {
    rmSync(join(parent, name), { recursive: true, force: true });
    return true;
  } catch {
    return false;
  }
}

/**
 * Ends every process in the namespaces and removes them. Synchronous: it also runs while the
 * process exits.
 */
export function removeNamespaces(namespaces: readonly string[]): void {
  if (namespaces.length === 0) return;
  for (const namespace of namespaces) {
    for (const pid of processesIn(namespace)) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It has ended by itself.
      }
    }
  }
  const commands = namespaces.map((namespace) => `netns del ${namespace}`).join('\n');
  execFileSync('ip', ['-force', '-batch', '-'], { input: commands, stdio: ['pipe', 'ignore', 'ignore'] });
}

function processesIn(namespace: string): number[] {
  try {
    const out = execFileSync('ip', ['netns', 'pids', namespace], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    return out.split('\n').filter(Boolean).map(Number);
  } catch {
    return [];
  }
}
