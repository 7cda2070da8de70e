/**
 * The task of every thread but main: one task per thread slot, run by piscina. It returns when main
 * ends it. If it throws, the supervisor recovers what it left and starts the slot again.
 */

import { threadId as workerThreadId } from 'node:worker_threads';
import { AckBoard } from '../../shm/ack-board.js';
import { Control, Phase, ThreadState } from '../../shm/control.js';
import { EventWriter } from '../../shm/events.js';
import { LogProducer } from '../../shm/log.js';
import { NextHopReader } from '../../shm/next-hops.js';
import type { StateObject } from '../../shm/objects/core/object.js';
import { PortBoardReader } from '../../shm/port-board.js';
import { RecordReader, RecordWriter } from '../../shm/record-ring.js';
import { RuleReader } from '../../shm/rule-board.js';
import { createOnLink } from '../api/on-link.js';
import { Timers } from '../api/timers.js';
import type { Agent } from '../base/agent.js';
import { AfXdpDriver } from '../drivers/af-xdp.js';
import { AfXdpCounts } from '../drivers/af-xdp-metrics.js';
import type { PacketDriver } from '../drivers/driver.js';
import { PcapDriver } from '../drivers/pcap.js';
import { PortFollower } from '../drivers/port-follower.js';
import { assertQueues, queuesOfWorker } from '../drivers/queues.js';
import { interfaceFacts, threadId, threadName, threadPin } from '../native/index.js';
import { Batch } from '../packet/batch.js';
import { openProcesses } from '../plane/chain.js';
import { DataPlane } from '../plane/data-plane.js';
import { createEarlyReplies, NO_EARLY_REPLIES } from '../plane/early-replies.js';
import { createFragmentation } from '../plane/fragmentation.js';
import { createHolds } from '../plane/holds.js';
import { createReplies } from '../plane/replies.js';
import { createRouter } from '../plane/route.js';
import { createWire } from '../plane/wire.js';
import { FaultyReceiver } from '../transport/fault.js';
import { receiveTransport } from '../transport/open.js';
import { BUILD_ID, buildProblem } from './build-id.js';
import { type AfXdpIo, Instance, type InstancePlan, type SharedBuffers, writerId } from './instance.js';
import { applyLive, LiveReader } from './live-values.js';
import { ReceiveAgent } from './receive.js';
import { SendAgent } from './send.js';

/** Interval at which idle workers check for replaced rules, in seconds. */
const RULES_S = 0.1;
/** Interval at which workers check for changed values of hot options, in seconds. */
const LIVE_S = 0.1;
/** Interval at which a worker retries to open the sockets of a port, in seconds. */
const PORTS_S = 0.1;

/** Time for the error to reach main before the thread ends, in milliseconds. */
const EXIT_MS = 20;

export interface ThreadTask {
  /** Build of the instance. */
  readonly build: string;
  readonly thread: number;
  readonly plan: InstancePlan;
  readonly buffers: SharedBuffers;
}

export default async function run({ build, thread, plan, buffers }: ThreadTask): Promise<void> {
  const problem = buildProblem(build, BUILD_ID);
  if (problem !== null) {
    // Another build lays out shared memory differently. The thread exits, so that no later task
    // runs with these modules loaded.
    setTimeout(() => process.exit(1), EXIT_MS);
    throw new Error(problem);
  }
  // From here on, main can end this thread, whatever happens.
  new Control(buffers.control).setPlace(thread, { core: -1, tid: threadId(), worker: workerThreadId });
  const instance = await Instance.open(plan, buffers);
  const { slots } = instance;
  threadName(`ct-${slots.name(thread)}`);
  // A predecessor may have died after it had left the barrier.
  instance.control.barrier.enter(thread);
  if (thread < slots.workers) await runWorker(instance, thread);
  else if (thread === slots.send) await runSend(instance, thread);
  else await runReceive(instance, thread);
  instance.control.setState(thread, ThreadState.STOPPED);
}

/** Pins the thread and reports that it is ready. */
function ready(instance: Instance, thread: number, core: number | null): void {
  if (core !== null) threadPin(core);
  instance.control.setPlace(thread, { core: core ?? -1, tid: threadId(), worker: workerThreadId });
  instance.control.setState(thread, ThreadState.READY);
}

/**
 * Runs a data plane worker until main ends it. `open` opens its packet I/O; tests pass their own.
 */
