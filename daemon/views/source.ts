/**
 * The interface from the admin commands to an instance: plain data, read from shared memory when it
 * is asked for. Field names are also the keys of the JSON output, so users' scripts depend on them.
 */

import type { BlockList } from 'node:net';
import type { RecordFields } from '../../workers/api/records.js';
import type { LifecycleState } from '../lifecycle/lifecycle.js';

/** A row of a middlebox's view, with the middlebox's name. */
export interface ViewRow extends RecordFields {
  readonly middlebox: string;
}

type Awaitable<T> = T | Promise<T>;

export interface AdminSource {
  status(): Awaitable<Status>;
  /** The other members. */
  peers(): Awaitable<readonly PeerRow[]>;
  objects(): Awaitable<readonly ObjectRow[]>;
  /**
   * By object and peer: which of this member's records the peer lacks, and which of the peer's
   * records this member lacks.
   */
  lag(): Awaitable<readonly LagRow[]>;
  /**
   * Any number of flows. The caller takes them piece by piece while it sends the answer. `filter`
   * only lets the source skip slots before it makes rows; the caller checks every row again. Yields
   * `null` at least once per thousand slots without a result, so that the main thread can do other
   * work.
   */
  flows(filter: FlowFilter): Iterable<FlowRow | null>;
  threads(): Awaitable<readonly ThreadRow[]>;
  /** All members that have or had a slot, including this instance. */
  members(): Awaitable<readonly MemberRow[]>;
  /**
   * These three return the member after the change. They reject with the cause if the change cannot
   * be made. `force`: also if the member is heard.
   */
  addMember(member: NewMember): Promise<MemberChange>;
  removeMember(name: string, force: boolean): Promise<MemberChange>;
  evictMember(name: string, force: boolean): Promise<MemberChange>;
  /**
   * Resolves when this instance takes packets, or is about to stop. `alone`: it does not wait for
   * members that are not heard. `lossy`: it accepts state although some of it does not fit here.
   */
  join(how: JoinHow): Promise<Standing>;
  counters(): Awaitable<readonly CounterRow[]>;
  /**
   * Takes no new flows and lets the log drain. Resolves when every other member has acknowledged
   * everything, or when it gives up waiting. A second call waits for the same drain.
   */
  drain(): Promise<Drained>;
  /**
   * Ends a thread by its slot. The supervisor recovers its state and starts it again. Rejects if
   * the thread is being started.
   */
  restart(slot: number): Promise<void>;
  /** Refused messages of the state channels by source address, the largest count first. */
  rejects(): Awaitable<readonly RejectRow[]>;
  /** Reads the key file again. If the file has an error, it rejects and changes nothing. */
  reloadKeys(): Awaitable<KeysInUse>;
  /**
   * The last records of middleboxes, of one type or of all, the oldest first. Rejects if the type
   * is unknown.
   */
  records(type: string | null): Awaitable<readonly RecordRow[]>;
  /** Rows of the middlebox views with this name. Rejects if no middlebox has such a view. */
  view(name: string): Awaitable<readonly ViewRow[]>;
  /**
   * Passes an order to the middleboxes that accept it. Rejects if no middlebox does, or with what
   * is wrong with the order.
   */
  order(name: string, text: string): Awaitable<void>;
  /** Opens the record file again. Rejects if that fails. */
  reopenRecords(): Promise<RecordFigures>;
  /** The middlebox rules in force, with their packet and byte counts. */
  rules(): Awaitable<readonly RuleRow[]>;
  /** Reads all rules again. If any are wrong, it rejects with all errors and changes nothing. */
  reloadRules(): Promise<readonly RulesRow[]>;
  /** Writes the state file. Rejects with the reason if that fails. */
  save(): Promise<Saved>;
  /**
   * Reads the configuration again; see daemon/reload.ts. `isCheck`: only returns what a reload
   * would do. If the configuration is wrong, it rejects and changes nothing.
   */
  reload(isCheck: boolean): Promise<Reloaded>;
  /** Begins an orderly stop and returns at once. */
  shutdown(): void;
}

/** `null`: as configured. */
export type JoinHow = 'alone' | 'lossy' | null;

/** The state of this instance in its cluster. */
export interface Standing {
  readonly state: LifecycleState;
  /** What it is doing, what it waits for, and what is wrong. */
  readonly reason: string;
}

