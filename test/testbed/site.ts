/**
 * One instance of constellationd in a node: its configuration written, the daemon run, the `constellation` client asked.
 */

import { writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import type { CounterRow, FlowRow, ObjectRow, PeerRow, Status, ThreadRow } from '../../daemon/admin/source.js';
import { ask } from './admin.js';
import { PROJECT } from './compile.js';
import type { Exit, Program } from './program.js';
import type { Output, Testbed } from './testbed.js';

/** Sections of the configuration (conf/) that differ from the testbed's own; merged setting by setting. */
export interface SiteOptions {
  readonly transport?: Readonly<Record<string, unknown>>;
  readonly replication?: Readonly<Record<string, unknown>>;
  readonly threads?: Readonly<Record<string, unknown>>;
  readonly packet_io?: Readonly<Record<string, unknown>>;
  /** Options of the NAT. */
  readonly nat?: Readonly<Record<string, unknown>>;
  readonly log?: Readonly<Record<string, unknown>>;
}

export interface Member {
  readonly name: string;
  readonly id: number;
  readonly address: string;
}

export interface SitePlace {
  readonly node: string;
  readonly self: string;
  readonly members: readonly Member[];
  /** `inside` and `outside`, as in the configuration. */
  readonly ports: Readonly<Record<'inside' | 'outside', Readonly<Record<string, unknown>>>>;
  readonly external: readonly string[];
  /** Of its one worker; a machine that has no such core has it on another. */
  readonly core: number;
}

export const DAEMON = join(PROJECT, 'dist', 'daemon', 'constellationd.js');
export const CLIENT = join(PROJECT, 'dist', 'daemon', 'constellation.js');
const POLL_MS = 50;

/** The configuration as data, in the order of conf/schema.ts. */
export function siteConfig(place: SitePlace, socket: string, options: SiteOptions): Record<string, unknown> {
  return {
    cluster: { id: 'testbed', self: place.self, members: place.members },
    transport: { kind: 'multicast', ...options.transport },
    ...(options.replication === undefined ? {} : { replication: options.replication }),
    threads: { workers: [place.core % availableParallelism()], ...options.threads },
    packet_io: { driver: 'af_xdp', ...options.packet_io },
    ports: place.ports,
    middleboxes: [{ nat: { inside: 'inside', outside: 'outside', external: place.external, ...options.nat } }],
    admin: { socket },
    ...(options.log === undefined ? {} : { log: options.log }),
  };
}

export class Site {
  readonly name: string;
  readonly node: string;
  readonly socket: string;
  readonly configFile: string;
  private readonly testbed: Testbed;
  private daemon: Program | null = null;
  private starts = 0;

  constructor(testbed: Testbed, place: SitePlace, options: SiteOptions = {}) {
    this.testbed = testbed;
    this.name = place.self;
    this.node = place.node;
    this.socket = join(testbed.folder, `${place.self}.sock`);
    this.configFile = join(testbed.folder, `${place.self}.yaml`);
    writeFileSync(this.configFile, stringify(siteConfig(place, this.socket, options)));
  }

  /** The daemon; throws before the first start. */
  get program(): Program {
    if (this.daemon === null) throw new Error(`site ${this.name} was not started`);
    return this.daemon;
  }

  /** Starts the daemon; returns when it answers and its threads are ready. */
  async start(): Promise<void> {
    const name = this.starts++ === 0 ? this.name : `${this.name}-${this.starts}`;
    const argv = [process.execPath, DAEMON, '-c', this.configFile];
    const program = this.testbed.start(this.node, name, argv);
    this.daemon = program;
    const deadline = performance.now() + 30_000;
    while (!(await this.isReady())) {
      if (!program.running) throw new Error(`site ${this.name} did not start:\n${program.tail()}`);
      if (performance.now() > deadline)
        throw new Error(`site ${this.name} is not ready after 30 s:\n${program.tail()}`);
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  /** Ends the daemon as an operator would; returns how it ended. */
  async stop(): Promise<Exit> {
    return this.program.stop('SIGTERM');
  }

  async status(): Promise<Status> {
    const [status] = await ask<Status>(this.socket, 'status');
    return status;
  }

  async peers(): Promise<PeerRow[]> {
    return ask(this.socket, 'show peers');
  }

  async objects(): Promise<ObjectRow[]> {
    return ask(this.socket, 'show objects');
  }

  async flows(filter = ''): Promise<FlowRow[]> {
    return ask(this.socket, `show flows ${filter}`);
  }

  async threads(): Promise<ThreadRow[]> {
    return ask(this.socket, 'show threads');
  }

  /** Totals by name. */
  async counters(): Promise<Record<string, number>> {
    const rows = await ask<CounterRow>(this.socket, 'show counters');
    return Object.fromEntries(rows.map((row) => [row.name, row.total]));
  }

  /** Runs the `constellation` client as a user would. */
  async client(...words: string[]): Promise<Output> {
    return this.testbed.run(this.node, [process.execPath, CLIENT, '-s', this.socket, ...words], true);
  }

  /** Whether it runs and every thread is ready. */
  async isReady(): Promise<boolean> {
    try {
      const status = await this.status();
      return status.phase === 'running' && status.threads_ready === status.threads;
    } catch {
      return false; // it does not listen yet
    }
  }
}

/** Asks again and again until the answer is not `null`; fails, saying for what it waited, when time is up. */
export async function eventually<T>(what: string, probe: () => Promise<T | null>, timeoutMs = 30_000): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const found = await probe();
    if (found !== null) return found;
    if (performance.now() > deadline) throw new Error(`waited ${timeoutMs} ms in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** Waits until nobody owes anybody a record and all hold the same; returns the digests they agree on. */
export async function converged(sites: readonly Site[], timeoutMs = 30_000): Promise<Record<string, string>> {
  let last = '';
  return eventually(
    'all sites to hold the same',
    async () => {
      const all = await Promise.all(sites.map((site) => site.objects()));
      const owing = all.flat().some((object) => object.unacknowledged_records > 0);
      const digests = all.map((objects) => Object.fromEntries(objects.map((object) => [object.name, object.digest])));
      last = JSON.stringify(all);
      return !owing && digests.every((d) => JSON.stringify(d) === JSON.stringify(digests[0])) ? digests[0] : null;
    },
    timeoutMs,
  ).catch((error: Error) => {
    throw new Error(`${error.message}: ${last}`);
  });
}