export async function runWorker(instance: Instance, thread: number, open = openDriver): Promise<void> {
  const { plan, buffers, control, metrics, declaration, slots } = instance;
  const { catalogue } = metrics;
  const row = metrics.row(thread);
  const log = new LogProducer(buffers.logs[thread]);
  const objects = instance.openObjects({ id: writerId(thread), journal: instance.journal(thread), log });
  const takeLive = liveTaker(instance, thread, objects);
  takeLive();
  const ports = plan.routes.length;
  const events = new EventWriter(buffers.events[thread]);
  const facts = new PortBoardReader(buffers.ports, ports, thread);
  const { driver, note, follow } = open(instance, { thread, row, events, facts });
  try {
    const batch = new Batch(driver.memory, row);
    const draining = (): boolean => control.phase !== Phase.RUN;
    const timers = new Timers(row, catalogue);
    timers.every('driver', 1, note);
    timers.every('ports', PORTS_S, follow);
    const replies = createReplies(batch, facts);
    const worker = thread;
    const fragmentation =
      plan.mode === 'wire' ? null : createFragmentation({ batch, driver, mtus: facts.mtu, row, catalogue });
    const { usable } = facts;
    const board = buffers.holds;
    const holds = createHolds({ batch, driver, fragmentation, usable, log, board, worker, row, catalogue });
    const early =
      plan.earlyMsMax === 0
        ? NO_EARLY_REPLIES
        : createEarlyReplies({
            batch,
            driver,
            members: instance.openMembers([]),
            progress: progressOf(buffers.ackBoard),
            msMax: () => plan.earlyMsMax,
            row,
            catalogue,
            every: (owner, seconds, callback) => timers.every(owner, seconds, callback),
          });
    const rules = buffers.rules.map((board) => new RuleReader(board, slots.workers, worker));
    // A timer also runs while no packets come, so main soon learns that the old rules are unused.
    if (rules.length > 0) timers.every('rules', RULES_S, () => refreshAll(rules));
    const handlers: (() => void)[] = [];
    timers.every('options', LIVE_S, () => {
      if (takeLive()) for (const handler of handlers) handler();
    });
    const stages = openProcesses(declaration, objects, {
      batch,
      replies,
      holds,
      early,
      timers,
      events,
      rules,
      onOptions: (handler) => handlers.push(handler),
      records: { writer: new RecordWriter(buffers.records[thread]), row, catalogue },
      orders: new RecordReader(buffers.orders),
      worker,
      row,
      catalogue,
      ports,
      mode: plan.mode,
      mtus: facts.mtu,
      onLink: createOnLink(
        facts,
        plan.routes.map(({ nextHop }) => nextHop),
      ),
      members: (objects) => instance.openMembers(objects),
      draining,
    });
    const neighbours = new NextHopReader(buffers.nextHops, ports);
    const router =
      fragmentation === null
        ? null
        : createRouter(batch, plan.routes, facts, neighbours, replies, catalogue, fragmentation);
    const dataPlane = new DataPlane({
      driver,
      batch,
      facts,
      onFacts: follow,
      stages,
      replies,
      holds,
      early,
      timers,
      log,
      control,
      thread,
      catalogue,
      row,
      router,
      fragmentation,
      wire: plan.mode === 'wire' ? createWire(batch, facts.mtu, replies, catalogue) : null,
      idle: plan.idle,
      frames: plan.frames,
    });
    ready(instance, thread, plan.workerCores[thread]);
    dataPlane.run();
    note();
  } finally {
    driver.close();
  }
}

/**
 * Returns a function that applies new values of hot options, and returns whether there were any.
 */
function liveTaker(instance: Instance, thread: number, objects: readonly StateObject[]): () => boolean {
  const { plan, declaration, buffers, slots } = instance;
  const reader = new LiveReader(buffers.live, slots.count, thread);
  return () => {
    const values = reader.take();
    if (values !== null) applyLive({ plan, declaration, objects }, values);
    return values !== null;
  };
}

/**
 * Returns a function whose value changes with every message that the receive thread takes, after
 * its records were applied.
 */
function progressOf(ackBoard: SharedArrayBuffer): () => number {
  const board = new AckBoard(ackBoard);
  return () => {
    let changes = 0;
    for (let object = 0; object < board.objects; object++) changes = (changes + board.changes(object)) | 0;
    return changes;
  };
}

function refreshAll(rules: readonly RuleReader[]): void {
  for (const reader of rules) reader.refresh();
}

interface OpenDriver {
  readonly driver: PacketDriver;
  /** Adds the driver's own counts to the metrics. Too slow for every batch. */
  note(): void;
  /** Called after the port board changed, and a few times a second. */
  follow(): void;
}

