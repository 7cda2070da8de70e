/**
 * The protocol of the client in first-packets/: what it is asked and what it answers, one line of
 * JSON each.
 *
 * An *exchange* is a flow that no site knows yet: a client sends its first packets and waits for
 * the replies.
 */

/**
 * The programs that start exchanges. Each is a program that people use, or the part of one that
 * matters here.
 */
export const CASES = {
  curl: 'curl: connect',
  dns: 'DNS stub: A and AAAA from one socket',
  ping: 'ping: first echo',
  traceroute: 'traceroute: every hop behind the site',
  stun: 'STUN: two servers from one socket',
  stun_spread: 'the same, each by another site (ECMP)',
  udp: 'UDP: ten datagrams at once',
  iperf3: 'iperf3: UDP to the client',
  burst: '1,000 connections at once',
} as const;

export type Case = keyof typeof CASES;

export interface Ask {
  readonly id: number;
  readonly what: Case | 'established';
  /** Addresses of the servers. Every case has exchanges with each of them. */
  readonly servers: readonly string[];
  /** Addresses of the client, used in turn. */
  readonly sources: readonly string[];
  /** Exchanges with each server. */
  readonly each: number;
  /** Time between the starts of two exchanges. */
  readonly gap_ms: number;
  /** Time to wait for a reply. */
  readonly timeout_ms: number;
  /** TTL of the first hop that traceroute probes, and of the server. */
  readonly hops?: readonly [number, number];
}

export interface Exchange {
  /** Index of the server. */
  readonly server: number;
  /** Packets sent that must be answered. */
  readonly sent: number;
  /** Those of them that were not answered when first sent. */
  readonly lost: number;
  /**
   * Time from the first packet to the first reply. Absent if no reply came to a first transmission,
   * or if it was not timed.
   */
  readonly ms?: number;
  /** Whether a router on the path answered, not the server. */
  readonly router?: boolean;
  /** Replies that arrived in another order than their requests. */
  readonly reordered?: number;
  /** For STUN, if both servers answered: whether they saw different external endpoints. */
  readonly split?: boolean;
}

export interface Answer {
  readonly id: number;
  readonly exchanges: readonly Exchange[];
  readonly error?: string;
}

/** Runs an exchange with each server in each turn, `gap_ms` apart. */
export async function everyTurn(
  { servers, sources, each, gap_ms }: Ask,
  run: (server: number, to: string, source: string) => Promise<readonly Exchange[]>,
): Promise<Exchange[]> {
  const exchanges: Promise<readonly Exchange[]>[] = [];
  for (let n = 0; n < servers.length * each; n++) {
    if (n > 0) await new Promise((resolve) => setTimeout(resolve, gap_ms));
    const server = n % servers.length;
    exchanges.push(run(server, servers[server], sources[n % sources.length]));
  }
  return (await Promise.all(exchanges)).flat();
}

export const DNS_PORT = 53;
export const STUN_PORT = 3478;
export const ECHO_PORT = 7;
export const BURST_PORT = 81;

/**
 * A connection that took this much longer than expected has lost a SYN: TCP retransmits a SYN after
 * 1 s (RFC 6298 §2).
 */
export const TCP_LOST_MS = 700;
