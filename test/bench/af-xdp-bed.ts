/**
 * The network of the af_xdp benchmark, and its measurements.
 *
 *     generator ── 10.1.0.0/16 ── in0 router out0 ── 192.0.2.0/30 ── sink
 *
 * Frames leave the router for a link-layer address that is not the sink's. So the sink's kernel
 * drops them at once, and what it received is what was forwarded. The generator and the forwarder
 * each have their own core.
 */

import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { findCompiler, PROJECT } from '../testbed/compile.js';
import type { Program } from '../testbed/program.js';
import { Testbed } from '../testbed/testbed.js';
import { median } from './result.js';

export const GENERATOR_CORE = 0;
export const FORWARDER_CORE = 1;
/** An address that is not the sink's. */
export const NEXT_HOP_MAC = '02:00:00:00:00:99';
export const RING_SIZE = 4096;

const SERVER = '198.51.100.1';
const FIRST_CLIENT = '10.1.1.1';
const FLOWS = 1000;
const FRAME_BYTES = 60;
const WARM_UP_MS = 1000;

/**
 * A burst fills the forwarder's rx ring. It is forwarded well before the measurement looks at it.
 */
const BURSTS = 12;
const FILL_MS = 40;
const DRAIN_MS = 40;
/** Time for a signal to stop a process. */
const STOP_MS = 5;

/** The result of one measurement. */
export interface Measured {
  readonly packetsPerS: number;
  /** Processor time of the forwarder per forwarded packet. */
  readonly cpuNsPerPacket: number;
}

/** The process whose processor time is measured. */
export interface Forwarder {
  /** Processor time so far, ns. */
  cpuNs(): number;
  /**
   * A process that may be stopped for a moment, so that packets fill its ring. Its time is then
   * that of full batches: idle rounds do not count, and neither does the share of the core that
   * others take. `null`: measured while it runs.
   */
  readonly program: Program | null;
}

export class Bed {
  readonly testbed: Testbed;
  private readonly generator: string;
  private readonly l2fwd: string;
  /**
   * Runs in the sink's namespace, so that the sink's counters can be read without starting a
   * program.
   */
  private readonly witness: Program;

  private constructor(testbed: Testbed) {
    this.testbed = testbed;
    this.generator = compileProgram(testbed.folder, 'generator');
    this.l2fwd = compileProgram(testbed.folder, 'l2fwd');
    this.witness = testbed.start('sink', 'witness', ['sleep', 'infinity']);
  }

  static async build(): Promise<Bed> {
    const testbed = await Testbed.build({
      nodes: {
        generator: {},
        router: { routes: ['default via 192.0.2.2 dev out0'] },
        sink: {},
      },
      links: [
        {
          name: 'lan',
          ends: [
            { node: 'generator', interface: 'eth0', addresses: ['10.1.0.2/16'] },
            { node: 'router', interface: 'in0', addresses: ['10.1.0.1/16'] },
          ],
        },
        {
          name: 'wan',
          ends: [
            { node: 'router', interface: 'out0', addresses: ['192.0.2.1/30'] },
            { node: 'sink', interface: 'eth0', addresses: [] },
          ],
        },
      ],
    });
    try {
      await testbed.configure('router', `neigh replace 192.0.2.2 lladdr ${NEXT_HOP_MAC} dev out0 nud permanent`);
      return new Bed(testbed);
    } catch (error) {
      await testbed.down();
      throw error;
    }
  }

  /** Starts a program in the router on the forwarder's core. */
  startForwarder(name: string, argv: readonly string[]): Program {
    return this.testbed.start('router', name, ['taskset', '-c', `${FORWARDER_CORE}`, ...argv]);
  }

  startL2fwd(mode: string): Program {
    return this.startForwarder('l2fwd', [this.l2fwd, ...this.forwarding(mode)]);
  }

  /** Arguments of both l2fwd.c and af-xdp-forward.ts. */
  forwarding(mode: string): string[] {
    return ['in0', 'out0', mode, `${RING_SIZE}`, this.testbed.mac('generator', 'eth0'), NEXT_HOP_MAC];
  }

