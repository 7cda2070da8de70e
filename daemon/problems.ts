/**
 * What is wrong with a running instance, as far as it can tell itself: why its state is `degraded`
 * (lifecycle.ts).
 */

import { ThreadState } from '../shm/control.js';
import type { Instance } from '../workers/instance.js';
import { SKEW_ERROR_MS } from '../workers/replication/clock-skew.js';
import type { PeerStatus } from '../workers/replication/peers.js';
import type { Problem } from './lifecycle.js';

export interface ProblemSources {
  readonly instance: Instance;
  readonly peers: readonly PeerStatus[];
  /** What is wrong with ports, a clause each. */
  readonly ports: readonly string[];
  /** Members that are there, and whose messages are refused; `null`: there is none. */
  readonly refused: string | null;
  /** Whether members know a later incarnation of this instance. */
  readonly isOutrun: boolean;
  /** Why a thread cannot be started again, asked when one is down; `null`: it can. */
  readonly hindrance: () => string | null;
}

/** The texts stay the same as long as the problem does. */
export function findProblems({ instance, peers, ports, refused, isOutrun, hindrance }: ProblemSources): Problem[] {
  const problems: Problem[] = downThreads(instance, hindrance);
  for (const text of ports) problems.push({ kind: 'port', text });
  if (refused !== null) problems.push({ kind: 'refused', text: refused });
  if (instance.metrics.total('state_unit_log_full') > 0)
    problems.push({ kind: 'log', text: 'the log of records is full, because a member lags: new flows may be dropped' });
  const clock = clockProblem(peers, isOutrun);
  if (clock !== null) problems.push({ kind: 'clock', text: clock });
  return problems;
}

function downThreads({ control, slots }: Instance, hindrance: () => string | null): Problem[] {
  const down = Array.from({ length: slots.count }, (_, thread) => thread).filter(
    (thread) => control.state(thread) !== ThreadState.READY,
  );
  const why = down.length === 0 ? null : hindrance();
  return down.map((thread) => ({
    kind: 'thread',
    text: `thread ${slots.name(thread)} is down${why === null ? '' : `: ${why}`}`,
  }));
}

/**
 * Whose clock is wrong, only a majority tells. Of two members both are suspects.
 */
function clockProblem(peers: readonly PeerStatus[], isOutrun: boolean): string | null {
  if (isOutrun) return 'the clock was put back: members know a later incarnation of this instance';
  const compared = peers.filter(({ state, clockSkewMs }) => state === 'heard' && clockSkewMs !== null);
  const apart = compared.filter(({ clockSkewMs }) => Math.abs(clockSkewMs ?? 0) > SKEW_ERROR_MS);
  if (2 * apart.length <= compared.length) return null;
  const names = apart.map(({ name }) => name).join(', ');
  return `the clock differs from that of ${names} by more than ${SKEW_ERROR_MS / 1000} s`;
}
