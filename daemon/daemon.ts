/**
 * One instance, from its configuration to the end of its last thread. It starts in order of
 * dependency: state, then replication, then, once it has joined, packets. It stops in the reverse
 * order.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { agreedOptions } from '../conf/agreed.js';
import type { Config, MemberConfig } from '../conf/config.js';
import type { RulesText } from '../options/rules.js';
import { AckBoard } from '../shm/ack-board.js';
import { Phase, ThreadState } from '../shm/control.js';
import { EventReader } from '../shm/events.js';
import { committedPosition, recoverLog } from '../shm/log.js';
import { MemberTable } from '../shm/members.js';
import { NextHopWriter } from '../shm/next-hops.js';
import type { StateObject } from '../shm/objects/core/object.js';
import { PortBoardWriter } from '../shm/port-board.js';
import { RejectTable } from '../shm/reject-table.js';
import { SealBoard } from '../shm/seal-board.js';
import { monotonicMs } from '../workers/base/monotonic.js';
import { BUILD_ID, buildProblem } from '../workers/engine/build-id.js';
import { writeClusterSecret } from '../workers/engine/cluster-secret.js';
import { Instance, type Slots, writerId } from '../workers/engine/instance.js';
import { LiveWriter } from '../workers/engine/live-values.js';
import type { ThreadTask } from '../workers/engine/thread.js';
import { type Declaration, takesIpv6 } from '../workers/plane/chain.js';
import { loadChain } from '../workers/plane/load.js';
import type { ClusterKey } from '../workers/replication/wire/cluster-key.js';
import type { Circle } from '../workers/snapshot/handshake.js';
import type { SnapshotServer } from '../workers/snapshot/server.js';
import { COMMANDS } from './admin/commands/index.js';
import { reloadedLines } from './admin/commands/reload.js';
import { AdminServer } from './admin/server.js';
import { counted } from './base/counted.js';
import type { Log } from './base/log.js';
import { versionText } from './base/version.js';
import { readKeyFileInTime } from './config/key-file.js';
import { planInstance, planMiddleboxes } from './config/plan.js';
import { type OpenPorts, openPorts } from './config/ports.js';
import { mebibytes, prepareArena } from './config/prepare-arena.js';
import { Health } from './health/health.js';
import { InterfaceWatch } from './host/interface-watch.js';
import { LinuxNeighbours } from './host/kernel-neighbours.js';
import { NeighbourWatcher, nextHopsOf } from './host/neighbours.js';
import { Hooks } from './lifecycle/hooks.js';
import { type Slot, ThreadSupervisor } from './lifecycle/threads.js';
import { AgreementWatch } from './membership/agreement.js';
import { openDonor } from './membership/donor.js';
import { Entry } from './membership/entry.js';
import { LossWatch } from './membership/loss-watch.js';
import type { Members } from './membership/members.js';
import { openMembers, type Place, takePlace } from './membership/open.js';
import { RefusalWatch } from './membership/refusals.js';
import { Resync } from './membership/resync.js';
import { StateKeeper } from './membership/state-keeper.js';
import { Reloader } from './reload.js';
import { RulesKeeper, reloadProblem } from './rules/rules.js';
import type { Drained, JoinHow, KeysInUse, Reloaded, RulesRow, Saved, Standing } from './views/source.js';
import { InstanceSource, type Running } from './watch/instance-source.js';
import { RecordLog } from './watch/record-log.js';
import { StartingSource } from './watch/starting-source.js';

/**
 * Intervals at which the main thread checks for silent peers, and reads the threads' event rings.
 */
const LOOK_MS = 100;
const EVENTS_MS = 100;
/**
 * `drain` gives up if the number of unacknowledged records has not decreased for `DRAIN_STALL_MS`.
 * It checks every `DRAIN_LOOK_MS`.
 */
const [DRAIN_STALL_MS, DRAIN_LOOK_MS] = [10_000, 20];
/**
 * Time limit, unless `flushMs` is longer, after QUIET: for the workers to end their rounds and the
 * send thread to deliver its last units.
 */
const QUIET_MS = 2_000;

