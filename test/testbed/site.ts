/**
 * One instance of constellationd in a node. Writes its configuration and runs the daemon and the
 * `constellation` client.
 */

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { generateKey } from '../../daemon/config/key-file.js';
import { PROJECT } from './compile.js';
import { Instance } from './instance.js';
import type { Exit, Program } from './program.js';
import type { Output, Testbed } from './testbed.js';

/**
 * Configuration sections (conf/) that differ from the testbed's own. They are merged setting by
 * setting.
 */
export interface SiteOptions {
  /** `{ insecure: true }` runs without the testbed's key. */
  readonly cluster?: Readonly<Record<string, unknown>>;
  readonly transport?: Readonly<Record<string, unknown>>;
  readonly replication?: Readonly<Record<string, unknown>>;
  readonly threads?: Readonly<Record<string, unknown>>;
  readonly early_replies?: Readonly<Record<string, unknown>>;
  readonly packet_io?: Readonly<Record<string, unknown>>;
  /** Middleboxes that packets pass before the NAT. */
  readonly middleboxes?: readonly Readonly<Record<string, unknown>>[];
  /** Middleboxes that packets pass after the NAT. */
  readonly behind?: readonly Readonly<Record<string, unknown>>[];
  /** Options of the NAT. */
  readonly nat?: Readonly<Record<string, unknown>>;
  readonly log?: Readonly<Record<string, unknown>>;
  /** Whether the site saves its state to a file when it stops. */
  readonly savesState?: boolean;
  /** If given, the members find each other through etcd at this endpoint instead of a list. */
  readonly etcd?: { readonly endpoint: string; readonly lease_ttl_s: number };
  /** The daemon's command line without the configuration; absent: that of this tree. */
  readonly daemon?: readonly string[];
}

export interface Member {
  readonly name: string;
  readonly id: number;
  readonly address: string;
}

export interface SitePlace {
  readonly self: string;
  readonly members: readonly Member[];
  /** `inside` and `outside`, as in the configuration. */
  readonly ports: Readonly<Record<'inside' | 'outside', Readonly<Record<string, unknown>>>>;
  readonly external: readonly string[];
  /** The cluster's key file; see `makeKeyFile`. */
  readonly keyFile: string;
  /** The core of its one worker, modulo the number of cores of the machine. */
  readonly core: number;
}

export const DAEMON = join(PROJECT, 'dist', 'daemon', 'constellationd.js');
export const CLIENT = join(PROJECT, 'dist', 'daemon', 'constellation.js');

/** The configuration as data, in the order of conf/schema.ts. */
export function siteConfig(place: SitePlace, socket: string, options: SiteOptions): Record<string, unknown> {
  return {
    cluster: {
      id: 'testbed',
      self: place.self,
      ...listOf(place, options),
      ...(options.cluster?.['insecure'] === true ? {} : { key_file: place.keyFile }),
      ...options.cluster,
    },
    transport: { kind: 'multicast', ...options.transport },
    // A test that starts one site alone should not wait long for the other.
    replication: { join_wait_ms: 500, ...options.replication },
    threads: { workers: [place.core % availableParallelism()], ...options.threads },
    ...(options.early_replies === undefined ? {} : { early_replies: options.early_replies }),
    packet_io: { driver: 'af_xdp', ...options.packet_io },
    ports: place.ports,
    middleboxes: [
      ...(options.middleboxes ?? []),
      { nat: { inside: 'inside', outside: 'outside', external: place.external, ...options.nat } },
      ...(options.behind ?? []),
    ],
    admin: { socket },
    ...(options.savesState === true ? { state: { file: `./${place.self}.state` } } : {}),
    ...(options.log === undefined ? {} : { log: options.log }),
  };
}

/** The configuration by which a site finds the other members. */
function listOf({ self, members }: SitePlace, { etcd }: SiteOptions): Record<string, unknown> {
  if (etcd === undefined) return { members };
  const { endpoint, lease_ttl_s } = etcd;
  const address = members.find(({ name }) => name === self)?.address;
  return { address, membership: { kind: 'etcd', endpoints: [endpoint], lease_ttl_s } };
}

/** The key file of the clusters in `folder`. It is made at the first call. */
export function makeKeyFile(folder: string): string {
  const file = join(folder, 'cluster.key');
  if (!existsSync(file)) generateKey(file);
  return file;
}

/** Writes a configuration file. */
export function writeConfig(file: string, config: Record<string, unknown>): void {
  writeFileSync(file, stringify(config));
}

/**
 * Starts an instance, with these sections, that is the only member of its cluster. Returns when it
 * is ready.
 */
export async function startAlone(
  testbed: Testbed,
  node: string,
  sections: Readonly<Record<string, unknown>>,
): Promise<Instance> {
  const at = (ending: string): string => join(testbed.folder, `${node}.${ending}`);
  const instance = new Instance(node, at('sock'));
  writeConfig(at('yaml'), {
    cluster: { id: 'testbed', self: 'a', members: [{ name: 'a', id: 1, address: '127.0.0.1' }] },
    replication: { join_wait_ms: 200 },
    admin: { socket: instance.socket },
    ...sections,
  });
  await instance.attach(testbed.start(node, node, [process.execPath, DAEMON, '-c', at('yaml')]));
  return instance;
}

export class Site extends Instance {
  readonly node: string;
  readonly configFile: string;
  private readonly testbed: Testbed;
  private command: readonly string[];
  private starts = 0;

  constructor(testbed: Testbed, node: string, place: Omit<SitePlace, 'keyFile'>, options: SiteOptions = {}) {
    super(place.self, join(testbed.folder, `${place.self}.sock`));
    this.testbed = testbed;
    this.node = node;
    this.command = options.daemon ?? [process.execPath, DAEMON];
    this.configFile = join(testbed.folder, `${place.self}.yaml`);
    writeConfig(this.configFile, siteConfig({ ...place, keyFile: makeKeyFile(testbed.folder) }, this.socket, options));
  }

  /** Starts the daemon; returns when it is ready. */
  async start(): Promise<void> {
    await this.attach(this.launch());
  }

  /** Starts the daemon without waiting. `stop` does not apply to this program. */
  launch(): Program {
    const name = this.starts++ === 0 ? this.name : `${this.name}-${this.starts}`;
    return this.testbed.start(this.node, name, [...this.command, '-c', this.configFile]);
  }

  /** Runs the build in this folder from the next start on (test/support/builds.ts). */
  install(folder: string): void {
    this.command = [process.execPath, join(folder, 'dist', 'daemon', 'constellationd.js')];
  }

  /** Changes the configuration file, as an operator would. */
  edit(change: (text: string) => string): void {
    const before = readFileSync(this.configFile, 'utf8');
    const after = change(before);
    if (after === before) throw new Error(`nothing of ${this.configFile} was changed`);
    writeFileSync(this.configFile, after);
  }

  /** Stops the daemon as an operator would. Returns how it ended. */
  async stop(): Promise<Exit> {
    return this.program.stop('SIGTERM');
  }

  /** Runs the `constellation` client as a user would. */
  async client(...words: string[]): Promise<Output> {
    return this.testbed.run(this.node, [process.execPath, CLIENT, '-s', this.socket, ...words], true);
  }

  /** Gives a command that has to succeed. Returns its output. */
  async clientOutput(...words: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.client(...words);
    if (code !== 0) throw new Error(`${this.name}: ${words.join(' ')} ended with ${code}: ${stderr}`);
    return stdout;
  }
}
