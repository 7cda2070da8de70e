/**
 * Hooks: programs of the operator's that are run when something happens to the instance, to
 * announce a route or withdraw it.
 *
 * A hook is a program with its arguments, run without a shell. It is told what happened by its
 * environment:
 *
 *     CONSTELLATION_EVENT      ready, degraded, recovered, drain or member_lost
 *     CONSTELLATION_CLUSTER    the cluster's id
 *     CONSTELLATION_SELF       this member's name
 *     CONSTELLATION_MEMBER, _MEMBER_ID, _MEMBER_ADDRESS     of member_lost: who
 *     CONSTELLATION_REASON     of member_lost: silent or evicted; of degraded: what is wrong, in a sentence
 *
 * What it prints goes to the log. One that runs too long is ended with all that it started.
 * Whatever becomes of it, the instance goes on. Hooks run one after the other, in the order of what
 * happened.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Log } from '../log.js';

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

/** What a hook is told beside the event. */
export interface HookDetails {
  /** The member that was lost. */
  readonly member?: { readonly name: string; readonly id: number; readonly address: string };
  readonly reason: string;
}

/** Lines of a hook's output that are logged; a hook that says more is at fault. */
const LINES_MAX = 100;
const LINE_CHARACTERS_MAX = 500;
/** Hooks that wait for their turn; more are dropped, and said so. */
const WAITING_MAX = 64;
/** After the signal to end. */
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

  /** Other hooks from now on. One that runs keeps its time. */
  configure(config: HooksConfig): void {
    this.config = config;
  }

  /**
   * Runs the hook of this event, if there is one; resolves when it has ended, however it did. Never
   * rejects.
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
      // A process group of its own, so that all it started can be ended with it.
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
   * Ends the hook when its time is up. The function returned is for when it has ended by itself.
   */
  private limit(name: string, child: ChildProcess): () => void {
    const signal = (which: NodeJS.Signals): void => {
      try {
        if (child.pid !== undefined) process.kill(-child.pid, which);
      } catch {
        // it is gone
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