export class Daemon implements Running {
  config: Config;
  readonly instance: Instance;
  /** Read-only views; opened again after a snapshot was loaded. */
  objects: readonly StateObject[];
  readonly startedAt = Date.now();
  readonly ports: OpenPorts;
  /** `null`: no port has an interface. */
  readonly interfaces: InterfaceWatch | null;
  /** Settles when the instance has stopped. The value is an error if that caused the stop. */
  readonly stopped: Promise<Error | null>;
  readonly members: Members;
  readonly records: RecordLog;
  readonly rules: RulesKeeper;
  readonly log: Log;
  /** The declaration with which the ports were opened. */
  readonly chain: Declaration;
  readonly live: LiveWriter;
  private readonly reloader: Reloader;
  private readonly board: AckBoard;
  private readonly rejectTable: RejectTable;
  readonly hooks: Hooks;
  private readonly entry: Entry;
  private readonly keeper: StateKeeper;
  private readonly health: Health;
  private readonly resync: Resync;
  private donor: SnapshotServer | null = null;
  private readonly losses: LossWatch;
  readonly refusals: RefusalWatch;
  readonly agreement: AgreementWatch;
  private readonly lookTimer: NodeJS.Timeout;
  private readonly source: InstanceSource;
  private readonly supervisor: ThreadSupervisor;
  private readonly events: { readonly name: string; readonly reader: EventReader }[];
  private readonly eventTimer: NodeJS.Timeout;
  private readonly neighbours: NeighbourWatcher;
  private readonly admin: AdminServer;
  private stopping: Promise<void> | null = null;
  private draining: Promise<Drained> | null = null;
  private settleStopped: (error: Error | null) => void = () => {};
  /** Settles when the instance takes packets, or when it never will. */
  private readonly entered: Promise<void>;
  private settleEntered: () => void = () => {};

  /**
   * Starts an instance. Throws with the reason on failure, and leaves nothing behind. When this
   * returns, the instance may still have to join the others: see `standing`. `signal` ends the wait
   * for a slot in the cluster.
   */
  static async start(written: Config, log: Log, signal: AbortSignal): Promise<Daemon> {
    const { keyFile } = written.cluster;
    const keys = keyFile === null ? null : await readKeyFileInTime(keyFile);
    const chain = await loadChain(planMiddleboxes(written), written.shared);
    const starting = new StartingSource(written);
    const admin = await AdminServer.listen(written.admin.socket, starting.source, { commands: COMMANDS, log });
    let ports: OpenPorts | null = null;
    try {
      ports = openPorts(written, chain);
      const place = await takePlace(written, log, AbortSignal.any([signal, starting.ending.signal]), (reason) => {
        starting.waitsFor = reason;
      });
      const instance = await Instance.create(planInstance(place.config, ports), place.incarnation, keys);
      const daemon = new Daemon(place, log, ports, chain, instance, admin);
      starting.hand(daemon.source);
      await daemon.run();
      return daemon;
    } catch (error) {
      const { signal: ended } = starting.ending;
      const reason = ended.aborted ? (ended.reason as Error) : (error as Error);
      starting.close(reason);
      ports?.close();
      await admin.close();
      throw reason;
    }
  }

  /** The later incarnation of this instance that was last logged; 0: none. */
  private outrun = 0;

