/** An instance with all its threads, real but for where its packets come from. */

import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { AckBoard } from '../../../shm/ack-board.js';
import { coarseSeconds } from '../../../shm/clock.js';
import { Phase, ThreadState } from '../../../shm/control.js';
import type { StateObject } from '../../../shm/objects/core/object.js';
import { BUILD_ID } from '../../../workers/engine/build-id.js';
import { Instance, type InstancePlan } from '../../../workers/engine/instance.js';
import { adviseMemory } from '../../../workers/native/index.js';
import { FRAME_DEFAULTS } from '../../../workers/packet/parse-link.js';
import {
  clusterIdOf,
  type Member,
  newIncarnation,
  replicationSettings,
} from '../../../workers/replication/settings.js';
import { TALLY_WORDS } from '../../support/paced-driver.js';
import { routePort } from '../support/plane.js';
import type { BusyTask } from './busy-thread.js';

export interface BusyOptions {
  readonly self?: number;
  readonly members?: readonly Member[];
  readonly workers?: number;
  readonly cells?: number;
  readonly packetsPerSecond?: number;
  readonly unitLogBytes?: number;
  readonly backlogBytes?: number;
  readonly middleboxes?: InstancePlan['middleboxes'];
}

export const BUSY = new URL('busy-middlebox.js', import.meta.url).href;

export function member(id: number, port: number): Member {
  return { id, name: `m${id}`, address: '127.0.0.1', port };
}

export class BusySite {
  readonly instance: Instance;
  /** Opened to read only, as main has them. */
  readonly objects: readonly StateObject[];
  private readonly tallies: SharedArrayBuffer;
  private readonly packetsPerSecond: number;
  private readonly threads: Worker[] = [];

  private constructor(instance: Instance, packetsPerSecond: number) {
    this.instance = instance;
    this.objects = instance.openObjects(null);
    this.packetsPerSecond = packetsPerSecond;
    this.tallies = new SharedArrayBuffer(TALLY_WORDS * 8 * instance.slots.workers);
  }

  static async create(options: BusyOptions = {}): Promise<BusySite> {
    const { self = 1, members = [member(1, 0)], workers = 2, cells = 1024, packetsPerSecond = 50_000 } = options;
    const plan: InstancePlan = {
      middleboxes: options.middleboxes ?? [{ module: BUSY, options: { cells, members: Math.max(2, members.length) } }],
      io: { driver: 'pcap', ports: [], pace: 'asap' },
      shared: { form: 'totals', members: Math.max(2, members.length), seed: '' },
      mode: 'route',
      frames: FRAME_DEFAULTS,
      routes: [routePort(), routePort()],
      replication: replicationSettings({
        clusterId: clusterIdOf('busy'),
        self,
        members,
        unitLogBytes: options.unitLogBytes ?? 32 << 20,
        ...(options.backlogBytes !== undefined && { backlogBytes: options.backlogBytes }),
        silentMs: 1000,
        retransmitMsInitial: 50,
      }),
      faults: null,
      idle: 'sleep',
      workerCores: Array.from({ length: workers }, () => null),
      sendCore: null,
      receiveCore: null,
      earlyMsMax: 0,
      logWords: 1 << 16,
    };
    const site = new BusySite(await Instance.create(plan, newIncarnation(), null), packetsPerSecond);
    for (const memory of [site.instance.buffers.arena, site.instance.buffers.locals])
      for (const advice of ['hugepage', 'populate'] as const) adviseMemory(new Uint8Array(memory), advice);
    return site;
  }

  get board(): AckBoard {
    return new AckBoard(this.instance.buffers.ackBoard);
  }

  async start(threads = Array.from({ length: this.instance.slots.count }, (_, thread) => thread)): Promise<void> {
    const { plan, buffers, control } = this.instance;
    for (const thread of threads) {
      const { packetsPerSecond, tallies } = this;
      const task: BusyTask = { build: BUILD_ID, thread, plan, buffers, packetsPerSecond, tallies };
      const worker = new Worker(new URL('busy-thread.js', import.meta.url), { workerData: task });
      this.threads.push(worker);
      let failure: unknown = null;
      worker.on('error', (error) => {
        failure = error;
      });
      while (control.state(thread) !== ThreadState.READY) {
        if (failure !== null) throw failure;
        await sleep(2);
      }
    }
  }

  /** Ends a thread as abruptly as Node can. */
  async kill(thread: number): Promise<void> {
    await this.threads[thread].terminate();
  }

  /** Packets taken, and lost because nobody took them. */
  get packets(): { taken: number; lost: number } {
    const tallies = new Float64Array(this.tallies);
    let taken = 0;
    let lost = 0;
    for (let i = 0; i < tallies.length; i += TALLY_WORDS) {
      taken += tallies[i];
      lost += tallies[i + 1];
    }
    return { taken, lost };
  }

  /** Lets packets arrive, or none. */
  set isLoaded(isLoaded: boolean) {
    const tallies = new Float64Array(this.tallies);
    for (let i = 2; i < tallies.length; i += TALLY_WORDS) tallies[i] = isLoaded ? 0 : 1;
  }

  digests(now = coarseSeconds(Date.now())): string[] {
    return this.objects.map((object) => object.digest(now));
  }

  /** Packets end; replication goes on. */
  async quiet(): Promise<void> {
    const { control, slots } = this.instance;
    control.setPhase(Phase.QUIET);
    while (Array.from({ length: slots.workers }, (_, t) => control.state(t)).some((s) => s !== ThreadState.STOPPED))
      await sleep(2);
  }

  /** Stops all threads. They may be started again. */
  async stop(): Promise<void> {
    const { control } = this.instance;
    control.setPhase(Phase.STOP);
    await Promise.all(
      this.threads.splice(0).map(async (worker) => {
        if (worker.threadId !== -1) await once(worker, 'exit');
      }),
    );
    control.setPhase(Phase.RUN);
  }
}
