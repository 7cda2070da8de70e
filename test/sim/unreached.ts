/**
 * Counters of the protocol that no simulated run reaches, each with the reason. Some profile
 * reaches every other counter. A sweep of all profiles fails if it misses a counter that is not
 * listed here, or reaches one that is.
 */

import type { ReplicationMetric } from '../../workers/replication/metrics.js';

export const UNREACHED: Readonly<Partial<Record<ReplicationMetric, string>>> = {
  state_rx_units_overlap:
    'what a member claims ends where units end: numbers of an incomplete folded backlog are in no snapshot, and are forgotten if its origin ends',
  state_rx_records_full:
    'full objects differ from member to member, so nothing could be compared: the objects of the simulator are large enough',
};
