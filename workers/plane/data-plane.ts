/**
 * The data plane of one worker. `doWork` shows the life of a packet in order.
 *
 * Each round takes one batch, so the work per round is bounded. It publishes its log records to the
 * send thread once. It reads the wall clock at most once, and once more only to look up early
 * replies. Nothing here waits except `Idle`, in the driver.
 */

import { coarseSeconds } from '../../shm/clock.js';
import { type Control, Phase } from '../../shm/control.js';
import type { LogProducer } from '../../shm/log.js';
import type { Metric, MetricCatalogue } from '../../shm/metrics.js';
import type { PortBoardReader } from '../../shm/port-board.js';
import { MIDDLEBOX_LOG_METRICS } from '../api/middlebox-log.js';
import { RECORD_METRICS } from '../api/records.js';
import { TIMER_METRICS, type Timers } from '../api/timers.js';
import type { Agent } from '../base/agent.js';
import { type Columns, columnsOf, counterMetrics } from '../base/counters.js';
import type { PacketDriver } from '../drivers/driver.js';
import { type Batch, DROPPED } from '../packet/batch.js';
import { createParser, PARSE_METRICS } from '../packet/parse.js';
import type { FrameSettings } from '../packet/parse-link.js';
import { peersOf } from '../packet/ports.js';
import type { Stage } from './chain.js';
import { EARLY_METRICS } from './early-metrics.js';
import type { DataPlaneEarlyReplies } from './early-replies.js';
import { FRAGMENTATION_METRICS, type Fragmentation } from './fragmentation.js';
import { createFragments, FRAGMENT_METRICS, type Fragments } from './fragments.js';
import { type DataPlaneHolds, HOLD_METRICS } from './holds.js';
import { Idle, type IdleMode } from './idle.js';
import { createPassage, PASSAGE_METRICS, type Passage } from './passage.js';
import type { DataPlaneReplies } from './replies.js';
import { ROUTE_METRICS, type Router } from './route.js';
import { createSentCounter, createTraffic, type SentCounter, type Traffic, trafficMetrics } from './traffic.js';
import { WIRE_METRICS, type Wire } from './wire.js';

const COUNTERS = {
  batches: 'batches of packets worked on',
  idle_rounds: 'rounds that found no packet',
  idle_sleeps: 'times the worker slept because no packet came',
  no_egress: 'dropped: no middlebox said by which port the packet leaves',
} as const;

/**
 * Longest sleep while packets are held or wait for their state, in milliseconds. No event wakes the
 * worker when they may leave.
 */
const HELD_SLEEP_MS = 1;
/** Rounds without packets between two checks of the timers. A check costs more than a round. */
const IDLE_ROUNDS = 128;

/** All metrics of a data plane with this many ports. */
export function dataPlaneMetrics(ports: number): Metric[] {
  return [
    ...trafficMetrics(ports),
    ...counterMetrics(COUNTERS),
    ...TIMER_METRICS,
    ...MIDDLEBOX_LOG_METRICS,
    ...RECORD_METRICS,
    ...HOLD_METRICS,
    ...EARLY_METRICS,
    ...FRAGMENT_METRICS,
    ...PARSE_METRICS,
    ...PASSAGE_METRICS,
    ...ROUTE_METRICS,
    ...FRAGMENTATION_METRICS,
    ...WIRE_METRICS,
  ];
}

