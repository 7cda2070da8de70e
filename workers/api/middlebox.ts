/**
 * A middlebox: a declaration of its options, counters and state, and a function over batches of
 * packets.
 *
 * Everything declared is data. Every thread evaluates the module. Every thread calls `state` with
 * the same resolved options, so the arena layout is the same everywhere. `open` is called once per
 * data plane worker and makes the closures that the worker runs. Nothing is made per packet.
 */

import type { Mode, SharedState } from '../../options/middlebox.js';
import type { Option, Options, Resolved } from '../../options/option.js';
import type { StateDefinition, StateObject } from '../../shm/objects/core/object.js';
import type { Batch } from '../packet/batch.js';
import type { Rewrites } from '../packet/rewrite.js';
import type { EarlyReplies } from './early-replies.js';
import type { Holds } from './holds.js';
import type { Members } from './members.js';
import type { MiddleboxLog } from './middlebox-log.js';
import type { OnLink } from './on-link.js';
import type { OrderHandler, OrderKinds } from './orders.js';
import type { Recorder, RecordFields, RecordKinds } from './records.js';
import type { Replies } from './replies.js';
import type { Rules } from './rules.js';
import type { TimerCallback } from './timers.js';

export type { SharedState };

type Counters = Readonly<Record<string, string>>;
type State = Readonly<Record<string, StateDefinition>>;

/** The objects of a state declaration, opened in this thread. */
type Opened<S extends State> = {
  readonly [Name in keyof S]: S[Name] extends StateDefinition<infer T> ? T : StateObject;
};

/**
 * Processes every packet of the worker's batch that is not dropped. `now` is in coarse seconds
 * (shm/clock.ts).
 */
export type Process = (now: number) => void;

export interface TimerOptions {
  /** On every worker (the default), or on one worker of the instance: the worker in slot 0. */
  readonly on?: 'every' | 'one';
}

/** The rules among the options. */
type RulesOf<O extends Options> = {
  readonly [Name in keyof O as O[Name] extends Option<'rules', unknown> ? Name : never]: Rules;
};

export interface OpenArguments<O extends Options, C extends Counters, S extends State, R extends RecordKinds> {
  /**
   * The values of hot options change in place, between two batches. Read them at each use, or see
   * `onOptions`.
   */
  readonly options: Resolved<O>;
  readonly state: Opened<S>;
  /** The worker's only batch. */
  readonly batch: Batch;
  /** Rewrites of addresses and ports of the batch's packets, collected and applied together. */
  readonly rewrites: Rewrites;
  /** Turns packets into replies to themselves. */
  readonly replies: Replies;
  /** Delays packets until other members have the records of their entries. */
  readonly holds: Holds;
  /** Delays packets that arrive before the state they belong to. */
  readonly early: EarlyReplies;
  /**
   * Column of each declared counter, for `batch.drop(i, counters.x)` and
   * `batch.count1(counters.x)`.
   */
  readonly counters: { readonly [Name in keyof C]: number };
  /**
   * Runs a callback every `seconds` (at least 0.1), between batches, even if no packets arrive
   * (timers.ts). Call it only while the middlebox is being opened. Keep the callback short, because
   * packets wait meanwhile.
   */
  every(seconds: number, callback: TimerCallback, options?: TimerOptions): void;
  /**
   * Runs a callback after values of hot options changed, to recompute what was derived from them.
   * Call it only while the middlebox is being opened.
   */
  onOptions(handler: () => void): void;
  /**
   * Writes lines to the instance's log, limited to some per second. Do not use it for every packet.
   */
  readonly log: MiddleboxLog;
  /**
   * Sets the handler of an operator's order that the middlebox declares. Call it only while the
   * middlebox is being opened.
   */
  onOrder(name: string, handler: OrderHandler): void;
  /** One recorder per declared kind of record: lines for the operator's file and `show records`. */
  readonly records: { readonly [Name in keyof R]: Recorder };
  /** One compiled rule set per option of kind `rules`. Refresh it before each batch (rules.ts). */
  readonly rules: RulesOf<O>;
  /** The other members: which are heard, and which lag. */
  readonly members: Members;
  /** Route or wire mode. */
  readonly mode: Mode;
  /** Whether packets can be IPv6. */
  readonly ipv6: boolean;
  /**
   * Longest IP packet that each port sends, by port index. It follows the system: read it for each
   * packet.
   */
  readonly mtus: Readonly<Int32Array>;
  /**
   * Which source addresses are plausible on a port, judged by its own subnets. It follows the
   * system.
   */
  readonly onLink: OnLink;
  /** Index of the port opposite to `port`, of two ports. */
  otherPort(port: number): number;
  /** Whether the instance is being drained. Make no new state then. */
  draining(): boolean;
}

