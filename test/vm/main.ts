/**
 * Long tests on other kernels and real drivers: boots Debian's stock kernels in software emulation
 * (QEMU without KVM), each with network cards of each kind, and runs guest.ts inside. It shows
 * behaviour, never speed.
 *
 *     npm run test:vm                       all
 *     npm run test:vm -- 6.12 vmxnet3       those that are named: kernels, cards, or both
 *
 * A machine has four cards on two links. Its kernel keeps both ends apart by network namespaces:
 *
 *     client: eth0 ──link 1── eth1  box  eth2 ──link 2── eth3 :server
 */

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { findTool } from '../support/require.js';
import { buildImage } from './image.js';
import { fetchKernel, type Kernel } from './kernel.js';

const KERNELS = ['6.1', '6.12'];
const CARDS: Readonly<Record<string, string>> = {
  // The host's MTU is the largest that the guest may set.
  virtio_net: 'virtio-net-pci,host_mtu=9000',
  vmxnet3: 'vmxnet3',
};
const QEMU = 'qemu-system-x86_64';
/** For a boot with all cases, on a busy machine without KVM. */
const BOOT_MS_MAX = Number(process.env['VM_S'] ?? 1200) * 1000;
/** What the guest says of a case: see guest.ts. */
const RESULT = /^(passed|failed): (.*)$/;
const FINISHED = 'guest: finished';

interface Tally {
  passed: number;
  failed: number;
}

function machine(kernel: Kernel, image: string, card: string): string[] {
  const links = [1, 1, 2, 2].flatMap((link, i) => [
    '-netdev',
    `hubport,id=end${i},hubid=${link}`,
    '-device',
    `${card},netdev=end${i},mac=52:54:00:00:00:0${i}`,
  ]);
  const emulated = ['-accel', 'tcg,thread=multi', '-cpu', 'max', '-m', '3072', '-smp', '2', '-nographic', '-no-reboot'];
  const boot = ['-kernel', kernel.image, '-initrd', image, '-append', 'console=ttyS0 quiet panic=-1'];
  return [...emulated, ...boot, ...links];
}

/** Boots once; prints what the guest says, with the results counted. */
async function run(what: string, argv: readonly string[], tally: Tally): Promise<void> {
  const guest = spawn(QEMU, argv, { stdio: ['ignore', 'pipe', 'inherit'] });
  const timer = setTimeout(() => guest.kill('SIGKILL'), BOOT_MS_MAX);
  let finished = false;
  for await (const raw of createInterface({ input: guest.stdout })) {
    const line = raw.trimEnd();
    const result = RESULT.exec(line);
    if (result !== null) tally[result[1] as keyof Tally]++;
    if (line === FINISHED) finished = true;
    if (result !== null) console.log(`${result[1]}: ${what}: ${result[2]}`);
    else if (process.env['VM_VERBOSE'] !== undefined || line.startsWith('  ')) console.log(line);
  }
  clearTimeout(timer);
  if (finished) return;
  tally.failed++;
  console.log(`failed: ${what}: the machine ended before its tests did (VM_VERBOSE=1 shows what it said)`);
}

async function main(names: readonly string[]): Promise<void> {
  const known = [...KERNELS, ...Object.keys(CARDS)];
  const unknown = names.filter((name) => !known.includes(name));
  if (unknown.length > 0) throw new Error(`${unknown.join(', ')}: not one of ${known.join(', ')}`);
  if (findTool(QEMU) === null) throw new Error(`${QEMU} is not installed: run .ci/install-vm-programs`);
  const chosen = (all: readonly string[]): readonly string[] => {
    const some = all.filter((name) => names.includes(name));
    return some.length > 0 ? some : all;
  };
  const tally: Tally = { passed: 0, failed: 0 };
  for (const series of chosen(KERNELS)) {
    const folder = mkdtempSync(join(tmpdir(), 'constellation-vm-'));
    try {
      const kernel = fetchKernel(series);
      const image = join(folder, 'image');
      buildImage(kernel, join(folder, 'root'), image);
      for (const card of chosen(Object.keys(CARDS)))
        await run(`${kernel.release} ${card}`, machine(kernel, image, CARDS[card]), tally);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }
  console.log(`${tally.passed} passed, ${tally.failed} failed`);
  process.exitCode = tally.failed === 0 ? 0 : 1;
}

await main(process.argv.slice(2)).catch((error: Error) => {
  console.error(error.message);
  process.exitCode = 2;
});
