/**
 * Instances as separate programs on this host, without privileges. They communicate over loopback
 * addresses, and take their packets from capture files.
 */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MAC, writeRequests } from '../demo/capture.js';
import { Instance } from '../testbed/instance.js';
import { Program } from '../testbed/program.js';
import { freePort } from './ports.js';

const DAEMON = fileURLToPath(new URL('../../daemon/constellationd.js', import.meta.url));

export interface LoopbackOptions {
  /** The `cluster` section, without `id`, `self` and `members`. */
  readonly cluster?: object;
  /** Names of the members it lists; absent: no list. */
  readonly members?: readonly string[];
  /** Flows that clients of this instance open as soon as it takes packets. */
  readonly flows?: number;
  /** Other sections, or parts of them. */
  readonly sections?: Readonly<Record<string, unknown>>;
  /** How far the wall clock of the program is ahead of this host's, in ms. */
  readonly clockMs?: number;
}

export class LoopbackCluster {
  readonly folder = mkdtempSync(join(tmpdir(), 'constellation-cluster-'));
  private readonly port: number;
  private readonly programs: Program[] = [];

  static async create(): Promise<LoopbackCluster> {
    return new LoopbackCluster(await freePort());
  }

  private constructor(port: number) {
    this.port = port;
  }

  /** 127.0.0.1 for `a`, and so on. */
  address(name: string): string {
    return `127.0.0.${this.id(name)}`;
  }

  id(name: string): number {
    return name.charCodeAt(0) - 'a'.charCodeAt(0) + 1;
  }

  /**
   * Starts an instance and returns at once. The instance's `attach` waits until it takes packets.
   */
  launch(name: string, options: LoopbackOptions = {}): { instance: Instance; program: Program } {
    const file = join(this.folder, `${name}.yaml`);
    const socket = join(this.folder, `${name}.sock`);
    writeFileSync(file, JSON.stringify(this.configuration(name, socket, options)));
    const { clockMs = 0 } = options;
    const clock = `const now = Date.now; Date.now = () => now() + ${clockMs};`;
    const node = clockMs === 0 ? [] : ['--import', `data:text/javascript,${encodeURIComponent(clock)}`];
    const program = new Program(
      name,
      [process.execPath, ...node, DAEMON, '-c', file],
      join(this.folder, `${name}.log`),
    );
    this.programs.push(program);
    return { instance: new Instance(name, socket), program };
  }

  /** Starts an instance and waits until it takes packets. */
  async start(name: string, options: LoopbackOptions = {}): Promise<Instance> {
    const { instance, program } = this.launch(name, options);
    await instance.attach(program);
    return instance;
  }

  /** The last output of the instances. */
  report(): string {
    return this.programs.map((program) => `--- ${program.name}\n${program.tail()}`).join('\n');
  }

  async down(): Promise<void> {
    await Promise.all(this.programs.map((program) => program.stop('SIGKILL')));
    rmSync(this.folder, { recursive: true, force: true });
  }

  private configuration(name: string, socket: string, { cluster, members, flows, sections }: LoopbackOptions): object {
    const requests = join(this.folder, `${name}.pcap`);
    if (flows !== undefined) writeRequests(requests, flows, 1);
    const list = members?.map((member) => ({ name: member, id: this.id(member), address: this.address(member) }));
    return {
      packet_io: { driver: 'pcap' },
      ports: {
        inside: { mac: MAC.inside, next_hop: MAC.client, ...(flows !== undefined && { in: requests }) },
        outside: { mac: MAC.outside, next_hop: MAC.router },
      },
      middleboxes: [{ nat: { inside: 'inside', outside: 'outside', external: ['203.0.113.1'], flows: 4096 } }],
      admin: { socket },
      ...sections,
      cluster: { id: 'loopback', self: name, ...(list && { members: list }), ...cluster },
      transport: { kind: 'unicast', port: this.port, ...(sections?.['transport'] as object | undefined) },
      replication: { keepalive_ms: 50, join_wait_ms: 500, ...(sections?.['replication'] as object | undefined) },
    };
  }
}

/**
 * Gives each test of the suite a cluster of its own, and ends it. Shows the instances' output if
 * the test failed.
 */
export function clusterForEach(use: (cluster: LoopbackCluster) => void): void {
  let cluster: LoopbackCluster;

  beforeEach(async () => {
    cluster = await LoopbackCluster.create();
    use(cluster);
  });

  afterEach(async function () {
    if (this.currentTest?.state === 'failed') console.log(cluster.report());
    await cluster.down();
  });
}