interface DataPlaneParts {
  readonly driver: PacketDriver;
  /** Over the driver's memory. The processes and the router are made for this batch. */
  readonly batch: Batch;
  /** The current state of the ports. */
  readonly facts: PortBoardReader;
  /** Called between batches after the ports' state changed. */
  readonly onFacts?: () => void;
  /** The chain, in the order of the configuration. */
  readonly stages: readonly Stage[];
  readonly replies: DataPlaneReplies;
  readonly holds: DataPlaneHolds;
  readonly early: DataPlaneEarlyReplies;
  readonly timers: Timers;
  readonly log: LogProducer;
  readonly control: Control;
  /** This thread's slot. */
  readonly thread: number;
  readonly catalogue: MetricCatalogue;
  /** This thread's row of metrics. */
  readonly row: Float64Array;
  /** `null` in wire mode: frames pass with their addresses unchanged. */
  readonly router: Router | null;
  /** Fragments the packets that the router marks. `null` in wire mode. */
  readonly fragmentation: Fragmentation | null;
  /** The work of a wire before and after the middleboxes. `null` in route mode. */
  readonly wire: Wire | null;
  readonly idle: IdleMode;
  /** How frames are parsed. Absent: the defaults. */
  readonly frames?: FrameSettings;
  /** Unix time in milliseconds. Tests and the simulator pass their own. */
  readonly clock?: () => number;
  /** Monotonic time in milliseconds. Tests and the simulator pass their own. */
  readonly monotonic?: () => number;
}

export class DataPlane implements Agent {
  readonly batch: Batch;
  private readonly driver: PacketDriver;
  private readonly replies: DataPlaneReplies;
  private readonly holds: DataPlaneHolds;
  private readonly early: DataPlaneEarlyReplies;
  private readonly fragments: Fragments;
  private readonly timers: Timers;
  private readonly log: LogProducer;
  private readonly control: Control;
  private readonly thread: number;
  private readonly row: Float64Array;
  private readonly router: Router | null;
  private readonly fragmentation: Fragmentation | null;
  private readonly wire: Wire | null;
  private readonly idle: Idle;
  private readonly clock: () => number;
  private emptyRounds = 0;
  /** A timer ran in the last look, so another may be due. */
  private mayBeDue = false;
  private readonly parse: () => void;
  private readonly passage: Passage;
  private readonly traffic: Traffic;
  private readonly counter: SentCounter;
  private readonly columns: Columns<typeof COUNTERS>;
  private readonly facts: PortBoardReader;
  private readonly onFacts: () => void;
  private readonly ports: number;

  constructor(parts: DataPlaneParts) {
    const { driver, batch, catalogue, row, facts } = parts;
    const { ports } = facts;
    this.batch = batch;
    this.driver = driver;
    this.replies = parts.replies;
    this.holds = parts.holds;
    this.early = parts.early;
    this.timers = parts.timers;
    this.log = parts.log;
    this.control = parts.control;
    this.thread = parts.thread;
    this.row = row;
    this.router = parts.router;
    this.fragmentation = parts.fragmentation;
    this.wire = parts.wire;
    this.idle = new Idle({ wait: (ms) => this.rest(ms) }, parts.idle);
    this.clock = parts.clock ?? Date.now;
    const mode = parts.router === null ? 'wire' : 'route';
    const { parse, reparse } = createParser(batch, mode, peersOf(ports), catalogue, parts.frames);
    this.parse = parse;
    this.passage = createPassage({ batch, stages: parts.stages, early: parts.early, reparse, catalogue });
    const { monotonic } = parts;
    this.fragments = createFragments({ batch, driver, row, catalogue, ...(monotonic && { clock: monotonic }) });
    this.counter = createSentCounter(row, catalogue);
    this.traffic = createTraffic(batch, ports, row, catalogue);
    this.columns = columnsOf(catalogue, COUNTERS);
    this.facts = facts;
    this.onFacts = parts.onFacts ?? (() => {});
    this.ports = ports;
  }

  onStart(): void {}

  /** Works until main ends the data plane. */
  run(): void {
    const { barrier } = this.control;
    while (this.control.phase < Phase.QUIET) {
      if (barrier.pausing) barrier.enter(this.thread);
      const work = this.doWork();
      // Never sleep while a timer may be due.
      if (work === 0 && this.mayBeDue) continue;
      if (this.idle.after(work)) {
        this.row[this.columns.idle_sleeps]++;
        this.upkeep(this.clock());
      }
    }
    this.holds.releaseAll();
    this.fragments.dropAll();
    this.early.dropAll();
    this.driver.transmit(this.batch);
  }

