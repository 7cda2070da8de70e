/**
 * Sites that are killed again and again under load: one of three at a time, while downloads of 5 to
 * 60 s go on. Its routes move to the other sites a little later, it starts again, and its routes
 * come back.
 *
 * A download may fail if the only site that knew of it was killed: its next packet is bound anew by
 * another site, and the server resets it. It must never hang: neither end would know.
 */

import { copyFileSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { findTool } from '../support/require.js';
import { startLoad, startServer } from '../testbed/http/fetch.js';
import type { Fetched } from '../testbed/http/load.js';
import { converged } from '../testbed/instance.js';
import { clientsOf, ManySites, type SiteName } from '../testbed/many-sites.js';
import type { Program } from '../testbed/program.js';
import { SERVER, SERVICE_PORT } from '../testbed/two-sites.js';

export interface KillOptions {
  readonly cycles: number;
  /** No cycle begins later. */
  readonly minutes: number;
  readonly seed: number;
  /** Downloads under way at any time. */
  readonly downloads: number;
  /**
   * Whether the first packet of a flow waits until the other sites know of it: then no download may
   * fail.
   */
  readonly holds: boolean;
  /** Where captures and logs go if a download hangs. */
  readonly keep: string;
  readonly say: (text: string) => void;
}

export interface Failure {
  readonly fetched: Fetched;
  /** The kill after which it first could fail, and how long before that kill it began, in ms. */
  readonly cycle: number;
  readonly beganMsBefore: number;
}

export interface KillFigures {
  readonly cycles: number;
  readonly downloads: number;
  readonly hung: readonly Failure[];
  readonly broken: readonly Failure[];
}

const ALL: readonly SiteName[] = ['a', 'b', 'c'];
/** How long downloads last that nothing disturbs, in seconds. */
const LASTS_S = [5, 15, 30, 60];
/** Bytes a second of each. */
const RATE = 12_000;
/** A download that takes so much longer than it should has hung. */
const HANGS_S = 45;
/**
 * Clients take what comes into small buffers, so that a download is under way for as long as it
 * lasts.
 */
const RECEIVE_BUFFER = '4096 8192 16384';
/** Before routes move away from a site that was killed, at most, and before they come back. */
const DETECTED_MS_MAX = 1500;
const RETURN_MS_MAX = 1000;
const BETWEEN_MS_MAX = 1500;

export async function killCycles(options: KillOptions): Promise<KillFigures> {
  const sites = await ManySites.build({
    sites: ALL,
    wan: { delay_ms: 2 },
    ...(options.holds ? { nat: { hold_members: 2, hold_ms: 50 } } : {}),
  });
  const captures: Program[] = [];
  try {
    const { testbed } = sites;
    await testbed.run('client', ['sh', '-c', `echo '${RECEIVE_BUFFER}' > /proc/sys/net/ipv4/tcp_rmem`]);
    await startServer(testbed, 'server');
    await sites.start(...ALL);
    for (const node of ['client', 'server']) captures.push(...capture(sites, node));
    const soak = new KillSoak(sites, options);
    const figures = await soak.run();
    if (figures.hung.length > 0) await keep(sites, captures, figures, options);
    return figures;
  } finally {
    await sites.down();
  }
}

/** A ring of files with the last minutes of a node's packets. */
function capture({ testbed }: ManySites, node: string): Program[] {
  const tcpdump = findTool('tcpdump');
  if (tcpdump === null) return [];
  const file = join(testbed.folder, `${node}.pcap`);
  const argv = [tcpdump, '-i', 'any', '-n', '-s', '120', '-Z', 'root', '-C', '20', '-W', '8', '-w', file, 'tcp'];
  return [testbed.start(node, `tcpdump-${node}`, argv)];
}

async function keep(
  sites: ManySites,
  captures: readonly Program[],
  figures: KillFigures,
  { keep: folder, say }: KillOptions,
): Promise<void> {
  for (const program of captures) await program.stop('SIGTERM');
  mkdirSync(folder, { recursive: true });
  for (const name of readdirSync(sites.testbed.folder))
    if (/\.pcap\d*$|\.log$/.test(name)) copyFileSync(join(sites.testbed.folder, name), join(folder, name));
  writeFileSync(join(folder, 'figures.json'), JSON.stringify(figures, null, 1));
  say(`captures and logs are in ${folder}`);
}

class KillSoak {
  private readonly sites: ManySites;
  private readonly options: KillOptions;
  private readonly random: () => number;
  /** When each cycle's site was killed, ms of `performance.now()`. */
  private readonly kills: number[] = [];
  private readonly hung: Failure[] = [];
  private readonly broken: Failure[] = [];
  private downloads = 0;

  constructor(sites: ManySites, options: KillOptions) {
    this.sites = sites;
    this.options = options;
    this.random = drawer(options.seed);
  }

  async run(): Promise<KillFigures> {
    const { cycles, minutes, say } = this.options;
    const deadline = performance.now() + minutes * 60_000;
    const loads = LASTS_S.map((lasts) => this.load(lasts));
    await sleep(3000);
    let done = 0;
    while (done < cycles && performance.now() < deadline && this.hung.length === 0) {
      await this.cycle(ALL[Math.floor(this.random() * ALL.length)]);
      done++;
      if (done % 10 === 0)
        say(`${done} cycles, ${this.downloads} downloads, ${this.hung.length} hung, ${this.broken.length} broken`);
    }
    for (const { program } of loads) program.endInput();
    for (const load of loads) await load.done;
    if (this.hung.length === 0)
      await converged(
        ALL.map((name) => this.sites.site(name)),
        60_000,
      );
    return { cycles: done, downloads: this.downloads, hung: this.hung, broken: this.broken };
  }

  private load(lasts: number): { program: Program; done: Promise<void> } {
    const { testbed } = this.sites;
    const concurrency = Math.ceil(this.options.downloads / LASTS_S.length);
    const load = {
      origins: [`http://${SERVER}:${SERVICE_PORT}`],
      sources: ALL.flatMap((name) => clientsOf(name)),
      ...{ bytes: lasts * RATE, rate: RATE, concurrency, gap_ms: Math.ceil((1000 * lasts) / concurrency) },
      timeout_s: lasts + HANGS_S,
    };
    return startLoad(testbed, 'client', load, (fetched) => this.note(fetched));
  }

  private note(fetched: Fetched): void {
    this.downloads++;
    if (fetched.ok) return;
    const began = performance.now() - fetched.total_ms;
    const after = this.kills.findIndex((at) => at > began);
    const cycle = after === -1 ? this.kills.length - 1 : after;
    const failure = { fetched, cycle, beganMsBefore: Math.round((this.kills[cycle] ?? began) - began) };
    // curl: 28, it timed out.
    const isHung = /code 28/.test(fetched.error ?? '');
    (isHung ? this.hung : this.broken).push(failure);
    const { total_ms, error } = fetched;
    this.options.say(
      `${isHung ? 'HUNG' : 'broken'}: began ${failure.beganMsBefore} ms before kill ${cycle}, ended after ${total_ms} ms, ${fetched.bytes} bytes: ${error}`,
    );
  }

  private async cycle(name: SiteName): Promise<void> {
    const { sites } = this;
    const others = ALL.filter((other) => other !== name);
    await sleep(this.random() * BETWEEN_MS_MAX);
    const { program } = sites.site(name);
    this.kills.push(performance.now());
    program.kill('SIGKILL');
    await program.exited;
    const moved = sleep(this.random() * DETECTED_MS_MAX).then(() => sites.steer(others));
    await Promise.all([sites.start(name), moved]);
    await sleep(this.random() * RETURN_MS_MAX);
    await sites.steer(ALL);
  }
}

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
function drawer(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