/** What a worker needs to open its packet I/O. */
interface DriverContext {
  readonly thread: number;
  readonly row: Float64Array;
  readonly events: EventWriter;
  readonly facts: PortBoardReader;
}

function openDriver(instance: Instance, context: DriverContext): OpenDriver {
  const { io } = instance.plan;
  const { row, events } = context;
  const { catalogue } = instance.metrics;
  if (io.driver === 'af_xdp') return openAfXdp(instance, io, context);
  const report = (problem: string): void => void events.write('warn', problem);
  const driver = new PcapDriver({ ports: io.ports, pace: io.pace, catalogue, row, report });
  return { driver, note: () => {}, follow: () => {} };
}

function openAfXdp({ plan, metrics, slots }: Instance, io: AfXdpIo, context: DriverContext): OpenDriver {
  const { thread: worker, row, events, facts } = context;
  const { workers } = slots;
  const ports = io.ports.map(({ interface: name }, port) => {
    const mapFd = facts.mapFd[port];
    // The interface has gone since the instance started.
    if (mapFd === -1) return { interface: name, mapFd };
    const { queues } = interfaceFacts(name);
    assertQueues(name, queues, workers);
    return { interface: name, mapFd, queues: queuesOfWorker(queues, worker, workers) };
  });
  let follower: PortFollower | null = null;
  const onGone = (port: number): void => follower?.lost(port);
  const options = { ports, ringSize: io.ringSize, chunks: io.frames, busy: plan.idle === 'spin', onGone, ...io.layout };
  const driver = new AfXdpDriver(options);
  const interfaces = io.ports.map((port) => port.interface);
  const report = (problem: string): void => void events.write('warn', problem);
  const following = new PortFollower({ driver, facts, interfaces, worker, workers, report });
  follower = following;
  // Frames that no worker received are counted by one of them.
  const counts = new AfXdpCounts(driver, worker === 0 ? facts.counterFd : NO_COUNTERS, row, metrics.catalogue);
  return { driver, note: () => counts.note(), follow: () => following.follow() };
}

const NO_COUNTERS = new Int32Array(0);

async function runSend(instance: Instance, thread: number): Promise<void> {
  const { plan, buffers, control, metrics, arena, declaration } = instance;
  const events = new EventWriter(buffers.events[thread]);
  const objects = instance.openObjects(null);
  const takeLive = liveTaker(instance, thread, objects);
  takeLive();
  const agent = new SendAgent({
    settings: plan.replication,
    meaningHash: arena.meaningHash,
    objects,
    look: takeLive,
    logs: buffers.logs,
    ackBoard: buffers.ackBoard,
    holds: buffers.holds,
    sealBoard: buffers.sealBoard,
    unitLogs: buffers.unitLogs,
    foreignLogs: buffers.foreignLogs,
    members: buffers.members,
    control,
    metrics,
    thread,
    onAlarm: (problem, object) => events.write('warn', `${declaration.objects[object].name}: ${problem}`),
  });
  await runAgent(instance, thread, plan.sendCore, agent);
}

async function runReceive(instance: Instance, thread: number): Promise<void> {
  const { plan, buffers, control, metrics, arena, declaration } = instance;
  const events = new EventWriter(buffers.events[thread]);
  const objects = instance.openObjects({ id: writerId(thread), journal: instance.journal(thread), log: null });
  const takeLive = liveTaker(instance, thread, objects);
  takeLive();
  const network = receiveTransport(plan.replication, declaration.objects.length);
  const agent = new ReceiveAgent({
    transport: plan.faults === null ? network : new FaultyReceiver(network, plan.faults),
    settings: plan.replication,
    meaningHash: arena.meaningHash,
    objects,
    look: takeLive,
    ackBoard: buffers.ackBoard,
    foreignLogs: buffers.foreignLogs,
    members: buffers.members,
    sealBoard: buffers.sealBoard,
    rejects: buffers.rejects,
    control,
    metrics,
    thread,
    onAlarm: (problem) => events.write('warn', problem),
    onError: (error, object, origin) =>
      events.write(
        'error',
        `${declaration.objects[object].name}: a record of member ${origin} failed: ${String(error)}`,
      ),
    onSkew: (problem, level) => events.write(level === 2 ? 'error' : 'warn', problem),
  });
  await runAgent(instance, thread, plan.receiveCore, agent);
}

async function runAgent(
  instance: Instance,
  thread: number,
  core: number | null,
  agent: Agent & { run(): Promise<void> },
): Promise<void> {
  try {
    await agent.onStart();
    ready(instance, thread, core);
    await agent.run();
  } finally {
    await agent.onClose();
  }
}
