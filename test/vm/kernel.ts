/**
 * Debian's stock kernels: resolves the newest package of a series in the archive, and unpacks it
 * once.
 */

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface Kernel {
  /** As `uname -r` shows it. */
  readonly release: string;
  /** The kernel image, for the emulator. */
  readonly image: string;
  /** The folder of its modules. */
  readonly modules: string;
}

const CACHE = process.env['VM_CACHE'] ?? join(tmpdir(), 'constellation-vm');

/**
 * The newest cloud kernel of a series, such as `6.12`. Throws with what apt said if there is none.
 */
export function fetchKernel(series: string): Kernel {
  const name = newestPackage(series);
  const folder = join(CACHE, name);
  if (!existsSync(folder)) unpack(name, folder);
  const modules = join(folder, 'lib', 'modules');
  const [release] = readdirSync(modules);
  return { release, image: join(folder, 'boot', `vmlinuz-${release}`), modules: join(modules, release) };
}

function newestPackage(series: string): string {
  const pattern = `^linux-image-${series.replace('.', '\\.')}\\.[0-9].*-cloud-amd64$`;
  const lines = execFileSync('apt-cache', ['search', pattern], { encoding: 'utf8' }).split('\n');
  const names = lines.map((line) => line.split(' ')[0]).filter((name) => name !== '');
  names.sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
  const newest = names.at(-1);
  if (newest === undefined)
    throw new Error(
      `apt knows no kernel ${series} (linux-image-${series}.…-cloud-amd64): run apt-get update, or add the archive that has it`,
    );
  return newest;
}

function unpack(name: string, folder: string): void {
  const download = join(CACHE, `${name}.download`);
  rmSync(download, { recursive: true, force: true });
  mkdirSync(download, { recursive: true });
  try {
    execFileSync('apt-get', ['-qq', 'download', name], { cwd: download, stdio: ['ignore', 'ignore', 'pipe'] });
    const [file] = readdirSync(download);
    const unpacked = join(download, 'unpacked');
    execFileSync('dpkg', ['-x', join(download, file), unpacked]);
    renameSync(unpacked, folder);
  } finally {
    rmSync(download, { recursive: true, force: true });
  }
}
