/**
 * The demo without privileges. Two constellationd read and write capture files and replicate to
 * each other by unicast over loopback. Each message is delayed by a random time whose mean is the
 * WAN's delay.
 *
 * Site a translates the requests. A server, simulated here, answers what site a sent out, and site
 * b gets the answers. Site b starts only then, so it starts without state, and the first answers
 * arrive before the state does.
 */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '../support/ports.js';
import { compiled } from '../testbed/compile.js';
import { siteOptions } from '../testbed/first-packets/networks.js';
import { converged, eventually, Instance } from '../testbed/instance.js';
import { Program } from '../testbed/program.js';
import { DAEMON, makeKeyFile, siteConfig, writeConfig } from '../testbed/site.js';
import { OWN_PREFIX, sweepFolders } from '../testbed/sweep.js';
import { MAC, readReceived, readTranslated, writeReplies, writeRequests } from './capture.js';
import { siteFigures } from './figures.js';
import type { DemoOptions, Outcome } from './outcome.js';
import { siteTable, View } from './view.js';

const FLOWS = 200;
const GAP_MS = 5;
/**
 * When a server sends an answer that is not acknowledged, in ms: TCP waits 1 s, and then twice as
 * long (RFC 6298 §2, §5.5).
 */
const TRIES_MS = [0, 1000, 3000];
const ANSWERS = FLOWS * TRIES_MS.length;
const MEMBERS = ['a', 'b'].map((name, i) => ({ name, id: i + 1, address: `127.0.0.${i + 1}` }));

export async function runFiles(options: DemoOptions, interrupted: AbortSignal): Promise<Outcome> {
  sweepFolders();
  const demo = new FilesDemo(options, interrupted, await freePort());
  try {
    let outcome = await demo.run();
    // Without --once, the demo repeats, each time with new instances.
    while (!options.once && !interrupted.aborted && outcome.problems.length === 0) {
      console.log(`\n${outcome.lines.join('\n')}\n`);
      await sleep(2000, undefined, { signal: interrupted }).catch(() => {});
      if (interrupted.aborted) break;
      await demo.clear();
      outcome = await demo.run();
    }
    return outcome;
  } finally {
    await demo.close();
  }
}

class FilesDemo {
  private readonly folder = mkdtempSync(join(tmpdir(), `${OWN_PREFIX}demo-`));
  private readonly options: DemoOptions;
  private readonly interrupted: AbortSignal;
  private readonly port: number;
  private readonly view = new View(process.stdout);
  private programs: Program[] = [];

  constructor(options: DemoOptions, interrupted: AbortSignal, port: number) {
    this.options = options;
    this.interrupted = interrupted;
    this.port = port;
  }

  async run(): Promise<Outcome> {
    console.log(`${FLOWS} clients ask for a connection through site a; the server answers through site b.\n`);
    const start = performance.now();
    writeRequests(this.path('requests.pcap'), FLOWS, GAP_MS);
    const a = await this.start('a', { inside: 'requests.pcap' });
    await this.watch(start, [a], async () => ((await a.counters())['nat_outbound'] ?? 0) >= FLOWS);
    // The file is complete when the site has looked for more and found none.
    const endpoints = await eventually('site a to write all requests', async () => {
      const translated = readTranslated(this.path('a-outside.pcap'));
      return translated.length === FLOWS ? translated : null;
    });
    writeReplies(this.path('replies.pcap'), endpoints, GAP_MS, TRIES_MS);
    const b = await this.start('b', { outside: 'replies.pcap' });
    await this.watch(start, [a, b], async () => ((await b.counters())['port1_rx_packets'] ?? 0) >= ANSWERS);
    this.view.leave();
    return this.conclude(a, b);
  }

