/**
 * What the admin commands ask of an instance: plain data, read from shared memory at the moment of
 * asking. Field names are also the keys of the JSON output, so they are part of the interface to
 * people's scripts.
 */

import type { RecordFields } from '../../workers/records.js';
import type { LifecycleState } from '../lifecycle.js';
import type { RecordFigures, RecordRow } from '../record-log.js';
import type { FlowFilter } from './flow-filter.js';

export type { RecordFigures, RecordRow };

/** A row of a middlebox's view, and whose it is. */
export interface ViewRow extends RecordFields {
  readonly middlebox: string;
}

type Awaitable<T> = T | Promise<T>;

export interface AdminSource {
  status(): Awaitable<Status>;
  /** The other members. */
  peers(): Awaitable<readonly PeerRow[]>;
  objects(): Awaitable<readonly ObjectRow[]>;
  /** By object and member: what it lacks of this one's records, and this one of its. */
  lag(): Awaitable<readonly LagRow[]>;
  /**
   * Flows, of any number: they are asked for piece by piece while the answer is being sent.
   * `filter` is advice, to skip slots before rows are made of them; every row is checked against it
   * again. Yields `null` now and then while nothing is found (at least every thousand slots), so
   * that the main thread can do other work in between.
   */
  flows(filter: FlowFilter): Iterable<FlowRow | null>;
  threads(): Awaitable<readonly ThreadRow[]>;
  /** Everybody who has or had a slot, this instance included. */
  members(): Awaitable<readonly MemberRow[]>;
  /**
   * These three reject where the change cannot be made, with what is in the way. They answer with
   * the member as it is then. `force`: also if it is heard.
   */
  addMember(member: NewMember): Promise<MemberChange>;
  removeMember(name: string, force: boolean): Promise<MemberChange>;
  evictMember(name: string, force: boolean): Promise<MemberChange>;
  /**
   * Resolves when this instance takes packets, or is going to stop. `alone`: it does not wait for
   * members that are not heard. `lossy`: it takes state of which some finds no room here.
   */
  join(how: JoinHow): Promise<Standing>;
  counters(): Awaitable<readonly CounterRow[]>;
  /**
   * Takes no new flows, lets the log run empty, and resolves when every other member has
   * acknowledged everything or waiting longer is of no use. Asked for again, it waits for the same
   * end.
   */
  drain(): Promise<Drained>;
  /** Ends a thread by its slot; it is mended and started again. Rejects when it is not running. */
  restart(slot: number): Promise<void>;
  /** What was refused on the state channels, by the address it came from; the most first. */
  rejects(): Awaitable<readonly RejectRow[]>;
  /** Reads the key file again. Rejects, and changes nothing, when something is wrong with it. */
  reloadKeys(): Awaitable<KeysInUse>;
  /**
   * The last records of middleboxes, of one type or of all, the oldest first. Rejects when there is
   * no such type.
   */
  records(type: string | null): Awaitable<readonly RecordRow[]>;
  /** Rows of what middleboxes show under a name. Rejects when none shows such. */
  view(name: string): Awaitable<readonly ViewRow[]>;
  /**
   * Hands an order to the middleboxes that take it. Rejects when there is none, or with what is
   * wrong with it.
   */
  order(name: string, text: string): Awaitable<void>;
  /** Opens the file of records anew. Rejects when that is not possible. */
  reopenRecords(): Promise<RecordFigures>;
  /** Rules of middleboxes in force, with what they met. */
  rules(): Awaitable<readonly RuleRow[]>;
  /** Reads all rules again. Rejects, and changes nothing, with all that is wrong with them. */
  reloadRules(): Promise<readonly RulesRow[]>;
  /** Writes the state to its file. Rejects with the reason when it cannot. */
  save(): Promise<Saved>;
  /**
   * Reads the configuration again; see daemon/reload.ts. `isCheck`: only says what would be done.
   * Rejects, and changes nothing, if it is wrong.
   */
  reload(isCheck: boolean): Promise<Reloaded>;
  /** Begins an orderly stop and returns at once. */
  shutdown(): void;
}

/** `null`: as it is configured. */
export type JoinHow = 'alone' | 'lossy' | null;

/** How this instance stands in its cluster. */
export interface Standing {
  readonly state: LifecycleState;
  /** What it is at, what it waits for, and what is wrong. */
  readonly reason: string;
}

export interface Status {
  /** How this instance stands in the cluster (lifecycle.ts), and why. */
  readonly state: LifecycleState;
  readonly state_reason: string;
  readonly version: string;
  /** Which build this instance runs; members that run another, and which. */
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
  /** For each port, what is behind it: `inside = in0 (native)`. */
  readonly ports: readonly string[];
  readonly transport: string;
  /** What middleboxes say an operator should know of now, such as a judgement that is suspended. */
  readonly conditions: readonly string[];
  /** Where the list of members comes from, and its version. */
  readonly membership: string;
  /** Key that state messages are sealed with; `null`: they are not sealed. */
  readonly key: number | null;
  readonly threads: number;
  readonly threads_ready: number;
  readonly peers: number;
  readonly peers_reachable: number;
  readonly rx_packets: number;
  readonly tx_packets: number;
  /** Received and not handed to a driver. */
  readonly dropped_packets: number;
  /** Frames that no worker received: not among `rx_packets`. */
  readonly rx_missed_packets: number;
  /** Handed to the driver, which could not send them: among `tx_packets`. */
  readonly tx_unsent_packets: number;
}

