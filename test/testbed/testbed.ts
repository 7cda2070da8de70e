/**
 * Builds a network of namespaces, runs programs in its nodes, and removes all of it.
 *
 * Nothing stays for long, whatever happens to this process. Programs die with it (helper.c).
 * Namespaces are removed in `down` or at exit. After a `kill -9`, the next run sweeps them
 * (sweep.ts).
 */

import { execFile } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { findTool, whyNoNetns } from '../support/require.js';
import { compiled, findCompiler } from './compile.js';
import { Program } from './program.js';
import { Relay } from './relay.js';
import { OWN_PREFIX, RUNS_FOLDER, removeNamespaces, sweep } from './sweep.js';
import { type Plan, plan, RELAY_NODE, type Topology } from './topology.js';

/** What a testbed needs and this machine lacks; empty if nothing is missing. */
export function missing(): string[] {
  const reasons: string[] = [];
  if (process.getuid?.() !== 0) reasons.push('root (network namespaces and AF_XDP sockets need it)');
  if (findTool('ip') === null) reasons.push('the program ip (Debian: apt install iproute2)');
  if (findCompiler() === null) reasons.push('a C compiler (Debian: apt install gcc libc6-dev)');
  if (reasons.length > 0) return reasons;
  const why = whyNoNetns();
  return why === null ? [] : [`network namespaces (${why})`];
}

export interface Output {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

const OUTPUT_BYTES_MAX = 64 << 20;
const up = new Set<Testbed>();
let runs = 0;

export class Testbed {
  /** Folder for the files of this run. `down` removes it. */
  readonly folder: string;
  readonly topology: Topology;
  private readonly plan: Plan;
  private readonly prefix: string;
  private readonly programs: Program[] = [];
  private relayed: Relay | null = null;

  private constructor(topology: Topology) {
    this.prefix = `${OWN_PREFIX}${runs++}-`;
    this.folder = join(RUNS_FOLDER, this.prefix.slice(0, -1));
    this.topology = topology;
    this.plan = plan(topology, (node) => this.namespace(node));
  }

  /**
   * Builds the network. If something is missing on this machine, or a step fails, throws an error
   * that says so, and leaves nothing behind.
   */
  static async build(topology: Topology, seed = 1): Promise<Testbed> {
    const lacking = missing();
    if (lacking.length > 0) throw new Error(`the testbed needs ${lacking.join(', and ')}`);
    sweep();
    const testbed = new Testbed(topology);
    if (runs === 1) process.once('exit', removeAll);
    up.add(testbed);
    try {
      await testbed.create(seed);
      return testbed;
    } catch (error) {
      await testbed.down();
      throw error;
    }
  }

  namespace(node: string): string {
    return `${this.prefix}${node}`;
  }

  mac(node: string, name: string): string {
    const mac = this.plan.macs.get(`${node}/${name}`);
    if (mac === undefined) throw new Error(`there is no interface ${name} in ${node}`);
    return mac;
  }

  /** The WAN emulator. It exists if a link is relayed. */
  get relay(): Relay {
    if (this.relayed === null) throw new Error('no link of this topology is relayed');
    return this.relayed;
  }

  /** Starts a program in a node. Its log is `<name>.log` in the folder. */
  start(node: string, name: string, argv: readonly string[], env: Readonly<Record<string, string>> = {}): Program {
    const program = new Program(name, this.inside(node, argv), join(this.folder, `${name}.log`), env);
    this.programs.push(program);
    return program;
  }

  /** Runs a program in a node to its end. Throws if it fails, unless `anyCode` is set. */
  async run(node: string, argv: readonly string[], anyCode = false): Promise<Output> {
    const inside = this.inside(node, argv);
    const output = await execute(inside, '');
    if (output.code !== 0 && !anyCode)
      throw new Error(
        `in ${node}, ${argv.join(' ')} ended with code ${output.code}: ${output.stderr || output.stdout}`,
      );
    return output;
  }

  /** Runs `ip` commands in a node. */
  async configure(node: string, ...commands: string[]): Promise<void> {
    await ip(['-n', this.namespace(node), '-batch', '-'], commands);
  }

