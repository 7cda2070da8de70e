/**
 * An instance as its threads see it: a plan (plain data, the same for every thread) and the shared
 * memory that main made for it. Every thread derives the same declaration, arena layout and metric
 * columns from the plan.
 */

import { createAckBoard } from '../../shm/ack-board.js';
import { Arena, createArena, layoutArena } from '../../shm/arena.js';
import { Control, createControl } from '../../shm/control.js';
import { createEventRing } from '../../shm/events.js';
import { createHoldBoard } from '../../shm/hold-board.js';
import { createLogRing } from '../../shm/log.js';
import { MetricCatalogue, Metrics } from '../../shm/metrics.js';
import { createNextHops } from '../../shm/next-hops.js';
import { createJournals, Journal } from '../../shm/objects/core/journal.js';
import type { StateObject, Writer } from '../../shm/objects/core/object.js';
import { createPortBoard, PortBoardWriter, PortState } from '../../shm/port-board.js';
import { createRecordRing } from '../../shm/record-ring.js';
import { createRejectTable } from '../../shm/reject-table.js';
import { createRuleBoard } from '../../shm/rule-board.js';
import { createSealBoard, type SealKey } from '../../shm/seal-board.js';
import { createMembers, type Members } from '../api/members.js';
import type { SharedState } from '../api/middlebox.js';
import { AF_XDP_METRICS } from '../drivers/af-xdp-metrics.js';
import type { FrameLayout } from '../drivers/frame-size.js';
import { PCAP_METRICS, type PcapPort } from '../drivers/pcap.js';
import type { Mode } from '../packet/parse.js';
import type { FrameSettings } from '../packet/parse-link.js';
import { createLocals, type Declaration, openState } from '../plane/chain.js';
import { dataPlaneMetrics } from '../plane/data-plane.js';
import type { IdleMode } from '../plane/idle.js';
import { loadChain, type PlannedMiddlebox } from '../plane/load.js';
import type { RoutePort } from '../plane/route.js';
import { REPLICATION_METRICS } from '../replication/metrics.js';
import { memberTableOf, type ReplicationSettings, selfIndex } from '../replication/settings.js';
import { createForeignLogs } from '../replication/units/foreign-log.js';
import { createUnitLogs } from '../replication/units/unit-log.js';
import type { Faults } from '../transport/fault.js';
import { createClusterSecret } from './cluster-secret.js';

export interface AfXdpIo {
  readonly driver: 'af_xdp';
  /**
   * Interface, and what main attached to it: its XSKMAP, and the counter of frames whose queue has
   * no socket.
   */
  readonly ports: readonly { readonly interface: string; readonly mapFd: number; readonly counterFd: number }[];
  readonly ringSize: number;
  /** Chunks of packet memory per worker, and the layout of frames in them. */
  readonly frames: number;
  readonly layout: FrameLayout;
}

export interface PcapIo {
  readonly driver: 'pcap';
  readonly ports: readonly PcapPort[];
  readonly pace: 'asap' | 'recorded';
}

export interface InstancePlan {
  readonly middleboxes: readonly PlannedMiddlebox[];
  readonly shared: SharedState;
  readonly io: AfXdpIo | PcapIo;
  readonly mode: Mode;
  readonly frames: FrameSettings;
  /**
   * The ports, with the facts about their interfaces at the start. A wire uses only their number.
   */
  readonly routes: readonly RoutePort[];
  readonly replication: ReplicationSettings;
  /** Faults injected into received messages, for tests. `null`: none. */
  readonly faults: Faults | null;
  /** Longest time that an early reply waits, in milliseconds (early-replies.ts). 0: none waits. */
  readonly earlyMsMax: number;
  readonly idle: IdleMode;
  /** Core of each data plane worker. `null`: the kernel chooses. */
  readonly workerCores: readonly (number | null)[];
  readonly sendCore: number | null;
  readonly receiveCore: number | null;
  /** Words of each worker's log ring. */
  readonly logWords: number;
}

