/**
 * Forwarding on veth pairs, one direction, frames of 60 bytes, 1000 flows, one core to forward and one to generate:
 *
 *  - l2fwd.c, the same ring protocol in C without a middlebox: the baseline;
 *  - the af_xdp driver alone, doing the same as l2fwd.c;
 *  - constellationd with its NAT, as an operator runs it;
 *  - the kernel, routing with nftables masquerade on the forwarder's core (receive packet steering takes it there).
 *
 * Processor time per packet is measured on bursts that fill the ring, so at full batches; the kernel's as it goes, from its
 * ticks. They take turns for several rounds, and each round's ratios are taken, for such machines are noisy.
 */

import { fileURLToPath } from 'node:url';
import { Site } from '../testbed/site.js';
import {
  Bed,
  FORWARDER_CORE,
  GENERATOR_CORE,
  type Measured,
  NEXT_HOP_MAC,
  softIrqNs,
  threadCpuNs,
} from './af-xdp-bed.js';
import { type BenchOptions, type BenchResult, median } from './result.js';

const FORWARD = fileURLToPath(new URL('./af-xdp-forward.js', import.meta.url));
const EXTERNAL = '203.0.113.1';
const WORKER = 'ct-worker-0';
const ROUNDS = 5;
const MODES = ['generic', 'native'] as const;

type Measure = (bed: Bed, ms: number) => Promise<Measured>;

interface Contender {
  readonly name: string;
  readonly measure: Measure;
  /** Names of those it is compared with. */
  readonly beside: readonly string[];
}

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

const MASQUERADE = `
  sysctl -qw net.ipv4.ip_forward=1
  echo ${(1 << FORWARDER_CORE).toString(16)} > /sys/class/net/in0/queues/rx-0/rps_cpus
  nft -f - <<END
  table ip nat {
    chain postrouting {
      type nat hook postrouting priority srcnat
      oifname "out0" masquerade
    }
  }
END`;
const PLAIN = `
  nft delete table ip nat
  echo 0 > /sys/class/net/in0/queues/rx-0/rps_cpus
  sysctl -qw net.ipv4.ip_forward=0`;

const kernel: Measure = async (bed, ms) => {
  await bed.testbed.run('router', ['sh', '-ec', MASQUERADE]);
  try {
    return await bed.measure(ms, { program: null, cpuNs: () => softIrqNs(FORWARDER_CORE) });
  } finally {
    await bed.testbed.run('router', ['sh', '-ec', PLAIN]);
  }
};

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

export async function run({ seconds }: BenchOptions): Promise<BenchResult[]> {
  const rounds = new Map<string, Measured[]>(CONTENDERS.map(({ name }) => [name, []]));
  const bed = await Bed.build();
  try {
    for (let round = 0; round < ROUNDS; round++)
      for (const { name, measure } of CONTENDERS) rounds.get(name)?.push(await measure(bed, (seconds * 1000) / ROUNDS));
  } finally {
    await bed.down();
  }
  return CONTENDERS.flatMap(({ name, beside }) => [
    ...figures(rounds, name, beside, 'Mpps', ({ packetsPerS }) => packetsPerS / 1e6),
    ...figures(rounds, name, beside, 'ns/packet', ({ cpuNsPerPacket }) => cpuNsPerPacket),
  ]);
}

/**
 * One figure beside each of its baselines, or alone. The ratio is the median of the rounds' own ratios: what a round
 * measured within seconds has seen the same machine, and the load of others falls out.
 */
function figures(
  rounds: ReadonlyMap<string, readonly Measured[]>,
  name: string,
  beside: readonly string[],
  unit: 'Mpps' | 'ns/packet',
  of: (measured: Measured) => number,
): BenchResult[] {
  const column = (which: string): number[] => (rounds.get(which) ?? []).map(of);
  const values = column(name);
  const value = median(values);
  const label = unit === 'Mpps' ? `af_xdp/${name}` : `af_xdp/${name}, CPU`;
  if (beside.length === 0) return [{ name: label, value, unit, baseline: null, ratio: null }];
  return beside.map((other) => {
    const baselines = column(other);
    const ratio = median(values.map((mine, i) => (unit === 'Mpps' ? mine / baselines[i] : baselines[i] / mine)));
    return { name: `${label}, beside ${other}`, value, unit, baseline: median(baselines), ratio };
  });
}
