/**
 * Counters of the protocol that no simulated life reaches, each with the reason. All others are
 * reached by some profile: a sweep that lives every profile fails if one is not, and if one that is
 * listed here is.
 */

import type { ReplicationMetric } from '../../workers/replication/metrics.js';

export const UNREACHED: Readonly<Partial<Record<ReplicationMetric, string>>> = {
  state_rx_units_overlap:
    'what a member claims ends where units end: numbers of an incomplete folded backlog are in no snapshot, and are forgotten if its origin ends',
  state_rx_records_full:
    'full objects differ from member to member, so nothing could be compared: the objects of the simulator are large enough',
};
