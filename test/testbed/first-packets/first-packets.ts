/**
 * First packets over asymmetric routes. Opens flows that no site knows, with real programs. Counts
 * the first replies that were lost, and measures how much longer the others took, beside what is
 * left of the delay between the sites when the reply arrives.
 */

import { fileURLToPath } from 'node:url';
import { findTool } from '../../support/require.js';
import { compiled } from '../compile.js';
import { startServer } from '../http/fetch.js';
import type { Program } from '../program.js';
import type { Testbed } from '../testbed.js';
import { type Answer, type Ask, BURST_PORT, type Case, type Exchange } from './exchange.js';

const script = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

/** Time to wait for a reply, and for a connection, whose SYN is retransmitted after a second. */
const REPLY_MS_MAX = 1000;
const CONNECT_MS_MAX = 3000;
/**
 * Time to wait for a reply of an established flow. No delay here is longer, so a later reply counts
 * as lost.
 */
const ESTABLISHED_MS_MAX = 400;
/**
 * Exchanges with each server, and the time between their starts: at once, they would delay each
 * other.
 */
const PACE = {
  sockets: { each: 4, gap_ms: 5 },
  programs: { each: 2, gap_ms: 25 },
} as const;
const BURST_CONNECTIONS = 1000;
/** Timed bursts, and the same number of bursts for comparison. */
const BURSTS = 3;
/**
 * Warm-up bursts: until its code is compiled, a site needs several times as long for a packet. All
 * bursts of four delays together must leave some ports of a site's lease of about 32,000.
 */
const BURSTS_BEFORE = 5;

export interface FirstServer {
  readonly node: string;
  readonly address: string;
  /** Round trip as the relay delays it. */
  readonly roundTripMs: number;
}

export interface FirstPacketsPlace {
  /** Node of the clients. */
  readonly client: string;
  readonly servers: readonly FirstServer[];
  /** Node of the router in front of the servers: the first hop behind a site. */
  readonly router: string;
  /**
   * Routes of the replies at `router`, in the syntax of `ip route`: by site a, like the requests,
   * and by site b.
   */
  readonly replyRoutes: { readonly a: string; readonly b: string };
  /** Addresses of clients whose requests leave by site a. */
  readonly sources: readonly string[];
  /**
   * Addresses of clients whose requests leave by either site, by the flow's hash. Absent: there are
   * no such clients.
   */
  readonly spread?: readonly string[];
  /** TTL of the first hop behind site a, and of the servers. */
  readonly hops: readonly [number, number];
}

export interface Measure {
  /** Absent: all possible cases. */
  readonly cases?: readonly Case[];
  /** Time to wait for a reply. */
  readonly reply_ms_max?: number;
  /** False: only losses are counted, and no flow has to be established. */
  readonly timed?: boolean;
}

/** What became of the first packets of one case with one server. */
export interface Figures {
  readonly what: Case;
  readonly server: FirstServer;
  /** Packets sent that must be answered. */
  readonly sent: number;
  /** Those of them whose first reply did not arrive. */
  readonly lost: number;
  readonly reordered: number;
  /**
   * Sockets that two servers answered, and those of them that the servers saw at different external
   * endpoints.
   */
  readonly pairs: number;
  readonly split: number;
  /**
   * By exchange: how much longer a first reply took than its baseline, and what was left of the
   * delay between the sites, in ms. The baseline is a round trip of an established flow. Bursts
   * keep the machine busy, so their baseline is as many bursts over symmetric routes to servers
   * whose distance is larger by what is left. The connections are compared in order: the fastest
   * with the fastest, the slowest with the slowest.
   */
  readonly added: readonly { readonly ms: number; readonly leftMs: number }[];
}

/**
 * What is left of the delay between the sites when the reply arrives at the other site. No remedy
 * can be faster.
 */
export const leftMs = (wanMs: number, roundTripMs: number): number => Math.max(0, wanMs - roundTripMs);

/** Groups of cases that may be measured at the same time. */
const GROUPS: readonly (readonly Case[])[] = [
  ['dns', 'stun', 'stun_spread', 'udp'],
  ['ping', 'traceroute', 'curl', 'iperf3'],
  ['burst'],
];
const PROGRAMS: readonly Case[] = GROUPS[1];

