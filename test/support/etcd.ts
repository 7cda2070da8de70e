/** A real etcd on loopback, which a test starts, kills and starts again. */

import { mkdtempSync, rmSync } from 'node:fs';
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

  /** Starts it, with what it knew; returns when it answers. */
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

  /** Forgets all history before now. */
  async compact(): Promise<void> {
    const { revision } = await this.client.read('/');
    const body = JSON.stringify({ revision: String(revision), physical: true });
    const response = await fetch(`${this.endpoint}/v3/kv/compaction`, { method: 'POST', body });
    if (!response.ok) throw new Error(await response.text());
  }

  async down(): Promise<void> {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