export interface Status {
  /** The state of this instance in the cluster (lifecycle.ts), and the reason. */
  readonly state: LifecycleState;
  readonly state_reason: string;
  readonly version: string;
  /** The build that this instance runs, and the other builds that members run. */
  readonly build: string;
  readonly other_builds: readonly string[];
  readonly cluster: string;
  /** This member's name and id. */
  readonly member: string;
  readonly id: number;
  readonly pid: number;
  readonly uptime_s: number;
  /** Names, in the order packets pass them. */
  readonly middleboxes: readonly string[];
  /** For each port, its interface and driver: `inside = in0 (native)`. */
  readonly ports: readonly string[];
  readonly transport: string;
  /** Conditions that middleboxes report to the operator, such as a suspended decision. */
  readonly conditions: readonly string[];
  /** The source of the member list, and its version. */
  readonly membership: string;
  /** Id of the key that seals state messages; `null`: they are not sealed. */
  readonly key: number | null;
  readonly threads: number;
  readonly threads_ready: number;
  readonly peers: number;
  readonly peers_reachable: number;
  readonly rx_packets: number;
  readonly tx_packets: number;
  /** Received and not passed to a driver. */
  readonly dropped_packets: number;
  /** Frames that no worker received; not included in `rx_packets`. */
  readonly rx_missed_packets: number;
  /** Passed to a driver that could not send them; included in `tx_packets`. */
  readonly tx_unsent_packets: number;
}

export interface PeerRow {
  readonly name: string;
  readonly id: number;
  readonly address: string;
  /**
   * never: no message ever came from it. silent: none for longer than a few keepalives. leaving,
   * left: an orderly stop. dead: it was evicted. refused: its messages arrive and are refused, for
   * example because of another key.
   */
  readonly state: 'reachable' | 'silent' | 'never' | 'leaving' | 'left' | 'dead' | 'refused';
  /** Smoothed and minimum round-trip time; `null` before the first measurement. */
  readonly rtt_ms: number | null;
  readonly rtt_min_ms: number | null;
  /** Time since the last message from it. */
  readonly heard_ms_ago: number | null;
  /**
   * How far its wall clock is ahead of ours (negative: behind); `null` before the first comparison.
   */
  readonly clock_skew_ms: number | null;
  /** Id of the key that sealed its last message; `null`: not sealed, or no message yet. */
  readonly key: number | null;
  /** The build it runs; `null`: not yet known. */
  readonly build: string | null;
  /**
   * attached: it receives our records. backlog: it is detached and we keep a backlog for it.
   * absent: it needs a snapshot.
   */
  readonly attachment: 'attached' | 'backlog' | 'absent';
  /** Our records that it has not acknowledged, and how many of them are in its backlog. */
  readonly unacknowledged_records: number;
  readonly backlog_records: number;
  /** Its records that we know of and have not received. */
  readonly missing_records: number;
}

export interface MemberRow {
  readonly name: string;
  readonly id: number;
  readonly slot: number;
  readonly address: string;
  readonly role: 'self' | 'member' | 'evicted' | 'left';
  readonly state: string;
}

export interface NewMember {
  readonly name: string;
  readonly id: number;
  readonly address: string;
  readonly slot?: number | undefined;
}

export interface MemberChange extends MemberRow {
  /** How far the change reaches, and how long it lasts. */
  readonly note: string;
}

export interface ObjectRow {
  readonly id: number;
  readonly name: string;
  readonly delivery: string;
  /** Equal at two members with the same content. */
  readonly digest: string;
  /** Our own records: numbered so far, and not yet acknowledged by every member. */
  readonly records: number;
  readonly unacknowledged_records: number;
  /**
   * For objects that count: the most that another member's reading can be below our own count.
   * `null` for other objects.
   */
  readonly error_bound: number | null;
  /** Members whose content differs although they applied the same records. This must not happen. */
  readonly differs_from: readonly string[];
  /** The object's own figures: entries in use, capacity and so on. */
  readonly figures: Readonly<Record<string, number>>;
}

export interface LagRow {
  readonly object: string;
  /** Names of members. One of the two is this member. */
  readonly origin: string;
  readonly member: string;
  readonly missing_records: number;
  readonly lag_ms: number;
  readonly error_bound: number | null;
}