export class FirstPackets {
  private readonly place: FirstPacketsPlace;
  private readonly testbed: Testbed;
  private readonly program: Program;
  private readonly waiting = new Map<number, (answer: Answer) => void>();
  private partial = '';
  private asks = 0;
  private burstsBefore = 0;

  private constructor(testbed: Testbed, place: FirstPacketsPlace, program: Program) {
    this.testbed = testbed;
    this.place = place;
    this.program = program;
    program.onOutput((text) => {
      const lines = (this.partial + text).split('\n');
      this.partial = lines.pop() ?? '';
      for (const line of lines) if (line.startsWith('{')) this.read(JSON.parse(line) as Answer);
    });
  }

  /** Starts the servers and the client; with `http`, the web servers, too. */
  static async open(testbed: Testbed, place: FirstPacketsPlace, http = true): Promise<FirstPackets> {
    const nodes = place.servers.map(({ node }) => node);
    await Promise.all([
      ...nodes.flatMap((node) => [
        testbed.start(node, `first-${node}`, [process.execPath, script('server.js')]).waitFor(/^ready$/m),
        testbed.start(node, `burst-${node}`, [compiled('burst'), 'accept', String(BURST_PORT)]).waitFor(/^ready$/m),
        ...(http ? [startServer(testbed, node)] : []),
      ]),
      // Linux limits the ICMP errors per second to one address, and behind a NAT all clients have
      // the same one. This limit is not what is measured.
      ...[place.router, ...nodes].map((node) =>
        testbed.run(node, ['sh', '-c', 'echo 0 > /proc/sys/net/ipv4/icmp_ratelimit']),
      ),
    ]);
    if (findTool('iperf3') !== null)
      for (const { node } of place.servers) testbed.start(node, `iperf3-${node}`, ['iperf3', '-s', '--forceflush']);
    const program = testbed.start(place.client, 'first-packets', [process.execPath, script('client.js')]);
    await program.waitFor(/^ready$/m);
    return new FirstPackets(testbed, place, program);
  }

  /** The cases that this network supports and whose programs this machine has. */
  get cases(): Case[] {
    return GROUPS.flat().filter((what) => {
      if (what === 'stun_spread') return this.place.spread !== undefined;
      return !PROGRAMS.includes(what) || findTool(what) !== null;
    });
  }

  /** Opens new flows to every server, and returns what became of their first packets. */
  async measure(wanMs: number, options: Measure = {}): Promise<Figures[]> {
    const { cases = this.cases, reply_ms_max = REPLY_MS_MAX, timed = true } = options;
    const established = timed ? await this.established() : this.place.servers.map(() => Number.NaN);
    const figures: Figures[] = [];
    for (const group of GROUPS) {
      const here = group.filter((what) => cases.includes(what));
      const measured = await Promise.all(here.map((what) => this.measureCase(what, wanMs, established, reply_ms_max)));
      figures.push(...measured.flat());
    }
    return figures;
  }

  /** Round trips of established flows, by server. */
  private async established(): Promise<number[]> {
    const exchanges = await this.ask('established', { each: 1, gap_ms: 0, timeout_ms: ESTABLISHED_MS_MAX });
    return exchanges.map(({ ms = Number.NaN }) => ms);
  }

