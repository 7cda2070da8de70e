/**
 * A data plane over the memory driver, stepped by hand: packets as text in, packets as text out.
 */

import { Control, createControl, Phase } from '../../../shm/control.js';
import { createEventRing, EventReader, EventWriter } from '../../../shm/events.js';
import { createHoldBoard, HoldBoard } from '../../../shm/hold-board.js';
import { createLogRing, LogProducer } from '../../../shm/log.js';
import { type Metric, MetricCatalogue, Metrics } from '../../../shm/metrics.js';
import { createNextHops, NextHopReader } from '../../../shm/next-hops.js';
import { PortBoardReader, PortBoardWriter, type PortFacts, PortState } from '../../../shm/port-board.js';
import { createRecordRing, RecordReader, RecordWriter } from '../../../shm/record-ring.js';
import type { RuleReader } from '../../../shm/rule-board.js';
import { ALONE, MemberState, type Members } from '../../../workers/api/members.js';
import { createOnLink } from '../../../workers/api/on-link.js';
import { Timers } from '../../../workers/api/timers.js';
import type { PacketDriver } from '../../../workers/drivers/driver.js';
import { MemoryDriver } from '../../../workers/drivers/memory.js';
import { portBoardOf } from '../../../workers/engine/instance.js';
import { Batch } from '../../../workers/packet/batch.js';
import { parseMac } from '../../../workers/packet/ethernet.js';
import { FRAME_DEFAULTS, type FrameSettings } from '../../../workers/packet/parse-link.js';
import type { ProcessContext, Stage } from '../../../workers/plane/chain.js';
import { DataPlane, dataPlaneMetrics } from '../../../workers/plane/data-plane.js';
import {
  createEarlyReplies,
  type DataPlaneEarlyReplies,
  NO_EARLY_REPLIES,
} from '../../../workers/plane/early-replies.js';
import { createFragmentation, type Fragmentation } from '../../../workers/plane/fragmentation.js';
import { createHolds, type DataPlaneHolds } from '../../../workers/plane/holds.js';
import type { IdleMode } from '../../../workers/plane/idle.js';
import { createReplies, type DataPlaneReplies } from '../../../workers/plane/replies.js';
import { createRouter, type RoutePort } from '../../../workers/plane/route.js';
import { createWire } from '../../../workers/plane/wire.js';
import { describeFrame, frame, HOST_MAC, ROUTER_MAC } from './frames.js';

/** A time in the range of coarse seconds. */
export const START_MS = Date.UTC(2026, 0, 1);
const PLENTY = 65_535;
export const NEXT_MAC = '02:00:00:00:00:77';

/** A port as most tests want it: the router's address on every port, one next hop. */
export function routePort(port: Partial<RoutePort> = {}): RoutePort {
  return {
    mac: parseMac(ROUTER_MAC),
    address: null,
    mtuBytes: 1500,
    nextHop: parseMac(NEXT_MAC),
    nextHop6: parseMac(NEXT_MAC),
    promiscuous: false,
    ...port,
  };
}

/** Other members as early replies see them. A test changes it; the plane looks twice a second. */
export class SeenMembers {
  /** By slot. */
  readonly heard: boolean[];
  roundTripMs = 50;

  constructor(heard: readonly boolean[]) {
    this.heard = [...heard];
  }

  get members(): Members {
    const { heard } = this;
    return {
      ...ALONE,
      slots: heard.length,
      isMember: () => true,
      state: (slot) => (heard[slot] ? MemberState.CURRENT : MemberState.UNHEARD),
      longestRoundTripMs: () => this.roundTripMs,
    };
  }
}

export interface PlaneOptions {
  /** Packets can wait for the state of these; absent: nothing ever waits. */
  readonly early?: SeenMembers;
  /** The longest time they wait. */
  readonly earlyMsMax?: number;
  readonly metrics?: readonly Metric[];
  readonly ports?: number;
  /** `null`: wire mode. */
  readonly route?: readonly RoutePort[] | null;
  /** MTU of each port in wire mode; by default more than any frame has. */
  readonly wireMtus?: readonly number[];
  /** How frames are read, where not by default. */
  readonly frames?: Partial<FrameSettings>;
  /** `spin` unless told. */
  readonly idle?: IdleMode;
  /** Which of several workers it is, and the hold board of all; absent: the only one. */
  readonly worker?: { readonly index: number; readonly holdBoard: SharedArrayBuffer };
  /** Packet I/O other than the memory driver. */
  readonly openDriver?: (catalogue: MetricCatalogue, row: Float64Array) => PacketDriver;
}

/** A middlebox of a test. */
export type TestProcess = (batch: Batch) => void;

