/**
 * The requirements of a test on the machine. If one is missing, the test is skipped with the
 * reason. In CI, where everything must be present, it fails instead, so that a green run never
 * hides a test that did not run.
 */

import { execFileSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

export type Need = 'root' | 'netns' | 'af_xdp' | `tool:${string}` | `file:${string}`;

/** Returns the path of a program on PATH or in Debian's folders for administrators, or `null`. */
export function findTool(name: string): string | null {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  for (const folder of folders) {
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // the next folder
    }
  }
  return null;
}

let netns: { why: string | null } | undefined;

/**
 * Why network namespaces cannot be made here, or `null` if they can. The test is real and runs
 * once.
 */
export function whyNoNetns(): string | null {
  netns ??= { why: probeNetns() };
  return netns.why;
}

function probeNetns(): string | null {
  if (process.getuid?.() !== 0) return 'not root';
  const ip = findTool('ip');
  if (ip === null) return 'the program ip (iproute2) is not installed';
  const name = `ct-probe-${process.pid}`;
  try {
    execFileSync(ip, ['netns', 'add', name], { stdio: 'pipe' });
    execFileSync(ip, ['-n', name, 'link', 'add', 'p0', 'type', 'veth', 'peer', 'name', 'p1'], { stdio: 'pipe' });
    return null;
  } catch (error) {
    return `network namespaces cannot be made: ${String((error as { stderr?: unknown }).stderr ?? error).trim()}`;
  } finally {
    try {
      execFileSync(ip, ['netns', 'del', name], { stdio: 'ignore' });
    } catch {
      // it was never made
    }
  }
}

function whyNot(need: Need): string | null {
  if (need === 'root') return process.getuid?.() === 0 ? null : 'not root';
  // AF_XDP sockets are made inside namespaces of our own. If the kernel lacks them, the test that
  // opens one reports it.
  if (need === 'netns' || need === 'af_xdp') return whyNoNetns();
  if (need.startsWith('tool:'))
    return findTool(need.slice(5)) === null ? `the program ${need.slice(5)} is not installed` : null;
  const path = need.slice(5);
  try {
    accessSync(path, constants.R_OK);
    return null;
  } catch {
    return `there is no ${path}`;
  }
}

/** For a `before` hook or a test: `needs(this, 'netns', 'tool:curl')`. */
export function needs(context: Mocha.Context, ...list: Need[]): void {
  const reasons = list.map(whyNot).filter((reason) => reason !== null);
  if (reasons.length === 0) return;
  const reason = reasons.join('; ');
  if (process.env['CI']) throw new Error(`needed in CI: ${reason}`);
  console.log(`      skipped: ${reason}`);
  context.skip();
}
