/**
 * The common part of the benchmarks on the network of af-xdp-bed.ts: contenders take turns for
 * several rounds.
 */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Bed, FORWARDER_CORE, type Measured, softIrqNs } from './af-xdp-bed.js';
import { type BenchResult, median } from './result.js';

const ROUNDS = 5;
/** Name of the measured thread of an instance. */
export const WORKER = 'ct-worker-0';

export type Measure = (bed: Bed, ms: number) => Promise<Measured>;

export interface Contender {
  readonly name: string;
  readonly measure: Measure;
  /** Names of the contenders that it is compared with. */
  readonly beside: readonly string[];
}

/** Measures the kernel, which routes with these nftables tables on the forwarder's core. */
export async function measureKernel(bed: Bed, ms: number, tables: string): Promise<Measured> {
  const file = join(bed.testbed.folder, 'kernel.nft');
  writeFileSync(file, `${tables}\n`);
  const up = `
    sysctl -qw net.ipv4.ip_forward=1
    echo ${(1 << FORWARDER_CORE).toString(16)} > /sys/class/net/in0/queues/rx-0/rps_cpus
    nft -f ${file}`;
  const down = `
    nft flush ruleset
    echo 0 > /sys/class/net/in0/queues/rx-0/rps_cpus
    sysctl -qw net.ipv4.ip_forward=0`;
  await bed.testbed.run('router', ['sh', '-ec', up]);
  try {
    return await bed.measure(ms, { program: null, cpuNs: () => softIrqNs(FORWARDER_CORE) });
  } finally {
    await bed.testbed.run('router', ['sh', '-ec', down]);
  }
}

/** Measures all contenders. The names of the results begin with `name`. */
export async function contest(name: string, contenders: readonly Contender[], seconds: number): Promise<BenchResult[]> {
  const rounds = new Map<string, Measured[]>(contenders.map(({ name: who }) => [who, []]));
  const bed = await Bed.build();
  try {
    for (let round = 0; round < ROUNDS; round++)
      for (const { name: who, measure } of contenders)
        rounds.get(who)?.push(await measure(bed, (seconds * 1000) / ROUNDS));
  } finally {
    await bed.down();
  }
  return contenders.flatMap(({ name: who, beside }) => [
    ...figures(name, rounds, who, beside, 'Mpps', ({ packetsPerS }) => packetsPerS / 1e6),
    ...figures(name, rounds, who, beside, 'ns/packet', ({ cpuNsPerPacket }) => cpuNsPerPacket),
  ]);
}

/**
 * One figure beside each of its baselines, or alone. The ratio is the median of the ratios of the
 * rounds. Within the seconds of a round, the machine is the same for all, so other load cancels
 * out.
 */
function figures(
  bench: string,
  rounds: ReadonlyMap<string, readonly Measured[]>,
  name: string,
  beside: readonly string[],
  unit: 'Mpps' | 'ns/packet',
  of: (measured: Measured) => number,
): BenchResult[] {
  const column = (which: string): number[] => (rounds.get(which) ?? []).map(of);
  const values = column(name);
  const value = median(values);
  const label = unit === 'Mpps' ? `${bench}/${name}` : `${bench}/${name}, CPU`;
  if (beside.length === 0) return [{ name: label, value, unit, baseline: null, ratio: null }];
  return beside.map((other) => {
    const baselines = column(other);
    const ratio = median(values.map((mine, i) => (unit === 'Mpps' ? mine / baselines[i] : baselines[i] / mine)));
    return { name: `${label}, beside ${other}`, value, unit, baseline: median(baselines), ratio };
  });
}