export class Plane {
  /** Where packets are let in and come out, unless there is other I/O. */
  readonly driver: MemoryDriver;
  private readonly io: PacketDriver;
  readonly catalogue: MetricCatalogue;
  readonly metrics: Metrics;
  readonly control = new Control(createControl(1));
  readonly logBuffer: SharedArrayBuffer;
  readonly log: LogProducer;
  readonly nextHops: SharedArrayBuffer;
  readonly ports: number;
  private readonly portBoard: SharedArrayBuffer;
  private readonly facts: PortBoardReader;
  readonly batch: Batch;
  readonly replies: DataPlaneReplies;
  readonly timers: Timers;
  /** As of a cluster of three: the test publishes what the others have. */
  readonly holdBoard: HoldBoard;
  readonly holds: DataPlaneHolds;
  readonly early: DataPlaneEarlyReplies;
  /** What a test counts up where the receive thread would have applied something. */
  applied = 0;
  private readonly fragmentation: Fragmentation | null;
  private readonly eventRing = createEventRing();
  readonly events = new EventWriter(this.eventRing);
  readonly logged = new EventReader(this.eventRing);
  private readonly recordRing = createRecordRing(1 << 16);
  readonly recordWriter = new RecordWriter(this.recordRing);
  readonly recorded = new RecordReader(this.recordRing);
  private readonly orderRing = createRecordRing(0);
  /** What operators order. */
  readonly orders = new RecordWriter(this.orderRing);
  /** In the order of the declaration; of tests that have rules. */
  rules: RuleReader[] = [];
  nowMs = START_MS;
  /** How long early replies wait at most; a test changes it as a reload does. */
  earlyMsMax = 250;
  /**
   * The monotonic clock goes with the wall clock, but for steps of the latter that a test makes.
   */
  steppedMs = 0;
  private readonly idleMode: IdleMode;
  private readonly route: readonly RoutePort[] | null;
  private readonly frames: FrameSettings;
  private readonly worker: number;
  private opened: DataPlane | null = null;

  constructor(options: PlaneOptions = {}) {
    this.ports = options.ports ?? 2;
    this.earlyMsMax = options.earlyMsMax ?? 250;
    this.route = options.route === undefined ? Array.from({ length: this.ports }, () => routePort()) : options.route;
    this.frames = { ...FRAME_DEFAULTS, ...options.frames };
    this.idleMode = options.idle ?? 'spin';
    this.driver = new MemoryDriver({ ports: this.ports });
    this.catalogue = new MetricCatalogue([...dataPlaneMetrics(this.ports), ...(options.metrics ?? [])]);
    this.metrics = new Metrics(this.catalogue, new SharedArrayBuffer(this.catalogue.bytes(1)), 1);
    this.logBuffer = createLogRing(1 << 16);
    this.log = new LogProducer(this.logBuffer);
    this.nextHops = createNextHops(this.ports, 64);
    this.io = options.openDriver?.(this.catalogue, this.metrics.row(0)) ?? this.driver;
    this.batch = new Batch(this.io.memory, this.metrics.row(0));
    this.portBoard = portBoardFor(
      this.route ??
        Array.from({ length: this.ports }, (_, port) => routePort({ mtuBytes: options.wireMtus?.[port] ?? PLENTY })),
    );
    this.facts = new PortBoardReader(this.portBoard, this.ports, 0);
    this.replies = createReplies(this.batch, this.facts);
    this.fragmentation =
      this.route === null
        ? null
        : createFragmentation({
            batch: this.batch,
            driver: this.io,
            mtus: this.facts.mtu,
            row: this.metrics.row(0),
            catalogue: this.catalogue,
          });
    this.worker = options.worker?.index ?? 0;
    const board = options.worker?.holdBoard ?? createHoldBoard(1, 3);
    this.holdBoard = new HoldBoard(board);
    this.holds = createHolds({
      batch: this.batch,
      driver: this.io,
      fragmentation: this.fragmentation,
      usable: this.facts.usable,
      log: this.log,
      board,
      worker: this.worker,
      row: this.metrics.row(0),
      catalogue: this.catalogue,
      clock: () => this.monotonicMs,
    });
    this.timers = new Timers(this.metrics.row(0), this.catalogue, () => this.monotonicMs);
    this.early =
      options.early === undefined
        ? NO_EARLY_REPLIES
        : createEarlyReplies({
            batch: this.batch,
            driver: this.io,
            members: options.early.members,
            progress: () => this.applied,
            msMax: () => this.earlyMsMax,
            row: this.metrics.row(0),
            catalogue: this.catalogue,
            every: (owner, seconds, callback) => this.timers.every(owner, seconds, callback),
            clock: () => this.monotonicMs,
          });
  }

