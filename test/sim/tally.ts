/** Sums over many lives: faults by kind, and which of the protocol's states and transitions were reached how often. */

import { REPLICATION_METRICS } from '../../workers/replication/metrics.js';
import type { Outcome } from './world.js';

/** Gauges are no transitions; errors of sockets are none of the core's. */
const TRANSITIONS = REPLICATION_METRICS.filter(({ kind }) => kind === 'counter')
  .map(({ name }) => name)
  .filter((name) => name !== 'state_rx_errors' && name !== 'state_tx_errors');

export class Tally {
  lives = 0;
  failed = 0;
  simulatedMs = 0;
  datagrams = 0;
  operations = 0;
  readonly profiles = new Map<string, number>();
  readonly happened = new Map<string, number>();
  private readonly reached = new Map<string, number>();
  /** Longest time to converge, as a part of what was allowed. */
  slowest = 0;

  add(profile: string, outcome: Outcome): void {
    this.lives++;
    if (outcome.violation !== null) this.failed++;
    this.simulatedMs += outcome.endMs;
    this.datagrams += outcome.datagrams;
    this.operations += outcome.operations;
    this.profiles.set(profile, (this.profiles.get(profile) ?? 0) + 1);
    for (const [what, n] of outcome.happened) this.happened.set(what, (this.happened.get(what) ?? 0) + n);
    for (const name of TRANSITIONS) {
      const n = outcome.counters.get(name) ?? 0;
      if (n > 0) this.reached.set(name, (this.reached.get(name) ?? 0) + n);
    }
    if (outcome.violation === null) this.slowest = Math.max(this.slowest, outcome.convergedMs / outcome.allowedMs);
  }

  get neverReached(): string[] {
    return TRANSITIONS.filter((name) => !this.reached.has(name));
  }

  /** For people; `realMs`: how long it took, on so many threads. */
  report(realMs: number, jobs: number): string {
    const table = (counts: ReadonlyMap<string, number>): string[] =>
      [...counts].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, n]) => `  ${String(n).padStart(10)}  ${name}`);
    const never = this.neverReached;
    const perLife = (total: number): string => (total / Math.max(1, this.lives)).toFixed(0);
    return [
      'faults injected and other happenings:',
      ...table(this.happened),
      `protocol transitions reached: ${this.reached.size} of ${TRANSITIONS.length}`,
      ...table(this.reached),
      ...(never.length > 0 ? [`never reached: ${never.join(', ')}`] : []),
      `slowest convergence: ${(100 * this.slowest).toFixed(0)} % of what was allowed`,
      `per life: ${perLife(this.simulatedMs)} ms simulated, ${perLife(this.operations)} operations, ${perLife(this.datagrams)} datagrams`,
      `${(this.simulatedMs / 1000).toFixed(0)} s simulated in ${(realMs / 1000).toFixed(1)} s on ${jobs} ${jobs === 1 ? 'thread' : 'threads'}: ${(this.simulatedMs / Math.max(1, realMs)).toFixed(0)} times as fast`,
      `${this.lives} lives, ${this.failed} divergent`,
    ].join('\n');
  }
}
