/**
 * The counters of the send and the receive thread, declared once. Columns are looked up when a
 * thread starts.
 */

import type { Metric, MetricCatalogue } from '../../shm/metrics.js';
import { REJECTS, type Reject } from './wire/message.js';
import { SEAL_REJECTS, type SealReject } from './wire/seal.js';

const COUNTERS = {
  state_tx_records: 'Records of our own operations taken from the log rings and numbered.',
  state_tx_records_coalesced: 'Of those, the ones merged into an earlier record before they were sent.',
  state_tx_records_invalid: 'Records in a log ring that name no state object: a defect of the worker that wrote them.',
  state_tx_coalesce_failed:
    'Errors thrown by an object’s code when it coalesced, filled in or settled records; what it can, it replicates later.',
  state_tx_units: 'Units cut and numbered.',
  state_tx_messages: 'State messages sent; by unicast, one to several members counts once.',
  state_tx_bytes: 'Bytes of those messages, without IP and UDP headers.',
  state_tx_retransmissions: 'Units sent again because a member did not acknowledge them in time.',
  state_tx_units_repaired: 'Units of a dead member passed on to those that lacked them.',
  state_tx_acks: 'Messages sent for an acknowledgement alone.',
  state_tx_keepalives:
    'Keepalives: messages sent because the channel carried no full vector for the keepalive interval.',
  state_tx_busy: 'Times sending stopped because the kernel had all of the transport’s buffers.',
  state_tx_errors: 'Datagrams the network refused; they are repaired by retransmission.',
  state_tx_log_full: 'Times draining the log rings stopped because a unit log was full: a member lags.',
  state_pruned_units: 'Units pruned because every member has them.',
  state_tx_throttled_delay:
    'Times sending was throttled because round trips had grown: packets wait in a queue of the path.',
  state_tx_throttled_loss: 'Times sending was throttled because of loss: many units had to be retransmitted.',
  state_tx_throttled_bandwidth: 'Times sending was throttled by replication.bandwidth.',
  state_tx_throttled_lag: 'Times sending was throttled because a member’s lag neared replication.max_lag_ms.',
  state_tx_lag_exceeded: 'Times a member’s lag of an object exceeded replication.max_lag_ms.',
  state_tx_detached: 'Times a member was detached because the unit log was full: what it lacks is kept as a backlog.',
  state_tx_retained: 'Times units of a full unit log were retained for a joining member.',
  state_tx_reattached: 'Times a detached member had received all of its backlog, and was attached again.',
  state_tx_backlogs_lost: 'Times the backlog of a member could not be kept: it needs a snapshot.',
  state_rx_messages: 'Datagrams received on the state channels.',
  state_rx_bytes: 'Bytes of those datagrams, without IP and UDP headers.',
  state_rx_units: 'Units accepted.',
  state_rx_units_duplicate: 'Units that came again.',
  state_rx_units_out_of_order: 'Units accepted beyond a gap.',
  state_rx_units_dropped: 'Units that could not be buffered; they are retransmitted.',
  state_rx_units_busy: 'Units not applied because what they change stayed locked; they are retransmitted.',
  state_rx_units_overlap: 'Units that overlap known numbers in part: no member sends such units.',
  state_rx_records_changed: 'Records of other members that changed state.',
  state_rx_records_unchanged: 'Records of other members that were known, or lost against a newer value.',
  state_rx_records_malformed: 'Records of other members that the object refused as malformed.',
  state_rx_records_full: 'Records of other members for which the object had no room.',
  state_rx_records_failed: 'Records of other members on which the object’s code threw an error.',
  state_rx_records_skipped: 'Records of other members that never arrived and can no longer be sent.',
  state_rx_units_repaired: 'Accepted units of a dead member that another member passed on.',
  state_rx_units_refused: 'Units passed on of a member that is not known to be dead.',
  state_foreign_units_dropped:
    'Units of other members, kept in case their origin dies, that were evicted before all members had them.',
  state_incarnations_unrepaired:
    'Dead members of which not all have the same units, because no member has some of them any more.',
  state_members_estranged:
    'Members that evicted this instance and were evicted by it: both continue alone until one restarts.',
  state_rx_acks_stale: 'Acknowledgements of an earlier incarnation of this instance, or older than the last one.',
  state_rx_restarts: 'Times a member was seen to have started again.',
  state_rx_errors: 'Errors of the receiving sockets.',
} as const;

