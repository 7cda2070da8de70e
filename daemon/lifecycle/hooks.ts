/**
 * Hooks: the operator's programs that run when something happens to the instance, for example to
 * announce or withdraw a route.
 *
 * A hook is a program with its arguments. It runs without a shell. Its environment describes the
 * event:
 *
 *     CONSTELLATION_EVENT      ready, degraded, recovered, drain or member_lost
 *     CONSTELLATION_CLUSTER    the cluster's id
 *     CONSTELLATION_SELF       this member's name
 *     CONSTELLATION_MEMBER, _MEMBER_ID, _MEMBER_ADDRESS     for member_lost: the member
 *     CONSTELLATION_REASON     for member_lost: silent or evicted; for degraded: the problems, in a sentence
 *
 * The output of a hook goes to the log. A hook that runs too long is killed, with all processes
 * that it started. The instance continues whatever happens to a hook. Hooks run one after the
 * other, in the order of the events.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Log } from '../base/log.js';

export const HOOK_EVENTS = ['ready', 'degraded', 'recovered', 'drain', 'member_lost'] as const;
export type HookEvent = (typeof HOOK_EVENTS)[number];

export interface HooksConfig {
  /** Program and arguments. */
  readonly on_ready?: readonly string[] | undefined;
  readonly on_degraded?: readonly string[] | undefined;
  readonly on_recovered?: readonly string[] | undefined;
  readonly on_drain?: readonly string[] | undefined;
  readonly on_member_lost?: readonly string[] | undefined;
  readonly timeout_s: number;
}

/** Details of an event for the hook. */
interface HookDetails {
  /** The member that was lost. */
  readonly member?: { readonly name: string; readonly id: number; readonly address: string };
  readonly reason: string;
}

/** Number of lines of a hook's output that are logged. More output is an error of the hook. */
const LINES_MAX = 100;
const LINE_CHARACTERS_MAX = 500;
/**
 * Number of hooks that may wait for their turn. Further hooks are not run, and an error is logged.
 */
const WAITING_MAX = 64;
/** Time from SIGTERM to SIGKILL. */
const KILL_MS = 1000;

export class Hooks {
  private config: HooksConfig;
  private readonly environment: Readonly<Record<string, string>>;
  private readonly log: Log;
  private last: Promise<void> = Promise.resolve();
  private waiting = 0;

  constructor(config: HooksConfig, cluster: string, self: string, log: Log) {
    this.config = config;
    this.environment = { CONSTELLATION_CLUSTER: cluster, CONSTELLATION_SELF: self };
    this.log = log;
  }

  /** Replaces the hooks from now on. A running hook keeps its time limit. */
  configure(config: HooksConfig): void {
    this.config = config;
  }

  /**
   * Runs the hook of this event, if one is configured. Resolves when it has ended, in whatever way.
   * Never rejects.
   */
  run(event: HookEvent, details?: HookDetails): Promise<void> {
    const command = this.config[`on_${event}`];
    if (command === undefined) return Promise.resolve();
    if (this.waiting >= WAITING_MAX) {
      this.log.error(`hook on_${event} not run: ${this.waiting} hooks are waiting already`);
      return Promise.resolve();
    }
    this.waiting++;
    this.last = this.last
      .then(() => this.runOne(event, command, details))
      .finally(() => {
        this.waiting--;
      });
    return this.last;
  }

  private runOne(event: HookEvent, [program, ...words]: readonly string[], details?: HookDetails): Promise<void> {
    const name = `hook on_${event}`;
    const env = {
      ...process.env,
      ...this.environment,
      CONSTELLATION_EVENT: event,
      ...(details && { CONSTELLATION_REASON: details.reason }),
      ...(details?.member && {
        CONSTELLATION_MEMBER: details.member.name,
        CONSTELLATION_MEMBER_ID: String(details.member.id),
        CONSTELLATION_MEMBER_ADDRESS: details.member.address,
      }),
    };
    return new Promise((resolve) => {
      // A process group of its own, so that all processes that the hook starts can be killed with
      // it.
      const child = spawn(program, words, { env, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
      this.logOutput(name, child);
      const ended = this.limit(name, child);
      child.once('error', (error) => {
        ended();
        this.log.error(`${name}: ${program} cannot be run: ${error.message}`);
        resolve();
      });
      child.once('exit', (code, signal) => {
        ended();
        if (code === 0) this.log.info(`${name}: done`);
        else this.log.error(`${name}: ${program} ${signal === null ? `ended with ${code}` : `was ended by ${signal}`}`);
        resolve();
      });
    });
  }

  private logOutput(name: string, child: ChildProcess): void {
    let lines = 0;
    for (const stream of [child.stdout, child.stderr]) {
      if (stream === null) continue;
      createInterface({ input: stream }).on('line', (line) => {
        if (++lines <= LINES_MAX) this.log.info(`${name}: ${line.slice(0, LINE_CHARACTERS_MAX)}`);
        else if (lines === LINES_MAX + 1) this.log.warn(`${name}: says more, which is not logged`);
      });
    }
  }

  /**
   * Kills the hook when its time is up. The caller calls the returned function when the hook has
   * ended.
   */
  private limit(name: string, child: ChildProcess): () => void {
    const signal = (which: NodeJS.Signals): void => {
      try {
        if (child.pid !== undefined) process.kill(-child.pid, which);
      } catch {
        // it has ended
      }
    };
    let kill: NodeJS.Timeout | undefined;
    const timer = setTimeout(() => {
      this.log.error(`${name}: not done after ${this.config.timeout_s} s; it is ended`);
      signal('SIGTERM');
      kill = setTimeout(() => signal('SIGKILL'), KILL_MS);
    }, this.config.timeout_s * 1000);
    return () => {
      clearTimeout(timer);
      clearTimeout(kill);
    };
  }
}