/** Conditions that the main thread watches for a middlebox while packets pass. */
export interface Watch {
  /** Called twice a second. `now` is in coarse seconds. */
  look(now: number): void;
  /** What an operator should know while it lasts, one sentence each. `status` shows them. */
  conditions(): readonly string[];
}

/**
 * The ports (indices) on the two sides of a middlebox. Middleboxes before it in the chain are on
 * its near side.
 */
export interface Sides {
  readonly near: readonly number[];
  readonly far: readonly number[];
}

/** One end of a flow: an address as text, a port in host order. */
export interface FlowEnd {
  readonly address: string;
  readonly port: number;
}

/** A flow as `show flows` lists it. */
export interface FlowView {
  /** IP protocol number. */
  readonly protocol: number;
  readonly inside: FlowEnd;
  /** The endpoint that the outside sees, if it differs from `inside`. */
  readonly external?: FlowEnd;
  /** The other end. If absent, any. */
  readonly remote?: FlowEnd;
  /**
   * new, answered (by the responder, as seen by another site), established, closing or closed;
   * shared: used by several connections; dead: present, but without effect.
   */
  readonly state: string;
  /** Coarse seconds. `null`: it does not expire. */
  readonly expires: number | null;
}

export interface Middlebox<
  O extends Options = Options,
  C extends Counters = Counters,
  S extends State = State,
  R extends RecordKinds = RecordKinds,
> {
  /**
   * Lower-case word. It is the middlebox's key in the configuration and the prefix of its counters
   * and state objects.
   */
  readonly name: string;
  readonly help: string;
  readonly options: O;
  /** The modes it supports: `['route']` if it needs addresses of its own. Default: any. */
  readonly modes?: readonly Mode[];
  /**
   * Whether it handles IPv6. In route mode, the instance takes IPv6 from the kernel if any
   * middlebox of the chain handles it, and then all of them receive it. Otherwise IPv6 stays with
   * the kernel. A wire always carries IPv6.
   */
  readonly ipv6?: boolean;
  /**
   * Whether it `rewrites` addresses, or `watches` both directions of a connection by them. Absent:
   * neither. If one chain has both kinds, the one that rewrites must declare its `sides`.
   */
  readonly addresses?: 'rewrites' | 'watches';
  /**
   * Which ports are on which side, if the middlebox rewrites addresses. Packets that arrive by
   * ports of the far side pass the chain from its end to its beginning. So the other middleboxes
   * see both directions with the same addresses (passage.ts).
   */
  sides?(options: Resolved<O>): Sides;
  /**
   * Name → help sentence. Each counter is a metric `<middlebox>_<counter>`. A help sentence that
   * starts with "dropped:" makes the counter a drop reason.
   */
  readonly counters: C;
  /** Name → layout and rendering of a kind of record, which the operator reads line by line. */
  readonly records?: R;
  /** Name → an order that an operator can give. Order `unblock` is the command of that name. */
  readonly orders?: OrderKinds;
  state(options: Resolved<O>, shared: SharedState): S;
  /**
   * Addresses that the middlebox answers for (raw IPv4 words), by port. From such a port, only
   * packets to these addresses are taken from the kernel. From a port that no middlebox names,
   * every packet is taken that is not addressed to the host itself.
   */
  owns?(options: Resolved<O>): readonly { readonly port: number; readonly addresses: readonly number[] }[];
  /**
   * Name → rows of its state for an operator. The main thread reads them while everything else goes
   * on. View `blocks` is shown by `show blocks`.
   */
  views?(state: Opened<S>, now: number): Readonly<Record<string, () => Iterable<RecordFields>>>;
  /** Returns what the main thread watches. Called once, when the instance starts. */
  watch?(watched: { readonly options: Resolved<O>; readonly members: Members }): Watch;
  /**
   * Name of a state object, or of something configured → its flows for `show flows`. The main
   * thread reads them while everything else goes on. A `null` lets it do other work before it reads
   * on.
   */
  flows?(
    state: Opened<S>,
    now: number,
    options: Resolved<O>,
  ): Readonly<Record<string, () => Iterable<FlowView | null>>>;
  open(open: OpenArguments<O, C, S, R>): Process;
}

/** Maps listed entries to flow views: `shown(table.entries(now), view)`. `null` stays `null`. */
export function* shown<Entry>(
  entries: Iterable<Entry | null>,
  view: (entry: Entry) => FlowView,
): Generator<FlowView | null> {
  for (const entry of entries) yield entry === null ? null : view(entry);
}

/** Declares a middlebox. The types carry from the declarations to `open`. */
export function defineMiddlebox<
  const O extends Options,
  const C extends Counters,
  S extends State,
  R extends RecordKinds = Record<never, never>,
>(middlebox: Middlebox<O, C, S, R>): Middlebox<O, C, S, R> {
  return middlebox;
}
