/**
 * Two sites that choose external ports at the same time: real objects, a simulated clock, and
 * records with a fixed delay. Endpoints start as a Poisson process. Some of them have two remotes
 * at once.
 */

import { NONE } from '../../shm/none.js';
import { type Allocation, natBinding, portAndProtocol } from '../../shm/objects/nat/nat-binding.js';
import { Replica, type TestRecord } from '../shm/objects/replica.js';

const NOW = 70_000_000;
const FIRST_PORT = 1024;
const LAST_PORT = 65_535;
const HOSTS = 1000;
const FIRST_HOST = 0x0a000000;
const FIRST_EXTERNAL = 0x010200c0;
const LIFETIME_S = 300;
/** Fraction of endpoints that send to two remotes at once. */
const TWO_REMOTES = 0.1;

/** New endpoints per second at each site. */
export const RATE = 2000;
export const ROUTINGS = ['per flow', 'per client'] as const;
export const SECONDS = 4;

export interface PortsCase {
  readonly allocation: Allocation;
  readonly protocol: number;
  readonly routing: (typeof ROUTINGS)[number];
  readonly delayMs: number;
  readonly addresses: number;
}

export interface PortsOutcome {
  readonly collisionsPerS: number;
  readonly splits: number;
  /** Endpoints with two remotes. */
  readonly several: number;
}

/**
 * The expected rate of collisions if two sites choose ports independently of each other, by the
 * same rule or at random.
 */
export function expectedCollisions({ delayMs, addresses }: PortsCase): number {
  return (2 * RATE ** 2 * (delayMs / 1000)) / ((LAST_PORT - FIRST_PORT + 1) * addresses);
}

export function choosePorts({ allocation, protocol, routing, delayMs, addresses }: PortsCase): PortsOutcome {
  const definition = natBinding({
    addresses: Array.from({ length: addresses }, (_, i) => FIRST_EXTERNAL + (i << 24)),
    flows: 1 << 15,
    halfOpen: 1 << 15,
    halfOpenRecords: 1 << 20,
    portRange: { first: FIRST_PORT, last: LAST_PORT },
    allocation,
    pooling: 'paired',
  });
  const sites = [0, 1].map((member) => new Replica(definition, member, 2));
  /** Per receiving site: the records that it has not received, and when they arrive. */
  const queues: { readonly at: number; readonly record: TestRecord }[][] = [[], []];
  const heads = [0, 0];
  let drawn = 1;
  const random = (): number => {
    drawn = (Math.imul(drawn, 1664525) + 1013904223) | 0;
    return (drawn >>> 0) / 2 ** 32;
  };

  function deliver(until: number): void {
    for (const [to, queue] of queues.entries())
      for (; heads[to] < queue.length && queue[heads[to]].at <= until; heads[to]++)
        sites[to].apply(queue[heads[to]].record, NOW + Math.trunc(queue[heads[to]].at));
  }

  function send(site: number, address: number, key: number, at: number): void {
    const { object } = sites[site];
    const now = NOW + Math.trunc(at);
    const hash = object.hash(address, key);
    if (object.findOutbound(hash, address, key, now) !== NONE) return;
    if (object.add(hash, address, key, now, now + LIFETIME_S) === NONE) throw new Error('no port was free');
    for (const record of sites[site].drain()) queues[1 - site].push({ at: at + delayMs / 1000, record });
  }

  let several = 0;
  const pause = (): number => -Math.log(1 - random()) / (2 * RATE);
  for (let at = 0; at < SECONDS; at += pause()) {
    deliver(at);
    const host = Math.trunc(random() * HOSTS);
    const key = portAndProtocol(1024 + Math.trunc(random() * 64_512), protocol);
    const siteOf = (): number => (routing === 'per client' ? host & 1 : Math.trunc(random() * 2));
    send(siteOf(), FIRST_HOST + host, key, at);
    if (random() >= TWO_REMOTES) continue;
    several++;
    send(siteOf(), FIRST_HOST + host, key, at);
  }
  deliver(Number.POSITIVE_INFINITY);
  const [{ object }] = sites;
  return { collisionsPerS: object.collisions / SECONDS, splits: object.splits, several };
}
