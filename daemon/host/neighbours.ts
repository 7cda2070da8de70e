/**
 * Keeps the workers' next-hop table equal to the kernel's neighbour tables, for IPv4 and, if it is
 * forwarded, IPv6.
 *
 * The watcher reads the tables every 250 ms, and every 10 ms while it waits for an answer. Next
 * hops of the configuration are always wanted. The watcher provokes the kernel to resolve them
 * until they are known, and at intervals after that, so that the kernel notices when they are gone.
 * Other addresses are wanted after a worker met a packet for them.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import type { Neighbour, NextHopWriter, RawAddress } from '../../shm/next-hops.js';
import { formatMac } from '../../workers/packet/ethernet.js';
import { isLinkLocal } from '../../workers/packet/ipv6.js';
import type { RoutePort } from '../../workers/plane/route.js';
import { formatAddress, type KernelNeighbours } from './kernel-neighbours.js';

const LOOK_MS = 250;
/** Interval of reads while an answer is expected. */
const LOOK_SOON_MS = 10;
/** Minimum time between two reads, however often workers ring the doorbell. */
const BREATH_MS = 2;
/** How long an answer is expected: the kernel asks three times, a second apart. */
const AWAIT_MS = 3000;
/** Minimum interval between two provocations of one address, however many packets want it. */
const PROVOKE_MS = 1000;
/** Interval between provocations of a configured next hop that is known. */
const REASSURE_MS = 10_000;
/** Maximum number of known neighbours provoked per read. */
const REASSURED_MAX = 64;
/**
 * Maximum number of awaited addresses, so that a scan across a link does not become a flood of
 * requests.
 */
const AWAITED_MAX = 256;

export interface NextHop {
  readonly port: number;
  readonly address: RawAddress;
}

/** The next hops that the configuration gives by address. IPv6 ones only if IPv6 is forwarded. */
export function nextHopsOf(routes: readonly RoutePort[], ipv6: boolean): NextHop[] {
  return routes.flatMap(({ nextHop, nextHop6 }, port) => [
    ...(typeof nextHop === 'number' ? [{ port, address: nextHop }] : []),
    ...(ipv6 && nextHop6 instanceof Int32Array ? [{ port, address: nextHop6 }] : []),
  ]);
}

interface NeighbourWatcherOptions {
  readonly writer: NextHopWriter;
  /** Network interface of each port, in port order. */
  readonly interfaces: readonly string[];
  /** Next hops of the configuration. */
  readonly nextHops: readonly NextHop[];
  /** Whether IPv6 is forwarded. Otherwise its neighbours are ignored. */
  readonly ipv6: boolean;
  readonly kernel: KernelNeighbours;
  readonly log: (level: 'info' | 'warn', text: string) => void;
}

interface Awaited extends NextHop {
  readonly configured: boolean;
  /** When it was first wanted (`performance.now`, milliseconds). */
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
   * Starts to watch. Waits until all configured next hops are known, or for `timeoutMs`. Returns
   * those that are not known, and logs what to check.
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

  /** Stops watching. The table stays as it is. */
  close(): void {
    if (this.closed) return;
    this.closed = true; // the loop checks this when it wakes, and then only returns
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

  /** Reads the kernel's tables, publishes them, and provokes what is missing. */
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
   * Provokes neighbours on links without a next hop. The kernel sends them nothing, so it would not
   * notice that a link-layer address has changed. Each call provokes a few, all of them in turn.
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
   * The kernel's neighbours on our interfaces. Configured next hops come first, because there may
   * be more than fit. Packets to link-local addresses are not forwarded, so such addresses count
   * only as next hops.
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

  /** Whether an answer may arrive soon. */
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

/** Key of a neighbour in maps. */
function keyOf({ port, address }: NextHop): string {
  return `${port} ${address}`;
}