  /** What middleboxes are opened with. */
  get context(): ProcessContext {
    const { batch, replies, holds, early, timers, events, catalogue, ports, control } = this;
    const draining = () => control.phase !== Phase.RUN;
    const row = this.metrics.row(0);
    const mode = this.route === null ? 'wire' : 'route';
    const records = { writer: this.recordWriter, row, catalogue, clock: () => this.nowMs };
    const orders = new RecordReader(this.orderRing);
    const opened = {
      batch,
      replies,
      holds,
      early,
      timers,
      events,
      records,
      orders,
      rules: this.rules,
      worker: this.worker,
      row,
    };
    const nextHops = (this.route ?? []).map(({ nextHop }) => nextHop);
    const onLink = createOnLink(this.facts, nextHops);
    return { ...opened, catalogue, ports, mode, mtus: this.facts.mtu, onLink, draining };
  }

  /** Opens the data plane with this chain. A function gets the plane's batch. */
  open(stages: readonly (Stage | TestProcess)[] = []): DataPlane {
    const reader = new NextHopReader(this.nextHops, this.ports);
    this.opened = new DataPlane({
      driver: this.io,
      batch: this.batch,
      facts: this.facts,
      stages: stages.map((stage) =>
        typeof stage === 'function' ? { name: 'test', process: () => stage(this.batch) } : stage,
      ),
      replies: this.replies,
      holds: this.holds,
      early: this.early,
      timers: this.timers,
      log: this.log,
      control: this.control,
      thread: 0,
      catalogue: this.catalogue,
      row: this.metrics.row(0),
      router:
        this.route === null || this.fragmentation === null
          ? null
          : createRouter(this.batch, this.route, this.facts, reader, this.replies, this.catalogue, this.fragmentation),
      fragmentation: this.fragmentation,
      wire: this.route === null ? createWire(this.batch, this.facts.mtu, this.replies, this.catalogue) : null,
      idle: this.idleMode,
      frames: this.frames,
      clock: () => this.nowMs,
      monotonic: () => this.monotonicMs,
    });
    return this.opened;
  }

  /** Has the kernel say something else of the ports, as main writes it when that happens. */
  setPorts(...changes: Partial<PortFacts>[]): void {
    const { facts } = this;
    new PortBoardWriter(this.portBoard, this.ports).write(
      changes.map((change, port) => ({
        state: PortState.USABLE,
        attachment: 0,
        mapFd: -1,
        counterFd: -1,
        mac: { low: facts.macLow[port], high: facts.macHigh[port] },
        address: facts.hasAddress[port] === 1 ? facts.address[port] : null,
        address6: facts.hasAddress6[port] === 1 ? facts.address6.slice(4 * port, 4 * port + 4) : null,
        mtuBytes: facts.mtu[port],
        ...change,
      })),
    );
  }

  /** Lets packets in, works until all are through, and returns what came out: `port: packet`. */
  pass(...packets: { port: number; frame: Uint8Array }[]): string[] {
    return this.passFrames(...packets).map(({ port, frame }) => `${port}: ${describeFrame(frame)}`);
  }

  passFrames(...packets: { port: number; frame: Uint8Array }[]): { port: number; frame: Uint8Array }[] {
    const plane = this.dataPlane;
    for (const { port, frame } of packets) this.driver.inject(port, frame);
    while (plane.doWork() > 0);
    return this.driver.sent.splice(0);
  }

  get monotonicMs(): number {
    return this.nowMs - this.steppedMs;
  }

  /**
   * Lets time pass without packets, in steps of `stepMs`: rounds enough that the data plane looks
   * at its timers.
   */
  idle(ms: number, stepMs = 50): void {
    for (let passed = 0; passed < ms; passed += stepMs) {
      this.nowMs += stepMs;
      for (let i = 0; i < 256; i++) this.dataPlane.doWork();
    }
  }

  get dataPlane(): DataPlane {
    return this.opened ?? this.open();
  }

  /** Every drop reason and other count that is not zero, traffic and batches left out. */
  counts(): Record<string, number> {
    const counts: Record<string, number> = {};
    for (const { name } of this.catalogue.metrics) {
      if (/^port\d|^batches$|^idle_|^early_replies_wait_ms$/.test(name)) continue;
      const value = this.metrics.total(name);
      if (value !== 0) counts[name] = value;
    }
    return counts;
  }

  /** Sum of all drop reasons. */
  dropped(): number {
    return this.catalogue.metrics
      .filter(({ help }) => help.startsWith('dropped:'))
      .reduce((sum, { name }) => sum + this.metrics.total(name), 0);
  }
}

/** A port board for one worker; its packets come from no interface. */
export function portBoardFor(routes: readonly RoutePort[]): SharedArrayBuffer {
  return portBoardOf({ io: { driver: 'pcap', ports: [], pace: 'asap' }, routes }, 1);
}

/** A packet given as text on a port. */
export function on(port: number, text: string): { port: number; frame: Uint8Array } {
  return { port, frame: frame(text) };
}

export { HOST_MAC, ROUTER_MAC };
