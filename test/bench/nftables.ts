/**
 * The firewall beside the kernel's, with the same rules: 1000 accepted UDP flows, one direction, on
 * the network of af-xdp-bed.ts. Packets of open connections pass both by their connection tables,
 * so the number of rules should not matter. The benchmark shows whether it does.
 */

import { startAlone } from '../testbed/site.js';
import { FORWARDER_CORE, GENERATOR_CORE, NEXT_HOP_MAC, threadCpuNs } from './af-xdp-bed.js';
import { type Contender, contest, type Measure, measureKernel, WORKER } from './af-xdp-contest.js';
import type { BenchOptions, BenchResult } from './result.js';

const COUNTS = [10, 10_000] as const;
const MODES = ['generic', 'native'] as const;

/** One rule less than `count`, none of which any packet here matches; the same for both. */
const others = (count: number): string =>
  Array.from(
    { length: count - 1 },
    (_, n) => `ip saddr 10.200.${(n >> 8) & 255}.${n & 255} udp dport ${1024 + n} drop`,
  ).join('\n');

const kernel =
  (count: number): Measure =>
  (bed, ms) =>
    measureKernel(
      bed,
      ms,
      `table ip fw {
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct status confirmed accept
${others(count)}
    iifname "in0" accept
  }
}`,
    );

const firewall =
  (mode: string, count: number): Measure =>
  async (bed, ms) => {
    const instance = await startAlone(bed.testbed, 'router', {
      threads: { workers: [FORWARDER_CORE], send: GENERATOR_CORE, receive: GENERATOR_CORE },
      packet_io: { driver: 'af_xdp', mode },
      transport: { kind: 'unicast' },
      ports: { inside: { interface: 'in0' }, outside: { interface: 'out0', next_hop: NEXT_HOP_MAC } },
      middleboxes: [{ firewall: { rules: `policy drop\n${others(count)}\niif inside accept\n` } }],
    });
    const { program } = instance;
    try {
      const measured = await bed.measure(ms, { program, cpuNs: () => threadCpuNs(program.pid, WORKER) });
      const { firewall_passed: passed } = await instance.counters();
      if (!(passed >= (measured.packetsPerS * ms) / 2000)) throw new Error('packets passed by no connection');
      return measured;
    } finally {
      await program.stop('SIGTERM');
    }
  };

const CONTENDERS: readonly Contender[] = COUNTS.flatMap((count): Contender[] => {
  const name = `nftables, ${count} rules`;
  return [
    { name, measure: kernel(count), beside: [] },
    ...MODES.map((mode) => ({
      name: `firewall, ${count} rules, ${mode}`,
      measure: firewall(mode, count),
      beside: [name],
    })),
  ];
});

export function run({ seconds }: BenchOptions): Promise<BenchResult[]> {
  return contest('nftables', CONTENDERS, seconds);
}