  /** One round. Returns the number of packets, including held packets that left in it. */
  doWork(): number {
    const { batch, holds, fragments, early } = this;
    this.control.beat(this.thread);
    if (this.facts.refresh()) this.onFacts();
    const released = holds.held > 0 ? holds.release() : 0;
    if (fragments.held > 0) fragments.expire();
    // Early replies were received before this round, so they continue before later packets of their
    // tuples are received.
    if (early.waiting > 0) early.look(this.clock);
    const waited = early.due > 0 ? early.refill() : 0;
    // The same holds for fragments whose first fragment has arrived.
    const again = waited === 0 && fragments.due > 0 ? fragments.refill() : 0;
    const packets = waited > 0 ? waited : again > 0 ? again : this.driver.receive(batch);
    if (packets === 0) {
      if (released > 0) {
        this.driver.transmit(batch);
        return released;
      }
      this.row[this.columns.idle_rounds]++;
      if (this.mayBeDue || this.emptyRounds++ % IDLE_ROUNDS === 0) this.upkeep(this.clock());
      return 0;
    }
    const unixMs = this.clock();
    const now = coarseSeconds(unixMs);
    if (again === 0 && waited === 0) this.traffic.received();
    this.replies.limit.begin(unixMs);
    if (waited > 0) this.passage.resume(now);
    else {
      this.parse();
      if (this.router !== null) this.router.admit();
      if (this.wire !== null) this.wire.admit();
      if (batch.fragments > 0 || again > 0) fragments.process();
      this.passage.pass(now);
    }
    if (this.router !== null) this.router.dispatch(this.passage.goBack, now);
    if (this.wire !== null) this.wire.dispatch();
    this.settle(batch);
    if (waited > 0) early.done();
    if (holds.asked > 0) holds.take();
    holds.noteLogged();
    // Publish before transmit: records get a head start over the packets they belong to. Waking the
    // send thread is a system call, so it comes after transmit.
    const logged = this.log.publish();
    if (this.fragmentation !== null && this.fragmentation.marked > 0) this.fragmentation.process();
    this.traffic.sending();
    this.driver.transmit(batch);
    if (logged) this.control.ring();
    this.row[this.columns.batches]++;
    this.upkeep(unixMs);
    return packets + released;
  }

  /** Between batches: runs a timer if one is due, and publishes what it logged. */
  private upkeep(unixMs: number): void {
    this.mayBeDue = this.timers.run(unixMs, coarseSeconds(unixMs));
    if (!this.mayBeDue) return;
    this.holds.noteLogged();
    if (this.log.publish()) this.control.ring();
  }

  /**
   * Sleeps until a packet comes. The worker leaves the barrier meanwhile, so nobody waits for it.
   */
  private rest(ms: number): void {
    const { barrier } = this.control;
    barrier.leave(this.thread);
    this.driver.wait(this.holds.held > 0 || this.early.waiting > 0 ? Math.min(ms, HELD_SLEEP_MS) : ms);
    barrier.enter(this.thread);
  }

  /** After this, `egress` is a port to send by, or `DROPPED`. */
  private settle(batch: Batch): void {
    const { usable } = this.facts;
    for (let i = 0; i < batch.count; i++) {
      const egress = batch.egress[i];
      if (egress < DROPPED) batch.forward(i, batch.bypassPort(i));
      const to = batch.egress[i];
      if (to >= this.ports) {
        batch.drop(i, this.columns.no_egress);
      } else if (to >= 0 && usable[to] === 0) {
        batch.egress[i] = DROPPED;
        this.counter.unusable(to);
      }
    }
  }

  onClose(): void {
    this.driver.close();
  }
}
