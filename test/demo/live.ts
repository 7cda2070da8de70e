/**
 * The demo on real packets: namespaces, AF_XDP, and an emulated WAN. curl downloads from servers at
 * three distances, and other programs open new flows.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { findTool } from '../support/require.js';
import { FirstPackets } from '../testbed/first-packets/first-packets.js';
import type { Remedy } from '../testbed/first-packets/networks.js';
import { placeOfTwoSites, siteOptions, spreadClients } from '../testbed/first-packets/networks.js';
import { table } from '../testbed/first-packets/report.js';
import { startLoad, startServer } from '../testbed/http/fetch.js';
import { converged } from '../testbed/instance.js';
import { missing } from '../testbed/testbed.js';
import { clientOfA, serverAddress, TwoSites } from '../testbed/two-sites.js';
import { Downloads, type Origin, siteFigures } from './figures.js';
import { type DemoOptions, type Outcome, Unavailable } from './outcome.js';
import { originTable, siteTable, View } from './view.js';

const SERVERS = [
  { name: 'near', delay_ms: 5 },
  { name: 'middle', delay_ms: 25 },
  { name: 'far', delay_ms: 60 },
];
const BODY_BYTES = 50_000;
const GAP_MS = 50;
const DOWNLOADS_ONCE = 90;
const WAN_JITTER_MS = 2;
/** A reply that takes longer than this is lost. */
const REPLY_MS_MAX = 2000;

/**
 * Runs the demo to its end or until `interrupted`. Always removes everything that it created.
 * Throws `Unavailable` if the network or the sites cannot be set up on this machine.
 */
export async function runLive(options: DemoOptions, interrupted: AbortSignal): Promise<Outcome> {
  const lacking = missing();
  if (lacking.length > 0) throw new Unavailable(`Real packets need ${lacking.join(', and ')}.`);
  const { wan_ms, remedy } = options;
  const { nat, ...more } = siteOptions(remedy, 2 * wan_ms);
  const sites = await TwoSites.build({
    routing: 'asymmetric',
    wan: { delay_ms: wan_ms, jitter_ms: WAN_JITTER_MS },
    servers: SERVERS,
    nat: { flows: 65_536, ...nat }, // the bursts at the end open some 20,000
    ...more,
    log: { level: 'warn' },
  });
  try {
    await sites.start().catch((error: Error) => {
      throw new Unavailable(`Real packets did not work here: ${error.message}`);
    });
    return await run(sites, options, interrupted);
  } finally {
    await sites.down();
  }
}

async function run(sites: TwoSites, options: DemoOptions, interrupted: AbortSignal): Promise<Outcome> {
  const { testbed } = sites;
  await Promise.all(SERVERS.map((server) => startServer(testbed, server.name)));
  const origins = SERVERS.map(
    (server, i): Origin => ({
      name: server.name,
      url: `http://${serverAddress(i)}`,
      roundTripMs: 2 * server.delay_ms,
    }),
  );
  introduce(options);

  const downloads = new Downloads(origins);
  const load = {
    origins: origins.map((origin) => origin.url),
    sources: Array.from({ length: 50 }, (_, i) => clientOfA(i)),
    bytes: BODY_BYTES,
    concurrency: 64,
    gap_ms: GAP_MS,
    timeout_s: 20,
    ...(options.once ? { count: DOWNLOADS_ONCE } : {}),
  };
  const { program, done } = startLoad(testbed, 'client', load, (fetched) => downloads.all.push(fetched));
  interrupted.addEventListener('abort', () => program.endInput());
  if (interrupted.aborted) program.endInput();

  let over = false;
  const finished = done.finally(() => {
    over = true;
  });
  const view = new View(process.stdout);
  const start = performance.now();
  const draw = async (): Promise<void> => {
    const figures = await Promise.all(sites.sites.map(siteFigures));
    view.show({ seconds: (performance.now() - start) / 1000, sites: figures, origins: downloads.figures() });
  };
  while (!over) {
    await draw();
    await Promise.race([sleep(view.intervalMs), finished.catch(() => {})]);
  }
  await finished;
  view.leave();
  return conclude(sites, downloads, options);
}

