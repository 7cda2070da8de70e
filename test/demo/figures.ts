/**
 * The figures that the demo shows: those of both sites at one moment, and those of all downloads so
 * far.
 */

import { type Distribution, distribution } from '../testbed/distribution.js';
import type { Fetched } from '../testbed/http/load.js';
import type { Instance } from '../testbed/instance.js';

export interface SiteFigures {
  readonly name: string;
  /** Sums over both ports. */
  readonly rxPackets: number;
  readonly txPackets: number;
  readonly flows: number;
  /**
   * Records of this site: numbered for the other sites; merged before they were sent;
   * retransmitted.
   */
  readonly records: number;
  readonly coalesced: number;
  readonly retransmissions: number;
  /** Records of this site that the slowest other site has not acknowledged: the lag. */
  readonly lagRecords: number;
  readonly roundTripMs: number | null;
  /** Packets from outside that arrived before their state and waited for it. */
  readonly waited: number;
  /** Packets from outside that were dropped, because they have no state, or none yet. */
  readonly unsolicited: number;
}

export async function siteFigures(site: Instance): Promise<SiteFigures> {
  const [counters, peers, objects] = await Promise.all([site.counters(), site.peers(), site.objects()]);
  const sum = (suffix: string): number => (counters[`port0_${suffix}`] ?? 0) + (counters[`port1_${suffix}`] ?? 0);
  return {
    name: site.name,
    rxPackets: sum('rx_packets'),
    txPackets: sum('tx_packets'),
    flows: objects.reduce((total, object) => total + (object.figures['used'] ?? 0), 0),
    records: counters['state_tx_records'] ?? 0,
    coalesced: counters['state_tx_records_coalesced'] ?? 0,
    retransmissions: counters['state_tx_retransmissions'] ?? 0,
    lagRecords: Math.max(0, ...peers.map((peer) => peer.unacknowledged_records)),
    roundTripMs: peers[0]?.rtt_ms ?? null,
    waited: counters['early_replies'] ?? 0,
    unsolicited: counters['nat_unsolicited'] ?? 0,
  };
}

/** A server of the demo: its distance from the sites, and its downloads. */
export interface Origin {
  readonly name: string;
  readonly url: string;
  readonly roundTripMs: number;
}

/**
 * A connection that takes longer than this, ms, has lost its first reply. A lost first reply delays
 * it by the initial retransmission timeout of TCP, 1 s (RFC 6298 §2). Otherwise it is established
 * after one round trip, which is much shorter.
 */
const HELD_UP_MS = 700;

export interface OriginFigures {
  readonly origin: Origin;
  readonly fetched: number;
  readonly right: number;
  /** First replies that were lost, as seen by the delay that a loss causes. */
  readonly lost: number;
  readonly connectMs: Distribution;
}

/** All downloads so far, by server. */
export class Downloads {
  readonly all: Fetched[] = [];
  private readonly origins: readonly Origin[];

  constructor(origins: readonly Origin[]) {
    this.origins = origins;
  }

  get right(): number {
    return this.all.filter((fetched) => fetched.ok).length;
  }

  figures(): OriginFigures[] {
    return this.origins.map((origin) => {
      const here = this.all.filter((fetched) => fetched.origin === origin.url);
      const connected = here.filter((fetched) => fetched.ok).map((fetched) => fetched.connect_ms);
      return {
        origin,
        fetched: here.length,
        right: connected.length,
        lost: connected.filter((ms) => ms - origin.roundTripMs > HELD_UP_MS).length,
        connectMs: distribution(connected),
      };
    });
  }
}
