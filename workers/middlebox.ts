/**
 * What a middlebox is: a declaration of its options, its counters and its state, and a function
 * over batches of packets.
 *
 * Everything declared is data. The module is evaluated in every thread; `state` is called with the
 * same resolved options everywhere and so fixes the same arena everywhere; `open` is called once
 * per data plane worker and makes the closures the worker then runs; nothing is made per packet.
 */

import type { Mode, SharedState } from '../options/middlebox.js';
import type { Option, Options, Resolved } from '../options/option.js';
import type { StateDefinition, StateObject } from '../shm/objects/object.js';
import type { Batch } from './batch.js';
import type { EarlyReplies } from './early-replies.js';
import type { Holds } from './holds.js';
import type { Members } from './members.js';
import type { MiddleboxLog } from './middlebox-log.js';
import type { OnLink } from './on-link.js';
import type { OrderHandler, OrderKinds } from './orders.js';
import type { Rewrites } from './packet/rewrite.js';
import type { Recorder, RecordFields, RecordKinds } from './records.js';
import type { Replies } from './replies.js';
import type { Rules } from './rules.js';
import type { TimerCallback } from './timers.js';

export type { SharedState };

export type Counters = Readonly<Record<string, string>>;
export type State = Readonly<Record<string, StateDefinition>>;

/** The objects of a state declaration, opened in this thread. */
export type Opened<S extends State> = {
  readonly [Name in keyof S]: S[Name] extends StateDefinition<infer T> ? T : StateObject;
};

/**
 * Runs over every packet of the batch that is not dropped; `now` is in coarse seconds
 * (shm/clock.ts).
 */
export type Process = (batch: Batch, now: number) => void;

export interface TimerOptions {
  /** On every worker (the default), or on one worker of the instance: that of slot 0. */
  readonly on?: 'every' | 'one';
}

/** The rules among the options. */
export type RulesOf<O extends Options> = {
  readonly [Name in keyof O as O[Name] extends Option<'rules', unknown> ? Name : never]: Rules;
};

export interface OpenArguments<O extends Options, C extends Counters, S extends State, R extends RecordKinds> {
  /**
   * The values of hot options change in place, between two batches: read them when they are used,
   * or see `onOptions`.
   */
  readonly options: Resolved<O>;
  readonly state: Opened<S>;
  /** The worker's one batch: the same with which the process is called. */
  readonly batch: Batch;
  /** Changes to its packets, noted and made together. */
  readonly rewrites: Rewrites;
  /** Packets that become their own answers. */
  readonly replies: Replies;
  /** Packets that wait until other members have what was logged about them. */
  readonly holds: Holds;
  /** Packets that came before the state they belong to, and wait for it. */
  readonly early: EarlyReplies;
  /**
   * Column of each declared counter, for `batch.drop(i, counters.x)` and
   * `batch.count1(counters.x)`.
   */
  readonly counters: { readonly [Name in keyof C]: number };
  /**
   * Has a callback run every so many seconds, a tenth at least, between batches and also while no
   * packets come: see timers.ts. Only while the middlebox is being opened. What it does is to be
   * little: packets wait meanwhile.
   */
  every(seconds: number, callback: TimerCallback, options?: TimerOptions): void;
  /**
   * Has a callback run after values of hot options changed, to derive again what was made of them.
   * Only while it is being opened.
   */
  onOptions(handler: () => void): void;
  /** Lines in the instance's log, some a second at most. Not for every packet. */
  readonly log: MiddleboxLog;
  /**
   * Says what is done when an operator gives an order that the middlebox declares. Only while it is
   * being opened.
   */
  onOrder(name: string, handler: OrderHandler): void;
  /** Each declared kind of record: lines for the operator's file, and `show records`. */
  readonly records: { readonly [Name in keyof R]: Recorder };
  /** Each option of the kind `rules`, compiled: to be refreshed before each batch (rules.ts). */
  readonly rules: RulesOf<O>;
  /** The other members: who is heard, and who is behind. */
  readonly members: Members;
  /** How the instance stands in the network. */
  readonly mode: Mode;
  /** Whether there may be IPv6 among the packets. */
  readonly ipv6: boolean;
  /**
   * Longest IP packet that each port sends, by index. Follows the system: read it for each packet.
   */
  readonly mtus: Readonly<Int32Array>;
  /** Which sources can come in by a port, as far as its own subnets tell. Follows the system. */
  readonly onLink: OnLink;
  /** Index of the port that is not `port`, of two. */
  otherPort(port: number): number;
  /** Whether the instance is being drained: no new state should be made. */
  draining(): boolean;
}

