/**
 * The admin socket of an instance that is starting. It answers before the instance has its slot in
 * the cluster, so that `status` shows what the instance waits for. Once the instance exists, it
 * answers every command.
 */

import type { Config } from '../../conf/config.js';
import { BUILD_ID } from '../../workers/engine/build-id.js';
import { FailedError } from '../base/command-errors.js';
import { version } from '../base/version.js';
import type { AdminSource, Status } from '../views/source.js';

/** An operator ended the start. */
export class StoppedError extends Error {}

export class StartingSource {
  /** What the instance waits for; `null`: nothing. */
  waitsFor: string | null = null;
  /** The source for the admin server, before and after the start. */
  readonly source: AdminSource;
  /** Aborted if an operator ends the start. */
  readonly ending = new AbortController();
  private readonly config: Config;
  private readonly startedAt = Date.now();
  private readonly instance: Promise<AdminSource>;
  private settle: { readonly resolve: (source: AdminSource) => void; readonly reject: (error: Error) => void };

  constructor(config: Config) {
    this.config = config;
    this.settle = { resolve: () => {}, reject: () => {} };
    this.instance = new Promise((resolve, reject) => {
      this.settle = { resolve, reject };
    });
    this.instance.catch(() => {}); // nobody may be waiting for it
    const answers: Partial<AdminSource> = {
      status: () => this.status(),
      join: async (how) => (await this.instance).join(how),
      shutdown: () => this.ending.abort(new StoppedError('stopped by an operator while it was starting')),
    };
    let current: Partial<AdminSource> = answers;
    void this.instance.then(
      (source) => {
        current = source;
      },
      () => {},
    );
    this.source = new Proxy({} as AdminSource, {
      get: (_, name) => {
        const method: unknown = Reflect.get(current, name);
        return typeof method === 'function' ? method.bind(current) : () => this.refuse();
      },
    });
  }

  /** From now on, `source` answers. */
  hand(source: AdminSource): void {
    this.settle.resolve(source);
  }

  /** The start failed: there will be no instance. */
  close(error: Error): void {
    this.settle.reject(error);
  }

  private refuse(): never {
    throw new FailedError(`the instance is starting: ${this.reason}`);
  }

  private get reason(): string {
    return this.waitsFor ?? 'starts';
  }

  private status(): Status {
    const { config } = this;
    const { self, membership } = config.cluster;
    return {
      state: this.waitsFor === null ? 'starting' : 'waiting',
      state_reason: this.reason,
      version: version(),
      build: BUILD_ID,
      other_builds: [],
      cluster: config.cluster.id,
      member: self.name,
      id: self.id,
      pid: process.pid,
      uptime_s: Math.trunc((Date.now() - this.startedAt) / 1000),
      middleboxes: config.middleboxes.map(({ name, as }) => as ?? name),
      ports: [],
      transport: `${config.transport.kind}, port ${config.transport.port}`,
      conditions: [],
      membership: membership.kind === 'etcd' ? `etcd ${membership.endpoints.join(', ')}` : 'static',
      key: null,
      ...{ threads: 0, threads_ready: 0, peers: 0, peers_reachable: 0 },
      ...{ rx_packets: 0, tx_packets: 0, dropped_packets: 0, rx_missed_packets: 0, tx_unsent_packets: 0 },
    };
  }
}
