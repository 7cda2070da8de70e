/**
 * Keeps the workers' table of next hops equal to the kernel's neighbour tables, of IPv4 and, where
 * it is forwarded, IPv6.
 *
 * The tables are looked at every quarter of a second, and every few milliseconds while an answer is
 * awaited. Next hops from the configuration are always wanted: they are provoked until they are
 * known, and then now and then, so that the kernel notices when they are gone. Others are wanted
 * when a worker met a packet for them.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import type { Neighbour, NextHopWriter, RawAddress } from '../shm/next-hops.js';
import { formatMac } from '../workers/packet/ethernet.js';
import { isLinkLocal } from '../workers/packet/ipv6.js';
import type { RoutePort } from '../workers/route.js';
import { formatAddress, type KernelNeighbours } from './kernel-neighbours.js';

const LOOK_MS = 250;
/** While an answer is awaited. */
const LOOK_SOON_MS = 10;
/** Between two looks at least, however often workers ring. */
const BREATH_MS = 2;
/** How long an answer is awaited: the kernel asks three times, a second apart. */
const AWAIT_MS = 3000;
/** A neighbour is provoked no more often than this, however many packets want it. */
const PROVOKE_MS = 1000;
/** A configured next hop that is known is provoked as often as this. */
const REASSURE_MS = 10_000;
/** Known neighbours provoked at one look at most. */
const REASSURED_MAX = 64;
/** Addresses awaited at once: a scan across a link shall not become a flood of requests. */
const AWAITED_MAX = 256;

export interface NextHop {
  readonly port: number;
  readonly address: RawAddress;
}

/** Those that the configuration gives by address; of IPv6 only where it is forwarded. */
export function nextHopsOf(routes: readonly RoutePort[], ipv6: boolean): NextHop[] {
  return routes.flatMap(({ nextHop, nextHop6 }, port) => [
    ...(typeof nextHop === 'number' ? [{ port, address: nextHop }] : []),
    ...(ipv6 && nextHop6 instanceof Int32Array ? [{ port, address: nextHop6 }] : []),
  ]);
}

export interface NeighbourWatcherOptions {
  readonly writer: NextHopWriter;
  /** Network interface of each port, in the order of the ports. */
  readonly interfaces: readonly string[];
  /** Next hops from the configuration. */
  readonly nextHops: readonly NextHop[];
  /** Whether IPv6 is forwarded at all: else its neighbours are no concern of ours. */
  readonly ipv6: boolean;
  readonly kernel: KernelNeighbours;
  readonly log: (level: 'info' | 'warn', text: string) => void;
}

interface Awaited extends NextHop {
  readonly configured: boolean;
  /** Milliseconds (`performance.now`): when it was asked for first, and last. */
  readonly since: number;
  provoked: number;
  /** Its link-layer address, once known; for the log. */
  mac: string | null;
}

export class NeighbourWatcher {
  private readonly options: NeighbourWatcherOptions;
  private readonly awaited = new Map<string, Awaited>();
  private readonly interfacePort = new Map<string, number>();
  private closed = false;
  private refusedBefore = 0;
  private reassuredAt = Number.NEGATIVE_INFINITY;
  private reassureNext = -1;

  constructor(options: NeighbourWatcherOptions) {
    this.options = options;
    for (const [port, name] of options.interfaces.entries()) this.interfacePort.set(name, port);
    for (const nextHop of options.nextHops) this.expect(nextHop, true);
  }

  /**
   * Begins to watch, and waits until all configured next hops are known, or for `timeoutMs`.
   * Returns those that are not; they are named in the log with what to look at.
   */
  async start(timeoutMs = AWAIT_MS): Promise<NextHop[]> {
    const until = performance.now() + timeoutMs;
    this.look();
    while (this.missing().length > 0 && performance.now() < until && !this.closed) {
      await sleep(LOOK_SOON_MS);
      if (!this.closed) this.look();
    }
    const missing = this.missing();
    for (const nextHop of missing) {
      this.options.log(
        'warn',
        `next hop ${this.name(nextHop)} does not answer: packets for it are dropped until it does. ` +
          'Has the interface an address in its subnet, and is the neighbour up?',
      );
    }
    if (!this.closed) void this.watch();
    return missing;
  }

  /** Ends watching; the table stays as it is. */
  close(): void {
    if (this.closed) return;
    this.closed = true; // the loop sees it when it wakes, and touches nothing any more
    this.options.kernel.close();
  }