  private async measureCase(
    what: Case,
    wanMs: number,
    established: readonly number[],
    replyMsMax: number,
  ): Promise<Figures[]> {
    const { servers } = this.place;
    const pace = PROGRAMS.includes(what) ? PACE.programs : PACE.sockets;
    const asked = {
      ...(what === 'burst' ? { each: Math.ceil(BURST_CONNECTIONS / servers.length), gap_ms: 0 } : pace),
      timeout_ms: what === 'curl' || what === 'burst' ? Math.max(CONNECT_MS_MAX, replyMsMax) : replyMsMax,
    };
    const ask = (): Promise<readonly Exchange[]> => this.ask(what, asked);
    const exchanges: Exchange[] = [];
    const ideal: Exchange[] = [];
    if (what !== 'burst' || established.some(Number.isNaN)) exchanges.push(...(await ask()));
    else {
      for (; this.burstsBefore < BURSTS_BEFORE; this.burstsBefore++) await ask();
      for (let n = 0; n < BURSTS; n++) {
        ideal.push(...(await this.ideal(wanMs, ask)));
        exchanges.push(...(await ask()));
      }
    }
    return servers.map((server, n): Figures => {
      const here = exchanges.filter((exchange) => exchange.server === n);
      const sum = (of: (exchange: Exchange) => number): number => here.reduce((total, one) => total + of(one), 0);
      const left = leftMs(wanMs, server.roundTripMs);
      return {
        what,
        server,
        sent: sum(({ sent }) => sent),
        lost: sum(({ lost }) => lost),
        reordered: sum(({ reordered = 0 }) => reordered),
        pairs: sum(({ split }) => (split === undefined ? 0 : 1)),
        split: sum(({ split = false }) => (split ? 1 : 0)),
        added:
          ideal.length === 0
            ? here.flatMap(({ ms, router = false }) => {
                if (ms === undefined) return [];
                // Routers are next to the sites.
                return router ? [{ ms, leftMs: leftMs(wanMs, 0) }] : [{ ms: ms - established[n], leftMs: left }];
              })
            : longer(
                here,
                ideal.filter((exchange) => exchange.server === n),
              ).map((ms) => ({ ms: ms + left, leftMs: left })),
      };
    });
  }

  /**
   * Runs `work` under conditions that no remedy can beat: replies pass the site of the requests,
   * and the servers' distance is larger by what is left of the delay.
   */
  private async ideal<T>(wanMs: number, work: () => Promise<T>): Promise<T> {
    const { router, replyRoutes, servers } = this.place;
    const moveServers = (moreMs: (server: FirstServer) => number): Promise<unknown> =>
      Promise.all(
        servers.map((server) =>
          this.testbed.relay.setAll(server.node, [router, server.node], {
            delay_ms: (server.roundTripMs + moreMs(server)) / 2,
          }),
        ),
      );
    await this.testbed.configure(router, `route replace ${replyRoutes.a}`);
    await moveServers(({ roundTripMs }) => leftMs(wanMs, roundTripMs));
    try {
      return await work();
    } finally {
      await moveServers(() => 0);
      await this.testbed.configure(router, `route replace ${replyRoutes.b}`);
    }
  }

  async close(): Promise<void> {
    this.program.endInput();
    await this.program.stop('SIGKILL');
  }

  private async ask(
    what: Ask['what'],
    pace: Pick<Ask, 'each' | 'gap_ms' | 'timeout_ms'>,
  ): Promise<readonly Exchange[]> {
    const { servers, hops } = this.place;
    const pool = what === 'stun_spread' ? (this.place.spread ?? []) : this.place.sources;
    const id = this.asks++;
    // Each call uses other sources, so that flows seldom reuse the ports of earlier ones.
    const start = (7 * id) % pool.length;
    const ask: Ask = {
      id,
      what,
      servers: servers.map(({ address }) => address),
      sources: [...pool.slice(start), ...pool.slice(0, start)],
      hops,
      ...pace,
    };
    const answered = new Promise<Answer>((resolve) => this.waiting.set(id, resolve));
    this.program.write(`${JSON.stringify(ask)}\n`);
    const ended = this.program.exited.then(() => ({ id, exchanges: [], error: `${what}: the client ended` }));
    const { exchanges, error }: Answer = await Promise.race([answered, ended]);
    if (error !== undefined) throw new Error(`${error}\n${this.program.tail()}`);
    return exchanges;
  }

  private read(answer: Answer): void {
    this.waiting.get(answer.id)?.(answer);
    this.waiting.delete(answer.id);
  }
}

/**
 * How much longer exchanges took than the baseline: the n-th fastest compared with the n-th
 * fastest.
 */
function longer(exchanges: readonly Exchange[], baseline: readonly Exchange[]): number[] {
  const [times, others] = [exchanges, baseline].map((some) =>
    some.flatMap(({ ms }) => (ms === undefined ? [] : [ms])).sort((a, b) => a - b),
  );
  return times.map((ms, n) => ms - others[Math.floor((n * others.length) / times.length)]);
}
