/**
 * Sums over many runs: faults by kind, and how often each state and transition of the protocol was
 * reached.
 */

import { REPLICATION_METRICS, type ReplicationMetric } from '../../workers/replication/metrics.js';
import { UNREACHED } from './unreached.js';
import type { Outcome } from './world.js';

/** Gauges are not transitions, and socket errors are not the core's. */
const TRANSITIONS = REPLICATION_METRICS.filter(({ kind }) => kind === 'counter')
  .map(({ name }) => name)
  .filter((name) => name !== 'state_rx_errors' && name !== 'state_tx_errors');

interface OfProfile {
  lives: number;
  failed: number;
  remedied: number;
  /** As `Tally.slowest`. */
  slowest: number;
}

const percent = (part: number): string => `${(100 * part).toFixed(0)} %`;

const reasonOf = (name: string): string | undefined => UNREACHED[name as ReplicationMetric];

export class Tally {
  lives = 0;
  failed = 0;
  simulatedMs = 0;
  datagrams = 0;
  operations = 0;
  /** Runs whose members became equal only by snapshots or by restarts. */
  readonly remedied = { snapshots: 0, restarts: 0 };
  readonly profiles = new Map<string, OfProfile>();
  readonly happened = new Map<string, number>();
  private readonly reached = new Map<string, number>();
  /** Longest time to converge, as a fraction of the time allowed. */
  slowest = 0;

  add(profile: string, outcome: Outcome): void {
    this.lives++;
    if (outcome.violation !== null) this.failed++;
    this.simulatedMs += outcome.endMs;
    this.datagrams += outcome.datagrams;
    this.operations += outcome.operations;
    if (outcome.remedy !== null) this.remedied[outcome.remedy]++;
    const of = this.profiles.get(profile) ?? { lives: 0, failed: 0, remedied: 0, slowest: 0 };
    this.profiles.set(profile, of);
    of.lives++;
    if (outcome.remedy !== null) of.remedied++;
    if (outcome.violation !== null) of.failed++;
    else of.slowest = Math.max(of.slowest, outcome.convergedMs / outcome.allowedMs);
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

  /** Errors in the list of counters that no run reaches (unreached.ts); empty if there are none. */
  get misjudged(): string[] {
    return [
      ...this.neverReached.filter((name) => reasonOf(name) === undefined).map((name) => `${name}: no life reached it`),
      ...[...this.reached.keys()]
        .filter((name) => reasonOf(name) !== undefined)
        .map((name) => `${name}: reached, and listed in unreached.ts`),
    ];
  }

  /** One line. All runs are compared at their end, so none is excused. */
  get summary(): string {
    const { snapshots, restarts } = this.remedied;
    return `${this.lives} lives, ${this.failed} divergent, 0 excused; equal only after snapshots: ${snapshots}, after restarts: ${restarts}`;
  }

  /** A report for people. `realMs`: the real time that the runs took on `jobs` threads. */
  report(realMs: number, jobs: number): string {
    const table = (counts: ReadonlyMap<string, number>): string[] =>
      [...counts].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, n]) => `  ${String(n).padStart(10)}  ${name}`);
    const never = this.neverReached;
    const unreached = never.filter((name) => reasonOf(name) === undefined);
    const perLife = (total: number): string => (total / Math.max(1, this.lives)).toFixed(0);
    return [
      'faults injected and other happenings:',
      ...table(this.happened),
      `protocol transitions reached: ${this.reached.size} of ${TRANSITIONS.length}`,
      ...table(this.reached),
      ...(unreached.length > 0 ? [`never reached: ${unreached.join(', ')}`] : []),
      'never reached, with a reason:',
      ...never.filter((name) => reasonOf(name) !== undefined).map((name) => `  ${name}: ${reasonOf(name)}`),
      'profiles: lives, divergent, remedied, slowest convergence (part of what was allowed)',
      ...[...this.profiles]
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([name, { lives, failed, remedied, slowest }]) => {
          const counts = [lives, failed, remedied].map((n) => String(n).padStart(6)).join('');
          return `  ${name.padEnd(12)}${counts}  ${percent(slowest)}`;
        }),
      `slowest convergence: ${percent(this.slowest)} of what was allowed`,
      `per life: ${perLife(this.simulatedMs)} ms simulated, ${perLife(this.operations)} operations, ${perLife(this.datagrams)} datagrams`,
      `${(this.simulatedMs / 1000).toFixed(0)} s simulated in ${(realMs / 1000).toFixed(1)} s on ${jobs} ${jobs === 1 ? 'thread' : 'threads'}: ${(this.simulatedMs / Math.max(1, realMs)).toFixed(0)} times as fast`,
      this.summary,
    ].join('\n');
  }
}
