/**
 * Makes other builds for tests of installations and upgrades: this tree with some files changed.
 */

import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const PROJECT = fileURLToPath(new URL('../../..', import.meta.url));
const PARTS = ['build-id', 'conf', 'daemon', 'options', 'shm', 'workers'];

export interface Patch {
  /** Path below dist/. */
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

/**
 * Copies the parts of this tree that install.sh needs to `folder`, applies patches, and sets the
 * build id.
 */
export function makeBuild(folder: string, id: string, patches: readonly Patch[] = []): void {
  mkdirSync(join(folder, 'dist'), { recursive: true });
  const filter = (path: string): boolean => !/\.(map|d\.ts)$/.test(path);
  for (const part of PARTS)
    cpSync(join(PROJECT, 'dist', part), join(folder, 'dist', part), { recursive: true, filter });
  for (const name of ['systemd', 'conf', 'package.json', 'package-lock.json', 'LICENSE'])
    cpSync(join(PROJECT, name), join(folder, name), { recursive: true });
  // Links are installed as links, which is fast.
  linkPackages(join(PROJECT, 'node_modules'), join(folder, 'node_modules'));
  for (const { file, find, replace } of patches) {
    const path = join(folder, 'dist', file);
    const text = readFileSync(path, 'utf8');
    if (!text.includes(find)) throw new Error(`${file} has no ${find} to change`);
    writeFileSync(path, text.replace(find, replace));
  }
  nameBuild(folder, id);
}

/** Sets the id of a build. */
export function nameBuild(folder: string, id: string): void {
  writeFileSync(join(folder, 'dist', 'build-id'), `${id}\n`);
}

function linkPackages(from: string, to: string): void {
  mkdirSync(to);
  for (const name of readdirSync(from)) {
    if (name.startsWith('.')) continue;
    if (name.startsWith('@')) linkPackages(join(from, name), join(to, name));
    else symlinkSync(join(from, name), join(to, name));
  }
}

/** Installs the build in `folder` below `root`. */
export function installBuild(folder: string, root: string): string {
  return execFileSync(join(folder, 'systemd', 'install.sh'), ['--destdir', root], { encoding: 'utf8' });
}