  private constructor(
    place: Place,
    log: Log,
    ports: OpenPorts,
    chain: Declaration,
    instance: Instance,
    admin: AdminServer,
  ) {
    const { config } = place;
    this.admin = admin;
    this.config = config;
    this.log = log;
    this.ports = ports;
    this.chain = chain;
    this.live = new LiveWriter(instance.buffers.live, instance.slots.count);
    this.reloader = new Reloader(this);
    this.instance = instance;
    this.board = new AckBoard(instance.buffers.ackBoard);
    this.rejectTable = new RejectTable(instance.buffers.rejects);
    this.objects = instance.openObjects(null);
    this.rules = new RulesKeeper(instance);
    this.source = new InstanceSource(this);
    this.hooks = new Hooks(config.hooks, config.cluster.id, config.cluster.self.name, log);
    const onOver = (error: Error): void => void this.stop(error);
    this.members = openMembers({ place, instance, hooks: this.hooks, log, onOver });
    this.losses = new LossWatch({
      onHeard: ({ name }) => log.info(`member ${name} is heard`),
      onLeft: ({ name }) => log.info(`member ${name} has left`),
      onOver: (peer) => {
        // An eviction on our own list was logged when the list changed.
        if (new MemberTable(instance.buffers.members).dead(peer.index) !== 0) return;
        log.warn(`member ${peer.name} is evicted by another member: its present incarnation is declared dead`);
        void this.hooks.run('member_lost', { member: peer, reason: 'evicted' });
      },
      onLost: (peer) => {
        log.warn(`member ${peer.name} is silent: not heard for ${instance.plan.replication.silentMs} ms`);
        void this.hooks.run('member_lost', { member: peer, reason: 'silent' });
      },
    });
    const { replication } = instance.plan;
    this.refusals = new RefusalWatch({
      get keepaliveMs() {
        return replication.keepaliveMs;
      },
      silentMs: replication.silentMs,
      warn: (text) => log.warn(text),
      differs: (id) => this.agreement.problemOf(id),
    });
    this.agreement = new AgreementWatch({
      ...{ instance, members: new MemberTable(instance.buffers.members), circle: this.circle(), log },
      options: agreedOptions(config, (index) => chain.links[index].middlebox.options),
      release: versionText(),
      objects: () => this.objects,
    });
    this.lookTimer = setInterval(() => this.look(), LOOK_MS);
    this.entered = new Promise((resolve) => {
      this.settleEntered = resolve;
    });
    this.stopped = new Promise((resolve) => {
      this.settleStopped = resolve;
    });
    const { slots, buffers, plan, control } = instance;
    this.events = buffers.events.map((buffer, thread) => ({
      name: slots.name(thread),
      reader: new EventReader(buffer),
    }));
    this.records = new RecordLog({
      rings: buffers.records,
      kinds: instance.declaration.records,
      site: config.cluster.self.name,
      file: config.records.file,
      keep: config.records.keep,
      lostByWorkers: () => instance.metrics.total('records_lost'),
      log: (level, text) => log[level](text),
    });
    this.eventTimer = setInterval(() => this.pumpEvents(), EVENTS_MS);
    this.supervisor = new ThreadSupervisor({
      file: new URL('../workers/engine/thread.js', import.meta.url),
      slots: Array.from({ length: slots.count }, (_, thread): Slot => {
        const task: ThreadTask = { build: BUILD_ID, thread, plan, buffers };
        return { thread, name: slots.name(thread), task, restartable: true };
      }),
      control,
      recover: (slot) => this.recover(slot),
      hindrance: buildProblem,
      onEvent: (level, text) => log[level](text),
      onFatal: (error) => void this.stop(error),
    });
    this.keeper = new StateKeeper({
      ...config.stateFile,
      ...{ instance, circle: this.circle(), members: new MemberTable(buffers.members), log },
    });
    this.entry = new Entry({
      keeper: this.keeper,
      instance,
      supervisor: this.supervisor,
      circle: this.circle(),
      isRegistered: place.registration !== null,
      log,
      reopen: () => {
        this.objects = instance.openObjects(null);
        return this.objects;
      },
      refused: () => this.refusals.problem,
    });
    this.health = new Health({
      ...{ instance, board: this.board, entry: this.entry, refusals: this.refusals, hooks: this.hooks, log },
      portAlarms: () => this.interfaces?.alarms ?? [],
      name: `member ${config.cluster.self.name} of ${config.cluster.id}`,
    });
    this.resync = new Resync({ instance, supervisor: this.supervisor, circle: this.circle(), log });
    this.interfaces =
      ports.watched === null
        ? null
        : new InterfaceWatch({
            ...ports.watched,
            board: new PortBoardWriter(buffers.ports, plan.routes.length),
            workers: () => workersOf(slots).filter((thread) => control.state(thread) === ThreadState.READY),
            workerCount: slots.workers,
            log: (level, text) => log[level](text),
          });
    this.neighbours = new NeighbourWatcher({
      writer: new NextHopWriter(buffers.nextHops, plan.routes.length),
      interfaces:
        plan.io.driver === 'af_xdp' && plan.mode === 'route' ? plan.io.ports.map((port) => port.interface) : [],
      nextHops: nextHopsOf(plan.routes, takesIpv6(instance.declaration)),
      ipv6: takesIpv6(instance.declaration),
      kernel: new LinuxNeighbours((problem) => log.warn(problem)),
      log: (level, text) => log[level](text),
    });
  }