/** What main watches for a middlebox while packets pass. */
export interface Watch {
  /** Twice a second; `now` is in coarse seconds. */
  look(now: number): void;
  /** What an operator should know of while it lasts, a sentence each: `status` shows them. */
  conditions(): readonly string[];
}

/**
 * The ports (indices) on the two sides of a middlebox. Those before it in the chain are on its near
 * side.
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

/** A flow as it is shown. */
export interface FlowView {
  /** IP protocol number. */
  readonly protocol: number;
  readonly inside: FlowEnd;
  /** As which it is seen outside, where that is another. */
  readonly external?: FlowEnd;
  /** The other end; absent: any. */
  readonly remote?: FlowEnd;
  /**
   * new, answered (by the responder, as another site saw), established, closing or closed; shared:
   * of several connections; dead: held, and of no effect.
   */
  readonly state: string;
  /** Coarse seconds; null: it does not expire. */
  readonly expires: number | null;
}

export interface Middlebox<
  O extends Options = Options,
  C extends Counters = Counters,
  S extends State = State,
  R extends RecordKinds = RecordKinds,
> {
  /**
   * Lower-case word: its key in the configuration, and the prefix of its counters and state
   * objects.
   */
  readonly name: string;
  readonly help: string;
  readonly options: O;
  /**
   * The ways it can stand in the network: `['route']` where it needs addresses of its own. Default:
   * any.
   */
  readonly modes?: readonly Mode[];
  /**
   * Whether it handles IPv6. In mode route the kernel's IPv6 is taken where some middlebox of the
   * chain does, and all of them get it; without, it stays with the kernel. A wire has IPv6 always.
   */
  readonly ipv6?: boolean;
  /**
   * What it does with addresses: `rewrites` them, or `watches` both directions of a connection by
   * them. Absent: neither. Of two such in one chain the one that rewrites has to say its `sides`.
   */
  readonly addresses?: 'rewrites' | 'watches';
  /**
   * Which ports are on which side of it, where it rewrites addresses. Packets that come in by ports
   * of the far side pass the chain from its end to its beginning, so the other middleboxes see both
   * directions by the same addresses (passage.ts).
   */
  sides?(options: Resolved<O>): Sides;
  /**
   * Name → help sentence. Each is a metric `<middlebox>_<counter>`. A help that starts with
   * "dropped:" is a drop reason.
   */
  readonly counters: C;
  /** Name → layout and rendering of what it tells the operator line by line. */
  readonly records?: R;
  /** Name → what an operator can order it to do: `unblock` is the command of that name. */
  readonly orders?: OrderKinds;
  state(options: Resolved<O>, shared: SharedState): S;
  /**
   * Addresses the middlebox answers for (raw IPv4 words), by port: of such a port only packets to
   * these are taken from the kernel. A port that no middlebox speaks of gives everything that is
   * not addressed to the host itself.
   */
  owns?(options: Resolved<O>): readonly { readonly port: number; readonly addresses: readonly number[] }[];
  /**
   * Name → rows of its state for an operator, read by main while all else goes on: `blocks` is
   * `show blocks`.
   */
  views?(state: Opened<S>, now: number): Readonly<Record<string, () => Iterable<RecordFields>>>;
  /** What main watches; asked once, when the instance starts. */
  watch?(watched: { readonly options: Resolved<O>; readonly members: Members }): Watch;
  /**
   * Name of a state object, or of what is configured → its flows for `show flows`, read by main
   * while all else goes on; `null` lets it see to other things.
   */
  flows?(
    state: Opened<S>,
    now: number,
    options: Resolved<O>,
  ): Readonly<Record<string, () => Iterable<FlowView | null>>>;
  open(open: OpenArguments<O, C, S, R>): Process;
}

/** Shows entries as they are listed: `shown(table.entries(now), view)`. */
export function* shown<Entry>(
  entries: Iterable<Entry | null>,
  view: (entry: Entry) => FlowView,
): Generator<FlowView | null> {
  for (const entry of entries) yield entry === null ? null : view(entry);
}

/** Declares a middlebox; types carry from the declarations through to `open`. */
export function defineMiddlebox<
  const O extends Options,
  const C extends Counters,
  S extends State,
  R extends RecordKinds = Record<never, never>,
>(middlebox: Middlebox<O, C, S, R>): Middlebox<O, C, S, R> {
  return middlebox;
}
