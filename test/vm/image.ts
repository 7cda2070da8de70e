/**
 * The virtual machine's file system: an initramfs with busybox, Node, the few programs that the
 * guest runs, the drivers' modules, and the built project in /opt/constellation.
 */

import { execFileSync } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { findTool } from '../support/require.js';
import { PROJECT } from '../testbed/compile.js';
import type { Kernel } from './kernel.js';

const PROGRAMS = ['ip', 'ethtool', 'ping'];
/**
 * The order is not enough: kernels differ in which of two modules needs the other. So they are
 * loaded in several passes.
 */
const MODULES = [
  'failover',
  'net_failover',
  'stp',
  'llc',
  'bridge',
  'virtio',
  'virtio_ring',
  'virtio_pci_modern_dev',
  'virtio_pci_legacy_dev',
  'virtio_pci',
  'virtio_net',
  'vmxnet3',
  'af_packet',
];
/** What only building and checking need. */
const NOT_NEEDED = ['typescript', '@typescript', '@biomejs', '@types', '.bin', 'fast-check', 'mocha'];
const HOME = '/opt/constellation';

const INIT = `#!/bin/busybox sh
export PATH=/usr/bin:/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir -p /dev/shm; mount -t tmpfs tmpfs /dev/shm; mount -t tmpfs tmpfs /tmp
for pass in 1 2 3; do
  while read -r module; do insmod "/lib/modules/$module.ko" 2>/dev/null; done < /lib/modules/order
done
/usr/bin/ip link set lo up
cd ${HOME}; /usr/bin/node dist/test/vm/guest.js; echo "guest: ended with code $?"
poweroff -f
`;

/** Builds the file system in `folder`, which must not exist, and packs it into `file`. */
export function buildImage(kernel: Kernel, folder: string, file: string): void {
  for (const path of [
    'bin',
    'dev',
    'proc',
    'sys',
    'tmp',
    'run/netns',
    'var',
    'etc',
    'lib64',
    'lib/modules',
    'usr/bin',
    HOME,
  ])
    mkdirSync(join(folder, path), { recursive: true });
  symlinkSync('/run', join(folder, 'var', 'run'));
  copyFileSync(tool('busybox'), join(folder, 'bin', 'busybox'));
  const applets = execFileSync(tool('busybox'), ['--list'], { encoding: 'utf8' }).trim().split('\n');
  for (const applet of applets)
    if (applet !== 'busybox' && !PROGRAMS.includes(applet)) symlinkSync('busybox', join(folder, 'bin', applet));
  putProgram(folder, process.execPath, 'node');
  for (const name of PROGRAMS) putProgram(folder, tool(name), name);
  putModules(folder, kernel);
  putProject(folder);
  writeFileSync(join(folder, 'init'), INIT, { mode: 0o755 });
  // Not compressed: the emulator unpacks slower than it reads.
  execFileSync('sh', ['-c', 'find . | cpio --quiet -o -H newc > "$0"', file], { cwd: folder });
}

function tool(name: string): string {
  const path = findTool(name);
  if (path === null) throw new Error(`the program ${name} is not installed: run .ci/install-vm-programs`);
  return path;
}

/** A program with the libraries that it loads. */
function putProgram(folder: string, path: string, name: string): void {
  copyFileSync(realpathSync(path), join(folder, 'usr', 'bin', name));
  const libraries = execFileSync('ldd', [path], { encoding: 'utf8' }).match(/\/\S+/g) ?? [];
  for (const library of libraries) {
    if (!existsSync(library) || existsSync(join(folder, library))) continue;
    mkdirSync(join(folder, dirname(library)), { recursive: true });
    copyFileSync(library, join(folder, library));
  }
}

function putModules(folder: string, { modules }: Kernel): void {
  const all = readdirSync(modules, { recursive: true, encoding: 'utf8' });
  const order: string[] = [];
  for (const module of MODULES) {
    const file = all.find((path) => basename(path).replace(/\.xz$/, '') === `${module}.ko`);
    if (file === undefined) continue; // built in
    const to = join(folder, 'lib', 'modules', basename(file));
    copyFileSync(join(modules, file), to);
    if (to.endsWith('.xz')) execFileSync('xz', ['-d', to]);
    order.push(module);
  }
  writeFileSync(join(folder, 'lib', 'modules', 'order'), `${order.join('\n')}\n`);
}

function putProject(folder: string): void {
  for (const part of ['dist', 'conf', 'package.json'])
    cpSync(join(PROJECT, part), join(folder, HOME, part), { recursive: true });
  const packages = join(PROJECT, 'node_modules');
  for (const name of readdirSync(packages))
    if (!NOT_NEEDED.includes(name))
      cpSync(join(packages, name), join(folder, HOME, 'node_modules', name), { recursive: true });
}