  private async run(): Promise<void> {
    try {
      this.announce();
      prepareArena(this.instance, this.log);
      await this.rules.reload();
      await this.records.start();
      // Before packets arrive, so that the first ones have a next hop.
      await this.neighbours.start();
      // Before others can ask for it.
      await this.keeper.find();
      await this.supervisor.start(({ thread }) => thread >= this.instance.slots.workers);
      this.donor = await openDonor({
        ...{ instance: this.instance, circle: this.circle(), entry: this.entry, log: this.log },
        agreed: this.agreement.own,
        onAgreedSent: (id) => this.agreement.noteInformed(id),
        objects: () => this.objects,
        lacks: () => this.resync.lacks,
      });
      if (this.stopping !== null) throw new Error('stopped while starting');
    } catch (error) {
      await this.stop();
      throw error;
    }
    this.health.noteEntering();
    void this.enter().catch((error: Error) => this.stop(error));
  }

  /** Joins the others, then starts the workers. */
  private async enter(): Promise<void> {
    await this.entry.join();
    await this.agreement.settle(() => this.source.peerStatuses());
    await this.supervisor.start();
    if (this.stopping !== null) return;
    this.health.noteEntered();
    this.resync.start(this.entry.unmet);
    this.look();
    this.nameUnheard();
    this.settleEntered();
  }

  private nameUnheard(): void {
    const never = this.source.peerStatuses().filter(({ state }) => state === 'never');
    if (never.length === 0) return;
    const names = never.map(({ name, address }) => `${name} (${address})`).join(', ');
    const self = this.config.cluster.self.name;
    this.log.warn(`not heard yet: ${names}: not running, not reachable, or without ${self} on the list there`);
  }

  get standing(): Standing {
    const { progress = null } = this.donor ?? {};
    // Computed now, not at the last interval.
    void this.health.look(this.source.peerStatuses());
    const { state, problems } = this.health;
    const reasons = [...problems.map(({ text }) => text), this.entry.reason];
    reasons.push(...this.agreement.problemsBeside(this.refusals.refused), ...this.agreement.restricted);
    if (this.resync.state !== null) reasons.push(this.resync.state);
    if (progress !== null) reasons.push(`gives member ${progress.member} a snapshot: ${progress}`);
    return { state, reason: reasons.join('; ') };
  }

  get isComplete(): boolean {
    return this.health.isComplete;
  }

  /** What two members must agree on to exchange snapshots. */
  private circle(): Circle {
    const { plan, arena, buffers } = this.instance;
    const board = buffers.sealBoard === null ? null : new SealBoard(buffers.sealBoard);
    return {
      clusterId: plan.replication.clusterId,
      meaningHash: arena.meaningHash,
      // A getter, because keys change while the instance runs.
      get keys() {
        return board?.readKeys() ?? [];
      },
    };
  }

  /** Waits until this instance takes packets, or is about to stop; see `AdminSource.join`. */
  async join(how: JoinHow): Promise<Standing> {
    if (how === 'alone') this.entry.beginAlone();
    if (how === 'lossy') this.entry.acceptLosses();
    await this.entered;
    return this.standing;
  }

  private announce(): void {
    const { log, instance } = this;
    for (const name of this.ports.names) log.info(`port ${name}`);
    for (const note of this.ports.notes) log.warn(note);
    const { members, membership } = this.config.cluster;
    if (instance.buffers.sealBoard === null && (members.length > 1 || membership.kind !== 'static'))
      log.warn('cluster.key_file is not set: state messages are neither encrypted nor authenticated');
    if (instance.plan.faults !== null)
      log.warn('transport.fault is set: what other members send is damaged on purpose');
  }

  /**
   * Recovers what a dead thread left in shared memory: its open operation, its locks, and records
   * that it had not yet published.
   */
  private recover({ thread, name }: Slot): void {
    this.rules.forget(thread);
    this.live.forget(thread);
    this.recoverState(thread, name);
    this.instance.control.ring();
  }

  private recoverState(thread: number, name: string): void {
    const { buffers } = this.instance;
    const log = buffers.logs[thread];
    const position = log === undefined ? 0 : committedPosition(log);
    const journal = this.instance.journal(thread);
    let recovered = 0;
    for (const object of this.objects) recovered += object.recover(writerId(thread), journal, position);
    if (log !== undefined) recoverLog(log);
    if (recovered > 0) this.log.warn(`recovered ${recovered} words that thread ${name} left half changed or locked`);
  }

  /** Whether every thread has shown a heartbeat since the last call. */
  isAlive(): boolean {
    return this.health.isAlive();
  }