const GAUGES = {
  state_log_backlog_words: 'Words in the log rings that wait to be numbered.',
  state_unit_log_units: 'Units kept because a member may lack them.',
  state_unit_log_bytes: 'Bytes of the unit logs in use.',
  state_tx_window_bytes: 'Bytes that may be in flight while a path is congested; 0: no congestion.',
  state_tx_window_ms: 'How long sending has been throttled, in ms; if it is not, how long it last was.',
  state_tx_window_reason:
    'Why: 0 nothing, 1 round trips have grown, 2 loss, 3 replication.bandwidth, 4 replication.max_lag_ms.',
  state_tx_lag_ms:
    'Age of the oldest record that a member which is heard has not acknowledged; 0 without replication.max_lag_ms.',
  state_backlog_members: 'Members that have a backlog, summed over the objects.',
  state_backlog_bytes: 'Bytes of memory for backlogs of detached members.',
  state_unit_log_full: 'Unit logs that are full because a member lags.',
  state_rx_reorder_bytes: 'Bytes of units that wait for an earlier one.',
  state_clock_skew_ms: 'How far the wall clock of a member is from ours, the furthest of all.',
  state_rx_socket_bytes: 'Receive buffer the kernel granted, smallest over the sockets.',
} as const;

export type ReplicationMetric = keyof typeof COUNTERS | keyof typeof GAUGES | `state_rejected_${Refusal}`;

/**
 * Why a datagram is refused, in the order of the checks. The reject table numbers reasons by it.
 */
export const REFUSALS = [...SEAL_REJECTS, ...REJECTS] as const;
export type Refusal = Reject | SealReject;

export const REPLICATION_METRICS: readonly Metric[] = [
  ...Object.entries(COUNTERS).map(([name, help]): Metric => ({ name, help, kind: 'counter' })),
  ...REFUSALS.map(
    (reject): Metric => ({
      name: `state_rejected_${reject}`,
      help: `State messages dropped before anything in them was believed: ${rejectHelp(reject)}.`,
      kind: 'counter',
    }),
  ),
  ...Object.entries(GAUGES).map(([name, help]): Metric => ({ name, help, kind: 'gauge' })),
];

function rejectHelp(reject: Refusal): string {
  switch (reject) {
    case 'unsealed':
      return 'not sealed, though we have a key: from an instance without one, or forged';
    case 'seal_version':
      return 'neither a state message nor in the sealed format of this release: from another release, or forged';
    case 'seal_key':
      return 'sealed with a key that is not in our key file';
    case 'seal_header':
      return 'an impossible incarnation or counter';
    case 'seal_replay':
      return 'accepted before, or too old to know; also duplicates made by the network';
    case 'seal_busy':
      return 'of an unknown incarnation or salt, while more of these came than are checked';
    case 'seal_forged':
      return 'forged, damaged, or sealed with another secret or for another cluster';
    case 'length':
      return 'too short, too long, or not whole words';
    case 'magic':
      return 'not a state message; or a sealed one, and we have no key';
    case 'version':
      return 'a format version that this release does not know';
    case 'checksum':
      return 'damaged on the way';
    case 'cluster':
      return 'of another cluster';
    case 'meaning':
      return 'from a member whose state objects are declared differently';
    case 'object':
      return 'about an object that does not exist';
    case 'malformed':
      return 'lengths, counts or ranges that do not fit each other';
    case 'view':
      return 'of another view';
    case 'sender':
      return 'from an unknown member';
    case 'own':
      return 'our own message, received again';
    case 'incarnation':
      return 'of an earlier incarnation of its sender';
    case 'unclosed':
      return 'of a member that restarted, while its former incarnation is not closed everywhere';
    case 'ack_unsent':
      return 'acknowledges what was never sent';
  }
}

/** A thread's row with its columns: `counts.row[counts.at.state_tx_units]++`. */
export class Counts {
  readonly row: Float64Array;
  readonly at: Readonly<Record<ReplicationMetric, number>>;

  constructor(catalogue: MetricCatalogue, row: Float64Array) {
    this.row = row;
    this.at = Object.fromEntries(
      REPLICATION_METRICS.map((metric) => [metric.name, catalogue.column(metric.name)]),
    ) as Record<ReplicationMetric, number>;
  }

  add(metric: ReplicationMetric, n: number): void {
    this.row[this.at[metric]] += n;
  }

  set(metric: ReplicationMetric, value: number): void {
    this.row[this.at[metric]] = value;
  }

  value(metric: ReplicationMetric): number {
    return this.row[this.at[metric]];
  }
}
