/**
 * The networks on which first packets are measured: two sites, asymmetric routes, and servers at
 * several distances.
 */

import { Firewalls } from '../firewalls.js';
import { eventually, type Instance } from '../instance.js';
import type { SiteOptions } from '../site.js';
import type { Testbed } from '../testbed.js';
import { backRoute, clientOfA, serverAddress, TwoSites } from '../two-sites.js';
import type { FirstPacketsPlace, FirstServer } from './first-packets.js';

/**
 * Remedies for a reply that is faster than the state it needs: none, so it is dropped (`off`); the
 * reply waits (`early`, the default); or the request waits (`held`, by `hold_members`).
 */
export const REMEDIES = ['off', 'early', 'held'] as const;

export type Remedy = (typeof REMEDIES)[number];

/** Longest wait of `hold_members` above a round trip between the sites, ms. */
const HOLD_MARGIN_MS = 100;
/** Fraction of the round trip that a site's smoothed round trip must have reached. */
const MEASURED = 0.9;
/** Longest round trip used in measurements, ms. */
const ROUND_TRIP_MS_MAX = 240;

/** Options of both sites. `roundTripMs`: the round trip between them. */
export function siteOptions(remedy: Remedy, roundTripMs: number): SiteOptions {
  if (remedy === 'early') return {};
  const hold = { hold_members: 1, hold_ms: Math.ceil(roundTripMs) + HOLD_MARGIN_MS };
  return { early_replies: { wait: 'never' }, ...(remedy === 'held' ? { nat: hold } : {}) };
}

export interface Setup {
  readonly middlebox: 'nat' | 'firewall';
  /** Data plane workers of each site. */
  readonly workers: number;
  /** Round trips of the servers. */
  readonly roundTripsMs: readonly number[];
  readonly remedy: Remedy;
}

export interface Network {
  readonly testbed: Testbed;
  /** Requests leave by the first site, replies return by the second. */
  readonly sites: readonly [Instance, Instance];
  readonly place: FirstPacketsPlace;
  down(): Promise<void>;
}

/** Sets the delay between the sites. With the remedy `early`, waits until they have measured it. */
export async function setWanDelay({ testbed, sites }: Network, { remedy }: Setup, wanMs: number): Promise<void> {
  await testbed.relay.setAll('wan', ['site-a', 'site-b'], { delay_ms: wanMs });
  if (remedy !== 'early') return;
  for (const site of sites)
    await eventually('the delay to be measured', async () =>
      (await site.peers()).every(({ rtt_ms }) => rtt_ms !== null && rtt_ms > 2 * wanMs * MEASURED) ? true : null,
    );
}

const nodeOf = (roundTripMs: number): string => `s${roundTripMs}`;

/** Builds the network, and starts both sites. */
export async function openNetwork(setup: Setup): Promise<Network> {
  const network = setup.middlebox === 'nat' ? await nat(setup) : await firewall(setup);
  try {
    await network.start();
    return network;
  } catch (error) {
    await network.down();
    throw error;
  }
}

interface Unstarted extends Network {
  start(): Promise<void>;
}

function common({ roundTripsMs, workers }: Setup) {
  const servers = roundTripsMs.map((ms) => ({ name: nodeOf(ms), delay_ms: ms / 2 }));
  return { servers, wan: { delay_ms: 0 }, ...(workers === 1 ? {} : { workers }) };
}

function serversOf({ roundTripsMs }: Setup): FirstServer[] {
  return roundTripsMs.map((roundTripMs, i) => ({ node: nodeOf(roundTripMs), address: serverAddress(i), roundTripMs }));
}

const sources = (first: number): string[] => Array.from({ length: 63 }, (_, n) => clientOfA(first + n));

async function nat(setup: Setup): Promise<Unstarted> {
  const options = siteOptions(setup.remedy, ROUND_TRIP_MS_MAX);
  const sites = await TwoSites.build({ ...common(setup), ...options, routing: 'asymmetric', log: { level: 'warn' } });
  const { testbed } = sites;
  await spreadClients(testbed);
  return {
    testbed,
    sites: sites.sites,
    place: placeOfTwoSites(serversOf(setup)),
    start: () => sites.start(),
    down: () => sites.down(),
  };
}

/**
 * In the network of two-sites.ts with asymmetric routes, lets half of the clients of site a send by
 * both sites, by flow.
 */
export async function spreadClients(testbed: Testbed): Promise<void> {
  const routes = 'nexthop via 10.0.1.1 nexthop via 10.0.2.1';
  await testbed.configure('client', `route add default table 200 ${routes}`, 'rule add from 10.1.0.64/26 lookup 200');
}

export function placeOfTwoSites(servers: readonly FirstServer[]): FirstPacketsPlace {
  return {
    client: 'client',
    servers,
    router: 'internet',
    replyRoutes: { a: backRoute('by-a'), b: backRoute('asymmetric') },
    sources: sources(0),
    spread: sources(63),
    hops: [2, 3],
  };
}

async function firewall(setup: Setup): Promise<Unstarted> {
  const held = setup.remedy === 'held' ? `hold 1 within ${ROUND_TRIP_MS_MAX + HOLD_MARGIN_MS} ms ` : '';
  const rules = `zone lan = { port left, 10.1.0.0/16 }\npolicy drop\nfrom lan ${held}accept\n`;
  const { workers } = setup;
  const { nat: _held, ...more } = siteOptions(setup.remedy, ROUND_TRIP_MS_MAX);
  const firewalls = await Firewalls.build({ ...common(setup), mode: 'wire', workers, rules, ...more });
  return {
    testbed: firewalls.testbed,
    sites: [firewalls.a, firewalls.b],
    place: {
      client: 'client',
      servers: serversOf(setup),
      router: 'server',
      replyRoutes: { a: '10.1.0.0/16 via 10.0.1.1', b: '10.1.0.0/16 via 10.0.2.1' },
      sources: sources(0),
      hops: [1, 2],
    },
    start: () => firewalls.start(),
    down: () => firewalls.down(),
  };
}