  private async conclude(a: Instance, b: Instance): Promise<Outcome> {
    const problems: string[] = [];
    if (this.interrupted.aborted) return { problems, lines: ['Ended before it was done.'] };
    await converged([a, b], 10_000).catch((error: Error) => problems.push(error.message));
    const figures = await Promise.all([a, b].map(siteFigures));
    const early = figures[1].unsolicited;
    const received = await eventually('site b to write all replies', async () => {
      const so = readReceived(this.path('b-inside.pcap'), FLOWS);
      return so.wrong.length > 0 || sum(so.byFlow) + early === ANSWERS ? so : null;
    }).catch(() => readReceived(this.path('b-inside.pcap'), FLOWS));
    const answered = received.byFlow.filter((replies) => replies > 0).length;
    const held = received.byFlow.filter((replies) => replies < TRIES_MS.length).length;
    const heldTwice = received.byFlow.filter((replies) => replies < TRIES_MS.length - 1).length;
    if (received.wrong.length > 0) problems.push(`site b let in a packet that is not right: ${received.wrong[0]}`);
    if (answered < FLOWS) problems.push(`${FLOWS - answered} of ${FLOWS} clients got no answer`);
    if (sum(received.byFlow) + early !== ANSWERS)
      problems.push(`of ${ANSWERS} answers ${sum(received.byFlow)} were let in and ${early} dropped`);
    return {
      problems,
      lines: [
        ...siteTable(figures),
        '',
        `${answered} of ${FLOWS} clients got their answer, each packet of it checked: translated by site a, translated back by site b.`,
        `${figures[1].waited} of the ${ANSWERS} came to site b before the state did, which had just been started, and waited there. ${held} first answers`,
        `were dropped; TCP tries again after 1 s (${held - heldTwice} of them came through then), and after 2 s more (${heldTwice}).`,
        `Site a sent site b ${figures[0].records} records, ${this.options.wan_ms} ms late on average; in the end both hold the same.`,
      ],
    };
  }

  private async start(name: 'a' | 'b', reads: { inside?: string; outside?: string }): Promise<Instance> {
    const port = (side: 'inside' | 'outside', mac: string, nextHop: string): Record<string, unknown> => {
      const file = reads[side];
      return {
        ...(file === undefined ? {} : { in: this.path(file) }),
        out: this.path(`${name}-${side}.pcap`),
        mac,
        next_hop: nextHop,
      };
    };
    const ports = {
      inside: port('inside', MAC.inside, MAC.client),
      outside: port('outside', MAC.outside, MAC.router),
    };
    const place = {
      self: name,
      members: MEMBERS,
      ports,
      external: ['203.0.113.1'],
      keyFile: makeKeyFile(this.folder),
      core: name === 'a' ? 0 : 1,
    };
    const instance = new Instance(name, this.path(`${name}.sock`));
    const { nat, ...more } = siteOptions(this.options.remedy, 2 * this.options.wan_ms);
    const config = siteConfig(place, instance.socket, {
      transport: { kind: 'unicast', port: this.port, fault: { delay: 1, delay_ms_max: 2 * this.options.wan_ms } },
      packet_io: { driver: 'pcap', pace: 'recorded' },
      ...more,
      nat: { flows: 4096, ...nat },
      log: { level: 'warn' },
    });
    writeConfig(this.path(`${name}.yaml`), config);
    const daemon = [process.execPath, DAEMON, '-c', this.path(`${name}.yaml`)];
    const argv = [compiled('helper'), 'run', String(process.pid), ...daemon];
    const program = new Program(name, argv, this.path(`${name}.log`));
    this.programs.push(program);
    await instance.attach(program);
    return instance;
  }

  /** Shows the sites until they are `done` or the user interrupts. */
  private async watch(start: number, sites: readonly Instance[], done: () => Promise<boolean>): Promise<void> {
    const deadline = performance.now() + 30_000;
    for (;;) {
      const finished = await done();
      const figures = await Promise.all(sites.map(siteFigures));
      this.view.show({ seconds: (performance.now() - start) / 1000, sites: figures, origins: [] });
      if (finished || this.interrupted.aborted) return;
      if (performance.now() > deadline)
        throw new Error(`site ${sites[sites.length - 1].name} did not read all of its file`);
      await sleep(100);
    }
  }

  /** Stops both sites and removes their files, so that the demo can repeat. */
  async clear(): Promise<void> {
    await Promise.all(this.programs.map((program) => program.stop()));
    this.programs = [];
  }

  async close(): Promise<void> {
    for (const program of this.programs) program.kill('SIGKILL');
    await Promise.all(this.programs.map((program) => program.exited));
    rmSync(this.folder, { recursive: true, force: true });
  }

  private path(name: string): string {
    return join(this.folder, name);
  }
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