  /**
   * Ends a thread. The supervisor then recovers its state and starts it again. Returns false if it
   * is being started.
   */
  restartThread(thread: number): Promise<boolean> {
    return this.supervisor.restart(thread);
  }

  /**
   * Seals with the present keys of the key file. If the file has an error, it rejects and changes
   * nothing.
   */
  async reloadKeys(): Promise<KeysInUse> {
    const { keyFile } = this.config.cluster;
    if (keyFile === null || this.instance.buffers.sealBoard === null)
      throw new Error('cluster.key_file is not set: messages are not sealed');
    return this.sealWith(await readKeyFileInTime(keyFile));
  }

  sealWith(keys: readonly ClusterKey[]): KeysInUse {
    const { buffers, plan } = this.instance;
    const { sealBoard, clusterSecret } = buffers;
    if (sealBoard === null) throw new Error('messages are not sealed');
    const board = new SealBoard(sealBoard);
    board.writeKeys(keys);
    writeClusterSecret(clusterSecret, plan.replication.clusterId, keys);
    const accepted = board.readKeys().map(({ id }) => id);
    const [sending] = accepted;
    this.log.info(`keys read again: sending with key ${sending}, accepting ${accepted.join(' and ')}`);
    return { sending, accepted };
  }

  /**
   * Reads all rules again. If any are wrong, it rejects with all errors and says which rules stay
   * in force.
   */
  async reloadRules(): Promise<RulesRow[]> {
    if (!this.rules.any) throw new Error('no middlebox has rules');
    return this.replaceRules(new Map());
  }

  async replaceRules(sources: ReadonlyMap<string, RulesText>): Promise<RulesRow[]> {
    const loaded = await this.rules.reload(sources).catch((error: Error) => {
      throw new Error(reloadProblem(error), { cause: error });
    });
    for (const { middlebox, rules, entries } of loaded)
      this.log.info(`${middlebox}: ${rules} read again: ${counted(entries, 'entry', 'entries')}`);
    return loaded;
  }

  /**
   * Reads the configuration again, with keys and rules, and applies the options that can change at
   * run time. If anything is wrong, it rejects and changes nothing.
   */
  async reload(isCheck = false): Promise<Reloaded> {
    try {
      return await this.reloadNow(isCheck);
    } catch (error) {
      if (!isCheck) this.log.error(`reload: ${(error as Error).message}`);
      throw error;
    }
  }

  private async reloadNow(isCheck: boolean): Promise<Reloaded> {
    const done = await this.reloader.reload(isCheck);
    for (const line of isCheck ? [] : reloadedLines(done, false)) this.log.info(`reload: ${line}`);
    return done;
  }

  /**
   * Handles the signal HUP. The record file is opened again even if the configuration is wrong,
   * because logrotate sends the signal, too.
   */
  async hangUp(): Promise<void> {
    const problems: string[] = [];
    await this.reloadNow(false).catch((error: Error) => problems.push(error.message));
    if (problems.length > 0 && this.config.records.file !== null)
      await this.records.reopen().catch((error: Error) => problems.push(error.message));
    if (problems.length > 0) throw new Error(problems.join('; '));
  }

  takeMember({ name, id, address, slot }: MemberConfig): Promise<unknown> {
    return this.source.addMember({ name, id, address, slot });
  }

  dropMember(name: string): Promise<unknown> {
    return this.source.removeMember(name, false);
  }

  /**
   * Makes no new state. Waits until all peers have acknowledged everything, or until they
   * acknowledge no more.
   */
  drain(): Promise<Drained> {
    this.draining ??= this.drainOnce();
    return this.draining;
  }

  private async drainOnce(): Promise<Drained> {
    await this.entered;
    await this.health.drain();
    this.log.info('draining: no new flows from now on');
    this.instance.control.setPhase(Phase.DRAIN);
    let least = Number.POSITIVE_INFINITY;
    let leastAt = performance.now();
    for (;;) {
      const unacknowledged = this.source.unacknowledged();
      if (unacknowledged === 0) return { complete: true, unacknowledged_records: 0 };
      if (this.stopping !== null) return { complete: false, unacknowledged_records: unacknowledged };
      if (unacknowledged < least) {
        least = unacknowledged;
        leastAt = performance.now();
      } else if (performance.now() - leastAt > DRAIN_STALL_MS) {
        this.draining = null; // a second call waits again
        return { complete: false, unacknowledged_records: unacknowledged };
      }
      await sleep(DRAIN_LOOK_MS);
    }
  }

