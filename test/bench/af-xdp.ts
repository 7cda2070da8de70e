/**
 * Forwarding on veth pairs: one direction, frames of 60 bytes, 1000 flows, one core to forward and
 * one to generate. Compared are:
 *
 * - l2fwd.c, the same ring protocol in C without a middlebox: the baseline;
 * - the af_xdp driver alone, doing the same as l2fwd.c;
 * - constellationd with its NAT, as an operator runs it;
 * - the kernel, routing with nftables masquerade on the forwarder's core (receive packet steering
 *   puts it there).
 *
 * Processor time per packet is measured on bursts that fill the ring, so with full batches. That of
 * the kernel is measured while it runs, from its ticks. The contenders take turns for several
 * rounds, and ratios are taken per round, because such machines are noisy.
 */

import { fileURLToPath } from 'node:url';
import { Site } from '../testbed/site.js';
import { FORWARDER_CORE, GENERATOR_CORE, NEXT_HOP_MAC, threadCpuNs } from './af-xdp-bed.js';
import { type Contender, contest, type Measure, measureKernel, WORKER } from './af-xdp-contest.js';
import type { BenchOptions, BenchResult } from './result.js';

const FORWARD = fileURLToPath(new URL('./af-xdp-forward.js', import.meta.url));
const EXTERNAL = '203.0.113.1';
const MODES = ['generic', 'native'] as const;

const l2fwd =
  (mode: string): Measure =>
  async (bed, ms) => {
    const program = bed.startL2fwd(mode);
    try {
      await program.waitFor(/ready/);
      return await bed.measure(ms, { program, cpuNs: () => threadCpuNs(program.pid) });
    } finally {
      await program.stop();
    }
  };

const driverAlone =
  (mode: string): Measure =>
  async (bed, ms) => {
    const program = bed.startForwarder('forward', [process.execPath, FORWARD, ...bed.forwarding(mode)]);
    try {
      await program.waitFor(/ready/);
      return await bed.measure(ms, { program, cpuNs: () => threadCpuNs(program.pid) });
    } finally {
      await program.stop('SIGKILL');
    }
  };

const nat =
  (mode: string): Measure =>
  async (bed, ms) => {
    const place = {
      self: 'only',
      members: [{ name: 'only', id: 1, address: '127.0.0.1' }],
      ports: { inside: { interface: 'in0' }, outside: { interface: 'out0', next_hop: NEXT_HOP_MAC } },
      external: [EXTERNAL],
      core: FORWARDER_CORE,
    };
    const threads = { workers: [FORWARDER_CORE], send: GENERATOR_CORE, receive: GENERATOR_CORE };
    const site = new Site(bed.testbed, 'router', place, {
      threads,
      packet_io: { mode },
      transport: { kind: 'unicast' },
    });
    await site.start();
    const { program } = site;
    try {
      const measured = await bed.measure(ms, { program, cpuNs: () => threadCpuNs(program.pid, WORKER) });
      const { nat_outbound: translated } = await site.counters();
      if (!(translated >= (measured.packetsPerS * ms) / 1000)) throw new Error('packets passed untranslated');
      return measured;
    } finally {
      await site.stop();
    }
  };

const MASQUERADE = `table ip nat {
  chain postrouting {
    type nat hook postrouting priority srcnat
    oifname "out0" masquerade
  }
}`;

const kernel: Measure = (bed, ms) => measureKernel(bed, ms, MASQUERADE);

const KERNEL = 'kernel, nftables masquerade';
const CONTENDERS: readonly Contender[] = [
  { name: KERNEL, measure: kernel, beside: [] },
  ...MODES.flatMap((mode): Contender[] => {
    const c = `C, ${mode}`;
    return [
      { name: c, measure: l2fwd(mode), beside: [] },
      { name: `driver alone, ${mode}`, measure: driverAlone(mode), beside: [c] },
      { name: `NAT, ${mode}`, measure: nat(mode), beside: [c, KERNEL] },
    ];
  }),
];

export function run({ seconds }: BenchOptions): Promise<BenchResult[]> {
  return contest('af_xdp', CONTENDERS, seconds);
}
