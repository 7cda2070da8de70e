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
    'Times an object’s code threw an error when asked to merge, fill in or settle records; what it can, it tells later.',
  state_tx_units: 'Units cut and numbered.',
  state_tx_messages: 'State messages sent; by unicast, one to several members counts once.',
  state_tx_bytes: 'Bytes of those messages, without IP and UDP headers.',
  state_tx_retransmissions: 'Units sent again because a member did not acknowledge them in time.',
  state_tx_units_repaired: 'Units of a dead member passed on to those that lacked them.',
  state_tx_acks: 'Messages sent for an acknowledgement alone.',
  state_tx_keepalives: 'Messages sent because the channel had carried no full vector for the keepalive interval.',
  state_tx_busy: 'Times sending stopped because all of the transport’s buffers were in the kernel’s hands.',
  state_tx_errors: 'Datagrams the network refused; they are repaired by retransmission.',
  state_tx_log_full: 'Times draining the log rings stopped because a unit log was full: some member lags behind.',
  state_pruned_units: 'Units let go because every member has them.',
  state_tx_throttled_delay:
    'Times records were held back to coalesce because round trips had grown: what is in flight stands in a queue.',
  state_tx_throttled_loss: 'Times records were held back to coalesce because much had to be sent again.',
  state_tx_throttled_bandwidth: 'Times records were held back to coalesce because of replication.bandwidth.',
  state_tx_throttled_lag:
    'Times records were held back to coalesce because a member’s lag neared replication.max_lag_ms.',
  state_tx_lag_exceeded: 'Times a member’s lag of an object exceeded replication.max_lag_ms.',
  state_tx_detached:
    'Times a member was detached because it held up a full unit log: what it misses is kept for it, coalesced.',
  state_tx_retained: 'Times units of a full unit log were kept apart for a member that was joining.',
  state_tx_reattached: 'Times a detached member had got everything it was owed, and was attached again.',
  state_tx_backlogs_lost: 'Times what a member was owed could not be kept: it needs a snapshot.',
  state_rx_messages: 'Datagrams received on the state channels.',
  state_rx_bytes: 'Bytes of those datagrams, without IP and UDP headers.',
  state_rx_units: 'Units accepted.',
  state_rx_units_duplicate: 'Units that came again.',
  state_rx_units_out_of_order: 'Units accepted beyond a gap.',
  state_rx_units_dropped: 'Units that could not be remembered or buffered; they come again.',
  state_rx_units_busy: 'Times a unit was left because what it changes was locked for long; it comes again.',
  state_rx_units_overlap: 'Units that overlap known numbers in part: no member of this protocol sends such.',
  state_rx_records_changed: 'Records of other members that changed state.',
  state_rx_records_unchanged: 'Records of other members that were known or lost to a winner.',
  state_rx_records_malformed: 'Records of other members that the object refused as malformed.',
  state_rx_records_full: 'Records of other members for which the object had no room.',
  state_rx_records_failed: 'Records of other members on which the object’s code threw an error.',
  state_rx_records_skipped: 'Records of other members that never came and cannot be sent any more.',
  state_rx_units_repaired: 'Of the units accepted, those of a dead member that another passed on.',
  state_rx_units_refused: 'Units passed on of a member that is not known to be dead.',
  state_foreign_units_dropped:
    'Units of other members, kept for those that lack them in case their origin dies, that had to make room before all had them.',
  state_incarnations_unrepaired: 'Dead members of which not all have the same, because nobody has some units any more.',
  state_members_estranged:
    'Members that are evicted here while this instance is evicted there: both sides go on alone until one restarts.',
  state_rx_acks_stale: 'Acknowledgements of an earlier life of this instance, or older than the last one.',
  state_rx_restarts: 'Times a member was seen to have started again.',
  state_rx_errors: 'Errors of the receiving sockets.',
} as const;

const GAUGES = {
  state_log_backlog_words: 'Words in the log rings that wait to be numbered.',
  state_unit_log_units: 'Units held because some member may lack them.',
  state_unit_log_bytes: 'Bytes of the unit logs in use.',
  state_tx_window_bytes: 'What may be in flight while a path is congested; 0: there is no congestion.',
  state_tx_window_ms: 'For how long records have been held back to coalesce; if none are, the last time.',
  state_tx_window_reason:
    'Why: 0 nothing, 1 round trips have grown, 2 loss, 3 replication.bandwidth, 4 replication.max_lag_ms.',
  state_tx_lag_ms:
    'Age of the oldest record that a member which is heard has not acknowledged; 0 without replication.max_lag_ms.',
  state_backlog_members: 'Members that are owed units, summed over the objects.',
  state_backlog_bytes: 'Memory for what detached members are owed.',
  state_unit_log_full: 'Unit logs that hold up draining because a member lags.',
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
      return 'an incarnation or a counter that cannot be';
    case 'seal_replay':
      return 'taken before, or too old to tell; also what the network doubled';
    case 'seal_busy':
      return 'of an unknown incarnation or salt, while more of these came than are checked';
    case 'seal_forged':
      return 'forged, damaged, or sealed with another secret or for another cluster';
    case 'length':
      return 'too short, too long or no whole words';
    case 'magic':
      return 'not a state message; or a sealed one, and we have no key';
    case 'version':
      return 'a format version we do not speak';
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
      return 'our own, heard back';
    case 'incarnation':
      return 'of an earlier life of its sender';
    case 'unclosed':
      return 'of a member that started again, while its former life is not closed everywhere';
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
