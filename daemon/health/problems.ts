/**
 * Finds the problems of a running instance that it can detect itself. They make its state
 * `degraded` (lifecycle.ts).
 */

import { ThreadState } from '../../shm/control.js';
import type { Instance } from '../../workers/engine/instance.js';
import type { PeerStatus } from '../../workers/replication/membership/peers.js';
import { SKEW_ERROR_MS } from '../../workers/replication/receiving/clock-skew.js';
import type { Problem } from '../lifecycle/lifecycle.js';

interface ProblemSources {
  readonly instance: Instance;
  readonly peers: readonly PeerStatus[];
  /** Problems of ports, one clause each. */
  readonly ports: readonly string[];
  /** Members that exist and whose messages are refused; `null`: none. */
  readonly refused: string | null;
  /** Whether members know a later incarnation of this instance. */
  readonly isOutrun: boolean;
  /** Why no thread can be started again; `null`: one can. Called only if a thread is down. */
  readonly hindrance: () => string | null;
}

/** The text of a problem stays the same while the problem lasts. */
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

/** Only a majority can tell which clock is wrong. With two members, both report the problem. */
function clockProblem(peers: readonly PeerStatus[], isOutrun: boolean): string | null {
  if (isOutrun) return 'the clock was put back: members know a later incarnation of this instance';
  const compared = peers.filter(({ state, clockSkewMs }) => state === 'heard' && clockSkewMs !== null);
  const apart = compared.filter(({ clockSkewMs }) => Math.abs(clockSkewMs ?? 0) > SKEW_ERROR_MS);
  if (2 * apart.length <= compared.length) return null;
  const names = apart.map(({ name }) => name).join(', ');
  return `the clock differs from that of ${names} by more than ${SKEW_ERROR_MS / 1000} s`;
}