  /**
   * Stops all programs, and removes all namespaces and the folder. Never throws. May be called
   * again.
   */
  async down(): Promise<void> {
    const running = this.programs.filter((program) => program.running);
    for (const program of running) program.kill('SIGKILL');
    await Promise.all(running.map((program) => program.exited));
    this.remove();
  }

  /** The last lines of every program, for the diagnosis of a failed run. */
  report(): string {
    return this.programs.map((program) => `--- ${program.name}\n${program.tail(8)}`).join('\n');
  }

  /** Synchronous form of `down`, for the exit of the process. */
  remove(): void {
    if (!up.delete(this)) return;
    try {
      removeNamespaces(this.plan.nodes.map((node) => this.namespace(node)));
      rmSync(this.folder, { recursive: true, force: true });
    } catch {
      // What is left carries this run's name, and the next run sweeps it.
    }
  }

  private inside(node: string, argv: readonly string[]): string[] {
    if (!this.plan.nodes.includes(node)) throw new Error(`there is no node ${node}`);
    return ['ip', 'netns', 'exec', this.namespace(node), compiled('helper'), 'run', String(process.pid), ...argv];
  }

  private async create(seed: number): Promise<void> {
    mkdirSync(this.folder, { recursive: true });
    const { plan } = this;
    await ip(
      ['-batch', '-'],
      plan.nodes.map((node) => `netns add ${this.namespace(node)}`),
    );
    await ip(['-batch', '-'], plan.links);
    await Promise.all(plan.nodes.map((node) => this.configureNode(node)));
    if (plan.segments.length > 0) await this.startRelay(seed);
  }

  private async configureNode(node: string): Promise<void> {
    const sysctls = Object.entries(this.plan.sysctls.get(node) ?? {});
    const commands = this.plan.configure.get(node) ?? [];
    const interfaces = this.plan.interfaces.get(node) ?? [];
    const script = [
      'set -e',
      // A kernel without IPv6 does not have such a setting, and does not need it.
      ...sysctls.map(([key, value]) => `[ ! -e /proc/sys/net/${key} ] || echo '${value}' > /proc/sys/net/${key}`),
      'ip -batch - <<END',
      ...commands,
      'END',
      ...(interfaces.length > 0 ? [`'${compiled('helper')}' offloads-off ${interfaces.join(' ')}`] : []),
    ];
    const output = await execute(['ip', 'netns', 'exec', this.namespace(node), 'sh'], script.join('\n'));
    if (output.code !== 0) throw new Error(`node ${node} could not be set up: ${output.stderr.trim()}`);
  }

  private async startRelay(seed: number): Promise<void> {
    const argv = [compiled('relay'), '--seed', String(seed), ...this.plan.segments];
    this.relayed = await Relay.attach(this.start(RELAY_NODE, 'relay', argv));
    for (const link of this.topology.links) {
      const nodes = link.ends.map((end) => end.node);
      if (link.relayed !== undefined) await this.relayed.setAll(link.name, nodes, link.relayed);
    }
  }
}

function removeAll(): void {
  for (const testbed of up) testbed.remove();
}

async function ip(options: readonly string[], commands: readonly string[]): Promise<void> {
  if (commands.length === 0) return;
  const output = await execute(['ip', ...options], `${commands.join('\n')}\n`);
  if (output.code === 0) return;
  // iproute2 says "Command failed -:LINE".
  const line = /Command failed [^:]*:(\d+)/.exec(output.stderr);
  const which = line === null ? '' : ` (ip ${commands[Number(line[1]) - 1]})`;
  throw new Error(`ip ${options.join(' ')}: ${output.stderr.trim()}${which}`);
}

async function execute(argv: readonly string[], input: string): Promise<Output> {
  return new Promise((resolve) => {
    const child = execFile(argv[0], argv.slice(1), { maxBuffer: OUTPUT_BYTES_MAX }, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === 'number' ? error.code : 127;
      resolve({ code, stdout, stderr: code === 127 && stderr === '' ? String(error) : stderr });
    });
    child.stdin?.on('error', () => {});
    child.stdin?.end(input);
  });
}