  /** Sends traffic at full speed for a while, after a warm-up, and then in bursts. */
  async measure(ms: number, forwarder: Forwarder): Promise<Measured> {
    const to = [this.testbed.mac('router', 'in0'), FIRST_CLIENT, SERVER];
    const argv = [this.generator, 'eth0', ...to, `${FLOWS}`, `${FRAME_BYTES}`, '0'];
    const pinned = ['taskset', '-c', `${GENERATOR_CORE}`, ...argv];
    const generator = this.testbed.start('generator', 'generator', pinned);
    try {
      await generator.waitFor(/ready/);
      await pause(WARM_UP_MS);
      const [startMs, startPackets, startCpu] = [performance.now(), this.forwarded(), forwarder.cpuNs()];
      await pause(ms);
      const [endMs, endPackets, endCpu] = [performance.now(), this.forwarded(), forwarder.cpuNs()];
      const packets = endPackets - startPackets;
      if (packets === 0) throw new Error(`nothing was forwarded:\n${this.testbed.report()}`);
      const { program } = forwarder;
      return {
        packetsPerS: (packets * 1000) / (endMs - startMs),
        cpuNsPerPacket:
          program === null ? (endCpu - startCpu) / packets : await this.bursts(generator, program, forwarder),
      };
    } finally {
      generator.kill('SIGCONT');
      await generator.stop();
    }
  }

  /** Median processor time per packet of bursts that wait in the forwarder's ring. */
  private async bursts(generator: Program, program: Program, forwarder: Forwarder): Promise<number> {
    const costs: number[] = [];
    generator.kill('SIGSTOP');
    await pause(DRAIN_MS);
    for (let burst = 0; burst < BURSTS; burst++) {
      program.kill('SIGSTOP');
      await pause(STOP_MS);
      generator.kill('SIGCONT');
      await pause(FILL_MS);
      generator.kill('SIGSTOP');
      await pause(STOP_MS);
      const [startPackets, startCpu] = [this.forwarded(), forwarder.cpuNs()];
      program.kill('SIGCONT');
      await pause(DRAIN_MS);
      const packets = this.forwarded() - startPackets;
      if (packets > 0) costs.push((forwarder.cpuNs() - startCpu) / packets);
    }
    if (costs.length === 0) throw new Error(`no burst was forwarded:\n${this.testbed.report()}`);
    return median(costs);
  }

  async down(): Promise<void> {
    await this.testbed.down();
  }

  /** Packets that the sink's interface has received. */
  private forwarded(): number {
    const line = readFileSync(`/proc/${this.witness.pid}/net/dev`, 'utf8').split('eth0:')[1];
    return Number(line.trim().split(/\s+/)[1]);
  }
}

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export function compileProgram(folder: string, name: string): string {
  const compiler = findCompiler();
  if (compiler === null) throw new Error('a C compiler is needed (Debian: apt install gcc libc6-dev)');
  const output = join(folder, name);
  const source = join(PROJECT, 'test', 'bench', `${name}.c`);
  execFileSync(compiler, ['-std=gnu11', '-O2', '-o', output, source], { stdio: ['ignore', 'ignore', 'inherit'] });
  return output;
}

/**
 * Processor time so far of one thread of a process, or of all its threads, in nanoseconds
 * (Documentation/scheduler/sched-stats).
 */
export function threadCpuNs(pid: number, thread?: string): number {
  let total = 0;
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    const folder = `/proc/${pid}/task/${task}`;
    if (thread !== undefined && readFileSync(`${folder}/comm`, 'utf8').trim() !== thread) continue;
    total += Number(readFileSync(`${folder}/schedstat`, 'utf8').split(' ')[0]);
  }
  return total;
}

/**
 * Time that a core has spent in soft interrupts so far, in nanoseconds, at the resolution of ticks
 * (proc(5)).
 */
export function softIrqNs(core: number): number {
  const line = readFileSync('/proc/stat', 'utf8').split(`cpu${core} `)[1];
  return Number(line.split(/\s+/)[6]) * 1e7;
}
