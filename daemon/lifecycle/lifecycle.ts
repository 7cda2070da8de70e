/**
 * The lifecycle of an instance: its states, and what each change of state does. The output of
 * `status`, the hooks, the notifications to systemd and the exit codes of `status` and `join` all
 * follow from this file.
 *
 *     starting ─▶ waiting ◀─▶ joining ─▶ ready ◀─▶ degraded
 *         └───────────┴───────────┴────────┴──────────┴─────▶ draining ─▶ left
 */

import type { HookEvent } from './hooks.js';

export const LIFECYCLE_STATES = ['starting', 'waiting', 'joining', 'ready', 'degraded', 'draining', 'left'] as const;
export type LifecycleState = (typeof LIFECYCLE_STATES)[number];

interface StateTraits {
  readonly help: string;
  /**
   * Whether the workers run, so that packets pass. The first such state sends READY=1 to systemd.
   */
  readonly takesPackets: boolean;
  /** Exit code of the commands `status` and `join`. */
  readonly exitCode: number;
}

/** Exit codes of `status` and `join`; 1 and 2 mean that a command failed or had a syntax error. */
export const StateExit = { READY: 0, DEGRADED: 3, NOT_READY: 4 } as const;

const { READY, DEGRADED, NOT_READY } = StateExit;

export const STATE_TRAITS: Readonly<Record<LifecycleState, StateTraits>> = {
  starting: { help: 'the threads are starting', takesPackets: false, exitCode: NOT_READY },
  waiting: {
    help: 'it waits for etcd, for other members, or for an operator',
    takesPackets: false,
    exitCode: NOT_READY,
  },
  joining: { help: 'it takes the state of a member, or starts its workers', takesPackets: false, exitCode: NOT_READY },
  ready: { help: 'it takes packets, and nothing is wrong', takesPackets: true, exitCode: READY },
  degraded: { help: 'it takes packets, and something is wrong', takesPackets: true, exitCode: DEGRADED },
  draining: { help: 'it makes no new flows, and is going to stop', takesPackets: true, exitCode: NOT_READY },
  left: { help: 'it has stopped', takesPackets: false, exitCode: NOT_READY },
};

/** Hooks that a change of state runs; `null`: this change cannot happen. */
type Change = readonly HookEvent[] | null;

const none: Change = null;
const quiet: Change = [];

/** By the state before, then by the state after. */
// biome-ignore format: a table
export const CHANGES: Readonly<Record<LifecycleState, Readonly<Record<LifecycleState, Change>>>> = {
  starting: { starting: none, waiting: quiet, joining: quiet, ready: ['ready'], degraded: ['degraded'], draining: quiet, left: quiet },
  waiting: { starting: none, waiting: none, joining: quiet, ready: ['ready'], degraded: ['degraded'], draining: quiet, left: quiet },
  joining: { starting: none, waiting: quiet, joining: none, ready: ['ready'], degraded: ['degraded'], draining: quiet, left: quiet },
  ready: { starting: none, waiting: none, joining: none, ready: none, degraded: ['degraded'], draining: ['drain'], left: ['drain'] },
  degraded: { starting: none, waiting: none, joining: none, ready: ['recovered'], degraded: none, draining: ['drain'], left: ['drain'] },
  draining: { starting: none, waiting: none, joining: none, ready: none, degraded: none, draining: none, left: quiet },
  left: { starting: none, waiting: none, joining: none, ready: none, degraded: none, draining: none, left: none },
};

/** Problems of an instance that takes packets, or did so until just now. */
type ProblemKind = 'thread' | 'port' | 'refused' | 'log' | 'clock';

export interface Problem {
  readonly kind: ProblemKind;
  /** For people; a clause without a full stop. */
  readonly text: string;
}