  private async watch(): Promise<void> {
    const { writer } = this.options;
    for (;;) {
      const bell = writer.bell;
      for (const nextHop of writer.takeWanted()) this.expect(nextHop, false);
      this.look();
      if (this.isAwaiting()) await sleep(LOOK_SOON_MS, undefined, { ref: false });
      else {
        await writer.waitBell(bell, LOOK_MS);
        await sleep(BREATH_MS, undefined, { ref: false });
      }
      if (this.closed) return;
    }
  }

  private expect({ port, address }: NextHop, configured: boolean): void {
    const key = keyOf({ port, address });
    if (this.awaited.has(key) || this.awaited.size >= AWAITED_MAX || port >= this.options.interfaces.length) return;
    const since = performance.now();
    this.awaited.set(key, { port, address, configured, since, provoked: Number.NEGATIVE_INFINITY, mac: null });
  }

  /** One look at the kernel's table: passes it on, and provokes what is missing in it. */
  private look(): void {
    const now = performance.now();
    const known = this.known();
    const refused = this.options.writer.replace(known);
    if (refused !== this.refusedBefore && refused > 0)
      this.options.log('warn', `${refused} neighbours more than the table of next hops holds`);
    this.refusedBefore = refused;

    const macs = new Map(known.map((neighbour) => [keyOf(neighbour), formatMac(neighbour.mac)]));
    for (const [key, awaited] of this.awaited) {
      const mac = macs.get(key) ?? null;
      if (awaited.configured) this.notice(awaited, mac);
      else if (now - awaited.since > AWAIT_MS || (mac !== null && now - awaited.since > PROVOKE_MS)) {
        this.awaited.delete(key); // until a worker wants it again
        continue;
      }
      if (now - awaited.provoked < (mac === null ? PROVOKE_MS : REASSURE_MS)) continue;
      if (mac !== null && !awaited.configured) continue;
      awaited.provoked = now;
      this.provoke(awaited);
    }
    this.reassure(known, now);
  }

  /**
   * Neighbours on links without a next hop: the kernel sends them nothing, so it would not notice
   * that one has another link-layer address now. A few are provoked at every look, all of them in
   * turn.
   */
  private reassure(known: readonly Neighbour[], now: number): void {
    if (now - this.reassuredAt < LOOK_MS) return;
    this.reassuredAt = now;
    const onLink = known.filter(
      ({ port, address }) =>
        !this.options.nextHops.some((hop) => hop.port === port && typeof hop.address === typeof address),
    );
    if (onLink.length === 0) return;
    const perLook = Math.min(onLink.length, REASSURED_MAX, Math.ceil((onLink.length * LOOK_MS) / REASSURE_MS));
    for (let i = 0; i < perLook; i++) {
      this.reassureNext = (this.reassureNext + 1) % onLink.length;
      this.provoke(onLink[this.reassureNext]);
    }
  }

  private provoke({ port, address }: NextHop): void {
    this.options.kernel.provoke(address, this.options.interfaces[port]);
  }

  /**
   * The kernel's neighbours on our interfaces; configured next hops first, as there may be more
   * than fit. Packets to link-local addresses are not forwarded, so these are wanted as next hops
   * alone.
   */
  private known(): Neighbour[] {
    const first: Neighbour[] = [];
    const others: Neighbour[] = [];
    const { kernel, interfaces, ipv6 } = this.options;
    for (const { interface: name, address, mac } of kernel.read(interfaces)) {
      const port = this.interfacePort.get(name);
      if (port === undefined) continue;
      const configured = this.awaited.get(keyOf({ port, address }))?.configured ?? false;
      if (typeof address !== 'number' && !configured && (!ipv6 || isLinkLocal(address))) continue;
      (configured ? first : others).push({ port, address, mac });
    }
    return [...first, ...others];
  }

  private notice(awaited: Awaited, mac: string | null): void {
    if (mac === awaited.mac) return;
    if (mac === null) this.options.log('warn', `next hop ${this.name(awaited)} is gone: packets for it are dropped`);
    else this.options.log('info', `next hop ${this.name(awaited)} is at ${mac}`);
    awaited.mac = mac;
  }

  private missing(): NextHop[] {
    const missing = [...this.awaited.values()].filter(({ configured, mac }) => configured && mac === null);
    return missing.map(({ port, address }) => ({ port, address }));
  }

  /** Whether an answer may come any moment. */
  private isAwaiting(): boolean {
    const now = performance.now();
    for (const { provoked, mac } of this.awaited.values())
      if (mac === null && now - provoked < PROVOKE_MS / 2) return true;
    return false;
  }

  private name({ port, address }: NextHop): string {
    return `${formatAddress(address)} on ${this.options.interfaces[port]}`;
  }
}

/** Of a neighbour in maps. */
function keyOf({ port, address }: NextHop): string {
  return `${port} ${address}`;
}