export interface PeerRow {
  readonly name: string;
  readonly id: number;
  readonly address: string;
  /**
   * never: nothing was ever heard of it; silent: not for longer than a few keepalives; leaving and
   * left: in order; dead: it was evicted; refused: its messages come and are refused, as by another
   * key.
   */
  readonly state: 'reachable' | 'silent' | 'never' | 'leaving' | 'left' | 'dead' | 'refused';
  /** Smoothed round-trip time, and the least ever; `null` before the first. */
  readonly rtt_ms: number | null;
  readonly rtt_min_ms: number | null;
  /** Since the last message from it. */
  readonly heard_ms_ago: number | null;
  /** How far its wall clock is ahead of ours (negative: behind); `null` before it was compared. */
  readonly clock_skew_ms: number | null;
  /** Key that the last message from it was sealed with; `null`: none was. */
  readonly key: number | null;
  /** The build it runs; `null`: it has not said so. */
  readonly build: string | null;
  /**
   * attached: it gets our records; owed: what it misses is kept for it; absent: it needs a
   * snapshot.
   */
  readonly attachment: 'attached' | 'owed' | 'absent';
  /** Our records it has not acknowledged; those of them that are kept for it coalesced. */
  readonly unacknowledged_records: number;
  readonly owed_records: number;
  /** Its records we know of and do not have. */
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
  /** Equal at two members that hold the same. */
  readonly digest: string;
  /** Records of our own: given a number so far, and not acknowledged by every member. */
  readonly records: number;
  readonly unacknowledged_records: number;
  /**
   * Of objects that count: by how much what some other member reads may be below what was counted
   * here; else `null`.
   */
  readonly error_bound: number | null;
  /** Members that hold something else, though they applied the same records: they must not. */
  readonly differs_from: readonly string[];
  /** The object's own figures: used, capacity and the like. */
  readonly figures: Readonly<Record<string, number>>;
}

export interface LagRow {
  readonly object: string;
  /** Names of members: one of the two is this one. */
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

export interface FlowRow {
  /** Name of the state object it is in. */
  readonly object: string;
  /** IP protocol number. */
  readonly protocol: number;
  readonly inside: Endpoint;
  /** What it is translated to, if it is. */
  readonly external: Endpoint | null;
  /** The other end, if the row stands for one. */
  readonly remote: Endpoint | null;
  /** The name of its rank: `new`, `established` and so on. */
  readonly state: string;
  /** Until it is forgotten if nothing comes; null: never. */
  readonly expires_s: number | null;
}

export interface ThreadRow {
  readonly slot: number;
  readonly name: string;
  readonly state: string;
  /** `null` when it is not pinned. */
  readonly core: number | null;
  readonly tid: number;
  readonly restarts: number;
  /** Rounds so far, modulo 2^32: alive while it changes. */
  readonly heartbeat: number;
}

export interface CounterRow {
  readonly name: string;
  /** The sentence it was declared with. */
  readonly help: string;
  readonly kind: 'counter' | 'gauge';
  readonly total: number;
  /** By thread slot; empty: it is none of a thread. */
  readonly threads: readonly number[];
}

export interface RejectRow {
  readonly address: string;
  /** Datagrams refused, of which `inherited` at most may have come from other addresses. */
  readonly refused: number;
  readonly inherited: number;
  /** Why the last was: the end of its counter's name, `state_rejected_…`. */
  readonly reason: string;
  readonly ms_ago: number;
}

/** A line of rules that is counted. */
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
  /** `null`: they are in the configuration itself. */
  readonly file: string | null;
  readonly entries: number;
  /** How often they were loaded. */
  readonly version: number;
}

export interface KeysInUse {
  /** Id of the key that messages are sealed with. */
  readonly sending: number;
  /** Ids of the keys that are accepted. */
  readonly accepted: readonly number[];
}

/** What a save wrote. */
export interface Saved {
  readonly file: string;
  readonly bytes: number;
  /** Unix time in milliseconds of what is in the file. */
  readonly saved_ms: number;
}

/** An option whose value in the file is another than the one in use. */
export interface ChangedOption {
  readonly option: string;
  readonly from: string;
  readonly to: string;
}

/** One that is not applied before a restart; `change` says of which sites. */
export interface PendingOption extends ChangedOption {
  readonly change: 'rolling' | 'all-sites';
  /** Why, where there is more to say than that it is decided at the start. */
  readonly reason: string;
}

export interface Reloaded {
  readonly applied: readonly ChangedOption[];
  readonly restart: readonly PendingOption[];
  /** Number of options that are the same. */
  readonly unchanged: number;
}

export interface Drained {
  /** Whether every other member has everything. */
  readonly complete: boolean;
  readonly unacknowledged_records: number;
}