/** The facts that determine the state. */
export interface Facts {
  /** `null`: the replication threads are starting. */
  readonly entry: 'waiting' | 'joining' | 'entered' | null;
  /** The command `drain` was given, or the instance is stopping. */
  readonly isDraining: boolean;
  readonly hasStopped: boolean;
  readonly problems: readonly Problem[];
}

/**
 * A problem counts once it has been seen over this time. So a thread that is restarted quickly is
 * not a problem.
 */
const ONSET_MS: Readonly<Record<ProblemKind, number>> = {
  thread: 3000,
  port: 1000,
  refused: 1000,
  log: 3000,
  clock: 1000,
};
/**
 * A counted problem ends once it has not been seen for this time. So a thread that fails repeatedly
 * stays a problem although it is ready in between.
 */
const RECOVERY_MS = 3000;

interface Episode {
  readonly problem: Problem;
  readonly firstAt: number;
  lastAt: number;
}

interface LifecycleOptions {
  /** Runs the hook; resolves when it has ended. `reason`: the problems, or empty. */
  readonly runHook: (event: HookEvent, reason: string) => Promise<void>;
  readonly onChange: (state: LifecycleState, reason: string) => void;
  readonly onError: (text: string) => void;
}

export class Lifecycle {
  state: LifecycleState = 'starting';
  /** The problems that count: those of a degraded instance. */
  problems: readonly Problem[] = [];
  /** These, and those seen at this moment, except those of threads, which may be restarting. */
  shown: readonly Problem[] = [];
  private readonly options: LifecycleOptions;
  /** By kind and text. */
  private readonly episodes = new Map<string, Episode>();
  private wasReady = false;
  private hooks: Promise<void> = Promise.resolve();

  constructor(options: LifecycleOptions) {
    this.options = options;
  }

  /** The problems that count, in one line; empty if there are none. */
  get reason(): string {
    return this.problems.map(({ text }) => text).join('; ');
  }

  /**
   * Applies the facts at `now` (ms of a monotonic clock). Resolves when all hooks so far have
   * ended.
   */
  update(facts: Facts, now: number): Promise<void> {
    this.weigh(facts.problems, now);
    const next = stateOf(facts, this.problems);
    if (next === this.state) return this.hooks;
    const change = CHANGES[this.state][next];
    if (change === null) {
      // An internal error must not leave the state wrong, so the change is made all the same.
      this.options.onError(`the state changes from ${this.state} to ${next}, which should not happen`);
    }
    this.state = next;
    this.options.onChange(next, this.reason);
    const events = (change ?? []).map((event) => (event === 'recovered' && !this.wasReady ? 'ready' : event));
    if (next === 'ready') this.wasReady = true;
    for (const event of events) this.hooks = this.options.runHook(event, this.reason);
    return this.hooks;
  }

  /** Updates which problems count at `now`. */
  private weigh(problems: readonly Problem[], now: number): void {
    for (const problem of problems) {
      const key = `${problem.kind} ${problem.text}`;
      const episode = this.episodes.get(key);
      if (episode === undefined) this.episodes.set(key, { problem, firstAt: now, lastAt: now });
      else episode.lastAt = now;
    }
    for (const [key, { lastAt }] of this.episodes) if (now - lastAt >= RECOVERY_MS) this.episodes.delete(key);
    const all = [...this.episodes.values()];
    const counts = ({ problem, firstAt, lastAt }: Episode): boolean => lastAt - firstAt >= ONSET_MS[problem.kind];
    this.problems = all.filter(counts).map(({ problem }) => problem);
    this.shown = all
      .filter((episode) => counts(episode) || (episode.lastAt === now && episode.problem.kind !== 'thread'))
      .map(({ problem }) => problem);
  }
}

function stateOf(facts: Facts, problems: readonly Problem[]): LifecycleState {
  if (facts.hasStopped) return 'left';
  if (facts.isDraining) return 'draining';
  if (facts.entry === null) return 'starting';
  if (facts.entry !== 'entered') return facts.entry;
  return problems.length > 0 ? 'degraded' : 'ready';
}