export interface SharedBuffers {
  readonly arena: SharedArrayBuffer;
  readonly control: SharedArrayBuffer;
  readonly metrics: SharedArrayBuffer;
  readonly journals: SharedArrayBuffer;
  /**
   * Local memory of the state objects, such as counts per writer and how much of them is
   * replicated. Only this instance uses it.
   */
  readonly locals: SharedArrayBuffer;
  /** The member list, written by main. */
  readonly members: SharedArrayBuffer;
  readonly ackBoard: SharedArrayBuffer;
  /** How far the other members have acknowledged the workers' logs. */
  readonly holds: SharedArrayBuffer;
  /** Keys, and the state that sealing must not lose. null: state messages are not sealed. */
  readonly sealBoard: SharedArrayBuffer | null;
  /**
   * Four words for objects, derived from the key that messages are sealed with (cluster-secret.ts).
   */
  readonly clusterSecret: SharedArrayBuffer;
  /** Sources of refused datagrams. */
  readonly rejects: SharedArrayBuffer;
  readonly unitLogs: SharedArrayBuffer;
  readonly foreignLogs: SharedArrayBuffer;
  readonly nextHops: SharedArrayBuffer;
  /** The current state of the ports. */
  readonly ports: SharedArrayBuffer;
  /** One log ring per worker. */
  readonly logs: readonly SharedArrayBuffer[];
  /** One event ring per thread. */
  readonly events: readonly SharedArrayBuffer[];
  /** Orders from operators to middleboxes, from main to worker 0. */
  readonly orders: SharedArrayBuffer;
  /** One ring of middleboxes' records per worker. */
  readonly records: readonly SharedArrayBuffer[];
  /** Values of hot options, from main to every thread (live-values.ts). */
  readonly live: SharedArrayBuffer;
  /** A board per option of kind `rules`. Main writes the compiled rules. */
  readonly rules: readonly SharedArrayBuffer[];
}

/**
 * Words of a worker's record ring. Between two reads by main it takes about 5000 records of an
 * alert's size.
 */
const RECORD_RING_WORDS = 1 << 17;

/** Thread slots: the workers from 0, then the send and the receive thread. */
export class Slots {
  readonly workers: number;

  constructor(plan: InstancePlan) {
    this.workers = plan.workerCores.length;
  }

  get send(): number {
    return this.workers;
  }

  get receive(): number {
    return this.workers + 1;
  }

  get count(): number {
    return this.workers + 2;
  }

  name(thread: number): string {
    return thread === this.send ? 'send' : thread === this.receive ? 'receive' : `worker-${thread}`;
  }
}

/** A thread's view of the plan and the buffers. Main has one too. */
export class Instance {
  readonly plan: InstancePlan;
  readonly buffers: SharedBuffers;
  readonly slots: Slots;
  readonly declaration: Declaration;
  readonly control: Control;
  readonly metrics: Metrics;
  readonly arena: Arena;

  private constructor(plan: InstancePlan, declaration: Declaration, buffers: SharedBuffers) {
    this.plan = plan;
    this.buffers = buffers;
    this.slots = new Slots(plan);
    this.declaration = declaration;
    this.control = new Control(buffers.control);
    this.metrics = new Metrics(catalogueOf(plan, declaration), buffers.metrics, this.slots.count);
    this.arena = new Arena(buffers.arena, declaration.objects, plan.replication.slots);
  }

