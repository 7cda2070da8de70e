/** A real etcd on loopback, which a test starts, kills and starts again. */

import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EtcdClient } from '../../daemon/membership/etcd-client.js';
import { Program } from '../testbed/program.js';
import { freePort } from './ports.js';
import { findTool } from './require.js';

export class Etcd {
  readonly endpoint: string;
  readonly client: EtcdClient;
  private readonly peer: string;
  private readonly folder = mkdtempSync(join(tmpdir(), 'constellation-etcd-'));
  private program: Program | null = null;

  static async start(): Promise<Etcd> {
    const etcd = new Etcd(await freePort('127.0.0.1'), await freePort('127.0.0.1'));
    await etcd.up();
    return etcd;
  }

  private constructor(port: number, peerPort: number) {
    this.endpoint = `http://127.0.0.1:${port}`;
    this.peer = `http://127.0.0.1:${peerPort}`;
    this.client = new EtcdClient([this.endpoint], 5000);
  }

  /** Starts etcd with its present data. Returns when it answers. */
  async up(): Promise<void> {
    const etcd = findTool('etcd');
    if (etcd === null) throw new Error('the program etcd is not installed');
    const argv = [
      ...[etcd, '--data-dir', join(this.folder, 'data'), '--log-level', 'error'],
      ...['--listen-client-urls', this.endpoint, '--advertise-client-urls', this.endpoint],
      ...['--listen-peer-urls', this.peer, '--initial-advertise-peer-urls', this.peer],
      ...['--initial-cluster', `default=${this.peer}`],
    ];
    const program = new Program('etcd', argv, join(this.folder, 'log'));
    this.program = program;
    for (let i = 0; ; i++) {
      try {
        await this.client.read('/ready');
        return;
      } catch (error) {
        if (!program.running || i > 500) throw new Error(`etcd does not start: ${program.tail()}`, { cause: error });
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }

  async kill(): Promise<void> {
    await this.program?.stop('SIGKILL');
  }

  /** Compacts all history before now. */
  async compact(): Promise<void> {
    const { revision } = await this.client.read('/');
    const body = JSON.stringify({ revision: String(revision), physical: true });
    const response = await fetch(`${this.endpoint}/v3/kv/compaction`, { method: 'POST', body });
    if (!response.ok) throw new Error(await response.text());
  }

  /** Makes a backup of its present data. */
  async backUp(): Promise<void> {
    await this.kill();
    cpSync(join(this.folder, 'data'), join(this.folder, 'backup'), { recursive: true });
    await this.up();
  }

  /** Starts again from the backup, or empty. */
  async restore(from: 'backup' | 'nothing'): Promise<void> {
    await this.kill();
    rmSync(join(this.folder, 'data'), { recursive: true, force: true });
    if (from === 'backup') cpSync(join(this.folder, 'backup'), join(this.folder, 'data'), { recursive: true });
    await this.up();
  }

  async down(): Promise<void> {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** A path to an etcd that can be cut, like a management network. */
export class EtcdGate {
  readonly endpoint: string;
  private readonly server: Server;
  private readonly sockets: Set<Socket>;
  private isOpen = true;

  static async open(etcd: Etcd): Promise<EtcdGate> {
    const target = Number(new URL(etcd.endpoint).port);
    const sockets = new Set<Socket>();
    const gates: EtcdGate[] = [];
    const server = createServer((socket) => {
      if (gates[0]?.isOpen !== true) {
        socket.destroy();
        return;
      }
      const onward = connect(target, '127.0.0.1');
      for (const [one, other] of [
        [socket, onward],
        [onward, socket],
      ]) {
        sockets.add(one);
        one.on('error', () => other.destroy());
        one.on('close', () => {
          sockets.delete(one);
          other.destroy();
        });
      }
      socket.pipe(onward);
      onward.pipe(socket);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const gate = new EtcdGate(server, sockets);
    gates.push(gate);
    return gate;
  }

  private constructor(server: Server, sockets: Set<Socket>) {
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('the gate has no port');
    this.endpoint = `http://127.0.0.1:${address.port}`;
    this.server = server;
    this.sockets = sockets;
  }

  cut(): void {
    this.isOpen = false;
    for (const socket of this.sockets) socket.destroy();
  }

  mend(): void {
    this.isOpen = true;
  }

  close(): void {
    this.cut();
    this.server.close();
  }
}