  /** Stops in order. `error` is the cause if nobody asked for the stop. */
  stop(error: Error | null = null): Promise<void> {
    this.stopping ??= this.stopOnce(error);
    return this.stopping;
  }

  private async stopOnce(error: Error | null): Promise<void> {
    const { control, plan } = this.instance;
    const hooks = this.health.drain();
    this.entry.close();
    this.rules.close();
    await this.resync.close();
    await this.agreement.close();
    this.settleEntered();
    if (error !== null) this.log.error(error.message);
    await hooks;
    await this.admin.close();
    await this.donor?.close();
    // From here on, packets go to the kernel again.
    control.setPhase(Phase.QUIET);
    this.interfaces?.close();
    this.ports.close();
    this.neighbours.close();
    const deadline = performance.now() + Math.max(QUIET_MS, plan.replication.flushMs);
    while (error === null && this.health.tookPackets && performance.now() < deadline && !this.hasLeft())
      await sleep(DRAIN_LOOK_MS);
    const unacknowledged = this.source.unacknowledged();
    if (unacknowledged > 0)
      this.log.warn(`stopping with ${counted(unacknowledged, 'record')} that not every member has acknowledged`);
    control.setPhase(Phase.STOP);
    await this.supervisor.stop();
    if (error === null) await this.members.left();
    this.members.close();
    if (error === null && this.health.tookPackets && this.keeper.file !== null) await this.saveStopped();
    clearInterval(this.lookTimer);
    clearInterval(this.eventTimer);
    this.pumpEvents();
    await this.records.close();
    await this.health.stopped();
    this.settleStopped(error);
  }

  /** Saves the state to its file while the instance runs. Rejects with the reason if that fails. */
  async save(): Promise<Saved> {
    const lack = this.stopping === null ? this.entry.lacksState : 'is stopping';
    if (lack !== null) throw new Error(`this instance ${lack}`);
    const saved = await this.keeper.save(this.objects);
    this.log.info(`saved the state to ${saved.file}: ${mebibytes(saved.bytes)} MiB`);
    return saved;
  }

  private async saveStopped(): Promise<void> {
    const { slots, control } = this.instance;
    for (let thread = 0; thread < slots.count; thread++)
      if (control.state(thread) !== ThreadState.STOPPED) this.recoverState(thread, slots.name(thread));
    try {
      const { file, bytes } = await this.keeper.saveStopped(this.objects);
      this.log.info(`saved the state to ${file}: ${mebibytes(bytes)} MiB`);
    } catch (error) {
      this.log.error(`the state is not saved to ${this.keeper.file}: ${(error as Error).message}`);
    }
  }

  onDiffer(object: number, member: string, slot: number): void {
    const { name } = this.instance.declaration.objects[object];
    this.log.error(`${name}: member ${member} holds something else, though both applied the same records`);
    // The other member finds the same difference and takes our state.
    this.resync.want(`${name} differs from that of ${member}`, [slot]);
  }

  private look(): void {
    const peers = this.source.look();
    this.losses.look(peers);
    this.refusals.look(this.rejectTable.rows(), peers, monotonicMs());
    if (this.donor !== null) this.agreement.look(peers, monotonicMs());
    void this.health.look(peers);
    if (this.board.outrun !== this.outrun && this.entry.isComplete) {
      this.outrun = this.board.outrun;
      this.log.warn(
        `members know incarnation ${this.outrun} of this instance, which is later than the present one: the clock was put back while they were not heard; a member refuses messages of this one until it has not heard the later one for some seconds`,
      );
    }
    if (this.board.isDeclaredDead && this.stopping === null)
      void this.stop(new Error('the other members declared this incarnation dead; restart the instance'));
  }

  /**
   * Announces that this member leaves. Returns true if every peer that is heard has all of our
   * records, and this member waits for nothing more.
   */
  private hasLeft(): boolean {
    return this.source.reachableHaveAll() && this.entry.leave();
  }

  private pumpEvents(): void {
    for (const { name, reader } of this.events)
      for (const { level, text, fields = {} } of reader.read()) this.log[level](fields, `${name}: ${text}`);
    this.records.pump();
  }
}

function workersOf({ workers }: Slots): number[] {
  return Array.from({ length: workers }, (_, thread) => thread);
}
