/**
 * Tracks the state of one running instance (lifecycle.ts). It collects the facts that determine the
 * state, logs changes, runs hooks, and notifies the service manager.
 */

import type { AckBoard } from '../../shm/ack-board.js';
import { monotonicMs } from '../../workers/base/monotonic.js';
import { buildProblem } from '../../workers/engine/build-id.js';
import type { Instance } from '../../workers/engine/instance.js';
import type { PeerStatus } from '../../workers/replication/membership/peers.js';
import type { Log } from '../base/log.js';
import type { Hooks } from '../lifecycle/hooks.js';
import { type Facts, Lifecycle, type LifecycleState, type Problem, STATE_TRAITS } from '../lifecycle/lifecycle.js';
import { ServiceNotices } from '../lifecycle/notify.js';
import type { Entry } from '../membership/entry.js';
import type { RefusalWatch } from '../membership/refusals.js';
import { Heartbeats } from './heartbeats.js';
import { findProblems } from './problems.js';

interface HealthOptions {
  readonly instance: Instance;
  readonly board: AckBoard;
  readonly entry: Entry;
  readonly refusals: RefusalWatch;
  /** Problems of ports, one clause each. */
  readonly portAlarms: () => readonly string[];
  readonly hooks: Hooks;
  readonly log: Log;
  /** Name of the instance in messages to the service manager. */
  readonly name: string;
}

export class Health {
  private readonly options: HealthOptions;
  private readonly lifecycle: Lifecycle;
  private readonly heartbeats: Heartbeats;
  private readonly notices = new ServiceNotices();
  private isEntering = false;
  private hasEntered = false;
  private isDraining = false;
  private hasStopped = false;

  constructor(options: HealthOptions) {
    const { hooks, instance, log } = options;
    this.options = options;
    this.heartbeats = new Heartbeats(instance.control);
    this.lifecycle = new Lifecycle({
      runHook: (event, reason) => hooks.run(event, reason === '' ? undefined : { reason }),
      onChange: (state, reason) => {
        if (state === 'degraded') log.error(`degraded: ${reason}`);
        else log.info(`is ${state}: ${STATE_TRAITS[state].help}`);
      },
      onError: (text) => log.error(text),
    });
  }

  get state(): LifecycleState {
    return this.lifecycle.state;
  }

  /** Present problems, for people. */
  get problems(): readonly Problem[] {
    return this.lifecycle.shown;
  }

  /** Whether the workers have been started. */
  get tookPackets(): boolean {
    return this.hasEntered;
  }

  /** Whether the state is complete, so that its content can be compared with that of peers. */
  get isComplete(): boolean {
    return this.hasEntered && !this.isDraining;
  }

  /** Whether every thread has shown a heartbeat since the last call. */
  isAlive(): boolean {
    return this.heartbeats.look();
  }

  /** Replication runs, and the instance joins. */
  noteEntering(): void {
    this.isEntering = true;
  }

  /** The workers run. */
  noteEntered(): void {
    this.hasEntered = true;
  }

  /** The instance makes no new flows, or is about to stop. Resolves when the hooks have ended. */
  drain(): Promise<void> {
    this.isDraining = true;
    return this.look([]);
  }

  stopped(): Promise<void> {
    this.hasStopped = true;
    return this.look([]);
  }

  /** Updates the state; called several times a second. Resolves when the hooks have ended. */
  look(peers: readonly PeerStatus[]): Promise<void> {
    const { entry, name } = this.options;
    const now = monotonicMs();
    const facts: Facts = {
      entry: this.entryFact,
      isDraining: this.isDraining,
      hasStopped: this.hasStopped,
      problems: this.isComplete ? this.findProblems(peers) : [],
    };
    const hooks = this.lifecycle.update(facts, now);
    const { state } = this;
    const { takesPackets } = STATE_TRAITS[state];
    const reason = state === 'degraded' ? this.lifecycle.reason : entry.reason;
    this.notices.update({ takesPackets, status: `${name} is ${state}: ${reason}` }, now);
    return hooks;
  }

  private findProblems(peers: readonly PeerStatus[]): Problem[] {
    const { board, instance, portAlarms, refusals } = this.options;
    return findProblems({
      instance,
      peers,
      ports: portAlarms(),
      refused: refusals.problem,
      isOutrun: board.outrun !== 0,
      hindrance: buildProblem,
    });
  }

  private get entryFact(): Facts['entry'] {
    if (this.hasEntered) return 'entered';
    if (!this.isEntering) return null;
    const { entry } = this.options;
    return entry.isComplete || entry.isFetching ? 'joining' : 'waiting';
  }
}