  /**
   * Makes the shared memory. Called once, by the main thread. Without `keys`, state messages are
   * not sealed.
   */
  static async create(plan: InstancePlan, incarnation: number, keys: readonly SealKey[] | null): Promise<Instance> {
    const declaration = await loadChain(plan.middleboxes, plan.shared);
    const slots = new Slots(plan);
    const objects = declaration.objects.length;
    const { slots: members, unitLogBytes, foreignLogBytes } = plan.replication;
    return new Instance(plan, declaration, {
      arena: createArena(layoutArena(declaration.objects, plan.replication.slots)),
      control: createControl(slots.count),
      metrics: new SharedArrayBuffer(catalogueOf(plan, declaration).bytes(slots.count)),
      journals: createJournals(slots.count),
      locals: createLocals(declaration, slots.workers).buffer,
      members: memberTableOf(plan.replication),
      ackBoard: createAckBoard(objects, members, incarnation),
      holds: createHoldBoard(slots.workers, members),
      sealBoard: keys === null ? null : createSealBoard(members, keys),
      clusterSecret: createClusterSecret(plan.replication.clusterId, keys),
      rejects: createRejectTable(),
      unitLogs: createUnitLogs(objects, unitLogBytes),
      foreignLogs: createForeignLogs(objects, members, foreignLogBytes),
      nextHops: createNextHops(plan.routes.length),
      ports: portBoardOf(plan, slots.workers),
      logs: Array.from({ length: slots.workers }, () => createLogRing(plan.logWords)),
      events: Array.from({ length: slots.count }, () => createEventRing()),
      rules: declaration.rules.map(() => createRuleBoard(slots.workers)),
      live: createRuleBoard(slots.count),
      orders: createRecordRing(0),
      records: Array.from({ length: slots.workers }, () =>
        createRecordRing(declaration.records.length === 0 ? 0 : RECORD_RING_WORDS),
      ),
    });
  }

  /** Opens what main made. Called by every other thread. */
  static async open(plan: InstancePlan, buffers: SharedBuffers): Promise<Instance> {
    return new Instance(plan, await loadChain(plan.middleboxes, plan.shared), buffers);
  }

  /**
   * Opens the state objects, in the order of their ids. If `writer` is null, they are read only.
   */
  openObjects(writer: Writer | null): StateObject[] {
    const { replication } = this.plan;
    const member = {
      memberIndex: selfIndex(replication),
      memberCount: replication.slots,
      clusterSecret: new Int32Array(this.buffers.clusterSecret),
    };
    const locals = { buffer: this.buffers.locals, stripes: this.slots.workers };
    return openState(this.declaration, this.arena, writer, member, locals);
  }

  /** The other members, with respect to these objects. */
  openMembers(objects: readonly number[]): Members {
    const { ackBoard, members } = this.buffers;
    const { replication } = this.plan;
    const { silentMs } = replication;
    return createMembers({
      ackBoard,
      members,
      self: selfIndex(replication),
      silentMs,
      get keepaliveMs() {
        return replication.keepaliveMs;
      },
      objects,
    });
  }

  journal(thread: number): Journal {
    return new Journal(this.buffers.journals, writerId(thread));
  }
}

/** A port board with the state of the ports at the time they were opened. */
export function portBoardOf({ io, routes }: Pick<InstancePlan, 'io' | 'routes'>, workers: number): SharedArrayBuffer {
  const board = createPortBoard(workers, routes.length);
  new PortBoardWriter(board, routes.length).write(
    routes.map(({ mac, address, address6 = null, networks = [], mtuBytes }, port) => ({
      state: PortState.USABLE,
      attachment: io.driver === 'af_xdp' ? 1 : 0,
      mapFd: io.driver === 'af_xdp' ? io.ports[port].mapFd : -1,
      counterFd: io.driver === 'af_xdp' ? io.ports[port].counterFd : -1,
      mac,
      address,
      address6,
      networks,
      mtuBytes,
    })),
  );
  return board;
}

/** The value of a lock word while the thread has the lock. Never 0. */
export function writerId(thread: number): number {
  return thread + 1;
}

function catalogueOf(plan: InstancePlan, declaration: Declaration): MetricCatalogue {
  return new MetricCatalogue([
    ...dataPlaneMetrics(plan.routes.length),
    ...(plan.io.driver === 'pcap' ? PCAP_METRICS : AF_XDP_METRICS),
    ...declaration.metrics,
    ...REPLICATION_METRICS,
  ]);
}