export interface Endpoint {
  /** IPv4 dotted, or IPv6. */
  readonly address: string;
  /** Port, or identifier of an ICMP query. */
  readonly port: number;
}

export type AddressFamily = 'ipv4' | 'ipv6';

/** An address or a block of addresses, with an optional port. */
export interface EndpointFilter {
  /** IP version of the addresses. Without it, an IPv4 address would match ::/0. */
  readonly family: AddressFamily;
  readonly addresses: BlockList;
  readonly port: number | null;
}

/** Flows that match all of these. `null`: any. */
export interface FlowFilter {
  readonly protocol: number | null;
  readonly inside: EndpointFilter | null;
  readonly external: EndpointFilter | null;
  readonly remote: EndpointFilter | null;
  /** Matches the port of any of the endpoints. */
  readonly port: number | null;
  readonly state: string | null;
  readonly object: string | null;
  /** Maximum number of rows. */
  readonly limit: number;
}

export interface FlowRow {
  /** Name of its state object. */
  readonly object: string;
  /** IP protocol number. */
  readonly protocol: number;
  readonly inside: Endpoint;
  /** The external endpoint, if the flow is translated. */
  readonly external: Endpoint | null;
  /** The other end, if the row has one. */
  readonly remote: Endpoint | null;
  /** The name of its rank: `new`, `established` and so on. */
  readonly state: string;
  /** Time until it expires if no packet arrives; null: never. */
  readonly expires_s: number | null;
}

export interface ThreadRow {
  readonly slot: number;
  readonly name: string;
  readonly state: string;
  /** `null` if it is not pinned. */
  readonly core: number | null;
  readonly tid: number;
  readonly restarts: number;
  /** Rounds so far, modulo 2^32. The thread is alive while this changes. */
  readonly heartbeat: number;
}

export interface CounterRow {
  readonly name: string;
  /** The help sentence of its declaration. */
  readonly help: string;
  readonly kind: 'counter' | 'gauge';
  readonly total: number;
  /** By thread slot; empty if it does not belong to threads. */
  readonly threads: readonly number[];
}

export interface RejectRow {
  readonly address: string;
  /** Datagrams refused. At most `inherited` of them may have come from other addresses. */
  readonly refused: number;
  readonly inherited: number;
  /** Why the last one was refused: the end of its counter's name, `state_rejected_…`. */
  readonly reason: string;
  readonly ms_ago: number;
}

/** A line of rules with its counts. */
export interface RuleRow {
  readonly middlebox: string;
  readonly line: number;
  readonly packets: number;
  readonly bytes: number;
  readonly text: string;
}

export interface RulesRow {
  readonly middlebox: string;
  /** Name of the option. */
  readonly rules: string;
  /** `null`: the rules are in the configuration itself. */
  readonly file: string | null;
  readonly entries: number;
  /** How often they were loaded. */
  readonly version: number;
}

export interface KeysInUse {
  /** Id of the key that seals messages. */
  readonly sending: number;
  /** Ids of the accepted keys. */
  readonly accepted: readonly number[];
}

/** What a save wrote. */
export interface Saved {
  readonly file: string;
  readonly bytes: number;
  /** Unix time in milliseconds of the saved state. */
  readonly saved_ms: number;
}

/** An option whose value in the file differs from the one in use. */
export interface ChangedOption {
  readonly option: string;
  readonly from: string;
  readonly to: string;
}

/**
 * An option that takes effect only after a restart. `change` says whether one site or all must
 * restart.
 */
export interface PendingOption extends ChangedOption {
  readonly change: 'rolling' | 'all-sites';
  /** The reason, if there is more to say than that it is read at the start. */
  readonly reason: string;
}

export interface Reloaded {
  readonly applied: readonly ChangedOption[];
  readonly restart: readonly PendingOption[];
  /** Number of unchanged options. */
  readonly unchanged: number;
}

export interface Drained {
  /** Whether every other member has everything. */
  readonly complete: boolean;
  readonly unacknowledged_records: number;
}

/** A line: `timestamp`, `event_type`, `site`, and the fields of the middlebox. */
export interface RecordRow extends RecordFields {
  readonly timestamp: string;
  readonly event_type: string;
  readonly site: string;
}

export interface RecordFigures {
  readonly file: string | null;
  readonly written: number;
  /** Records lost to full rings or a failed disk, and records that could not be rendered. */
  readonly lost: number;
}
