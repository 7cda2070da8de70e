/**
 * The lifecycle of an instance: its states, and what each change of state does. What `status` says,
 * which hooks run, what systemd is told and how the commands `status` and `join` end all follow
 * from here.
 *
 *     starting ─▶ waiting ◀─▶ joining ─▶ ready ◀─▶ degraded
 *         └───────────┴───────────┴────────┴──────────┴─────▶ draining ─▶ left
 */

import type { HookEvent } from './membership/hooks.js';

export const LIFECYCLE_STATES = ['starting', 'waiting', 'joining', 'ready', 'degraded', 'draining', 'left'] as const;
export type LifecycleState = (typeof LIFECYCLE_STATES)[number];

export interface StateTraits {
  readonly help: string;
  /**
   * Whether the workers run, so that packets pass. systemd is told READY=1 in the first such state.
   */
  readonly takesPackets: boolean;
  /** Of the commands `status` and `join`. */
  readonly exitCode: number;
}

/** Exit codes of `status` and `join`; 1 and 2 mean that a command failed or was wrong. */
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

/** Hooks that a change of state runs; `null`: there is no such change. */
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

/** What is wrong with an instance that takes packets, or was until just now. */
export type ProblemKind = 'thread' | 'port' | 'refused' | 'log' | 'clock';

export interface Problem {
  readonly kind: ProblemKind;
  /** For people; a clause without a full stop. */
  readonly text: string;
}

/** What the state follows from. */
export interface Facts {
  /** `null`: the threads of replication are starting. */
  readonly entry: 'waiting' | 'joining' | 'entered' | null;
  /** `drain` was given, or the instance is stopping. */
  readonly isDraining: boolean;
  readonly hasStopped: boolean;
  readonly problems: readonly Problem[];
}

/**
 * A problem counts once it was seen over so long: a thread that is replaced in a moment is none…
 */
const ONSET_MS: Readonly<Record<ProblemKind, number>> = {
  thread: 3000,
  port: 1000,
  refused: 1000,
  log: 3000,
  clock: 1000,
};
/**
 * …until it was not seen for so long. A thread that fails again and again is ready now and then.
 */
const RECOVERY_MS = 3000;

interface Episode {
  readonly problem: Problem;
  readonly firstAt: number;
  lastAt: number;
}

export interface LifecycleOptions {
  /** Runs the hook; resolves when it has ended. `reason`: the problems, if it is about such. */
  readonly runHook: (event: HookEvent, reason: string) => Promise<void>;
  readonly onChange: (state: LifecycleState, reason: string) => void;
  readonly onError: (text: string) => void;
}

export class Lifecycle {
  state: LifecycleState = 'starting';
  /** The problems that count: those of a degraded instance. */
  problems: readonly Problem[] = [];
  /** Those, and what is wrong right now; not with a thread, which may only be replaced. */
  shown: readonly Problem[] = [];
  private readonly options: LifecycleOptions;
  /** By kind and text. */
  private readonly episodes = new Map<string, Episode>();
  private wasReady = false;
  private hooks: Promise<void> = Promise.resolve();

  constructor(options: LifecycleOptions) {
    this.options = options;
  }

  /** What is wrong, in one line; empty: nothing. */
  get reason(): string {
    return this.problems.map(({ text }) => text).join('; ');
  }

  /**
   * Takes what is so at `now` (ms of a clock that never steps). Resolves when all hooks so far have
   * ended.
   */
  update(facts: Facts, now: number): Promise<void> {
    this.weigh(facts.problems, now);
    const next = stateOf(facts, this.problems);
    if (next === this.state) return this.hooks;
    const change = CHANGES[this.state][next];
    if (change === null) {
      // The state is not left wrong because of a mistake of ours.
      this.options.onError(`the state changes from ${this.state} to ${next}, which should not happen`);
    }
    this.state = next;
    this.options.onChange(next, this.reason);
    const events = (change ?? []).map((event) => (event === 'recovered' && !this.wasReady ? 'ready' : event));
    if (next === 'ready') this.wasReady = true;
    for (const event of events) this.hooks = this.options.runHook(event, this.reason);
    return this.hooks;
  }

  /** Notes which problems count at `now`. */
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