const HAPPENS: Readonly<Record<Remedy, string>> = {
  early: 'A reply that reaches site b before the state did waits there for it.',
  held: 'The first packet of a flow waits at site a until site b has the state: a round trip between the sites.',
  off: 'A reply that reaches site b before the state did is dropped there, and TCP tries again after 1 s.',
};

function introduce({ wan_ms, remedy }: DemoOptions): void {
  const curl = findTool('curl') !== null;
  console.log(`
   client ──▶ site a ──▶ servers       requests leave through site a …
   client ◀── site b ◀── servers       … and replies return through site b
              a ⇄ b                    which learns of site a's bindings ${wan_ms} ms later, over an emulated WAN

Two constellationd on real packets (AF_XDP), in network namespaces. ${curl ? 'curl' : 'A small Node client'} downloads from three servers, near
and far, and every byte is checked.${curl ? '' : ' (curl is not installed.)'} ${HAPPENS[remedy]}
What that costs shows in the times to connect. Then other programs open new flows.
`);
}

/** Losses and delays of other programs, as a table. */
async function others(sites: TwoSites, { wan_ms, remedy }: DemoOptions): Promise<string[]> {
  const { testbed } = sites;
  await spreadClients(testbed);
  const servers = SERVERS.map(({ name, delay_ms }, i) => ({
    node: name,
    address: serverAddress(i),
    roundTripMs: 2 * delay_ms,
  }));
  const first = await FirstPackets.open(testbed, placeOfTwoSites(servers), false);
  const figures = await first.measure(wan_ms, { reply_ms_max: REPLY_MS_MAX });
  await first.close();
  return table(figures.map((each) => ({ wanMs: wan_ms, remedy, figures: each })));
}

async function conclude(sites: TwoSites, downloads: Downloads, options: DemoOptions): Promise<Outcome> {
  const { wan_ms } = options;
  const problems: string[] = [];
  const total = downloads.all.length;
  if (total === 0) problems.push('nothing was downloaded');
  if (downloads.right < total) {
    const first = downloads.all.find((fetched) => !fetched.ok);
    problems.push(`${total - downloads.right} of ${total} downloads failed, the first: ${first?.error}`);
  }
  const programs = await others(sites, options);
  let agreed = 'no';
  try {
    const digests = Object.values(await converged(sites.sites, 10_000));
    agreed = `yes, digest ${digests.join(', ')}`;
  } catch (error) {
    problems.push(`the sites do not hold the same in the end: ${(error as Error).message}`);
  }
  const [a, b] = await Promise.all(sites.sites.map(siteFigures));
  const figures = downloads.figures();
  const lost = figures.reduce((sum, origin) => sum + origin.lost, 0);
  const [near] = figures;
  const left = Math.max(0, wan_ms - near.origin.roundTripMs);
  const wan = await sites.testbed.relay.stats('wan', 'site-a', 'site-b');
  return {
    problems,
    lines: [
      ...siteTable([a, b]),
      '',
      ...originTable(figures),
      '',
      `${downloads.right} of ${total} downloads brought the right bytes: out through site a, back through site b.`,
      `${lost} first replies to them were lost.`,
      `The near server answers after ${near.origin.roundTripMs} ms, and the state crosses the WAN in ${wan_ms} ms: its replies came ${left} ms too early.`,
      `Connecting to it took ${near.connectMs.p50.toFixed(0)} ms (median).`,
      '',
      'Other programs, to all three servers, out through site a and back through site b:',
      ...programs,
      '',
      `Site a sent site b ${a.records} records (${a.coalesced} merged before sending) in ${wan.delivered} frames, ${wan_ms} ms away.`,
      `Both sites hold the same in the end: ${agreed}.`,
    ],
  };
}
