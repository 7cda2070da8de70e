/**
 * The data that the admin commands show, read from the shared memory of a running instance when it
 * is asked for.
 */

import type { Config } from '../../conf/config.js';
import { AckBoard } from '../../shm/ack-board.js';
import { coarseSeconds } from '../../shm/clock.js';
import { THREAD_STATE_NAMES, ThreadState } from '../../shm/control.js';
import { LogConsumer } from '../../shm/log.js';
import { MemberTable } from '../../shm/members.js';
import type { StateObject } from '../../shm/objects/core/object.js';
import { RecordWriter } from '../../shm/record-ring.js';
import { RejectTable } from '../../shm/reject-table.js';
import { SealBoard } from '../../shm/seal-board.js';
import type { FlowView } from '../../workers/api/middlebox.js';
import { monotonicMs } from '../../workers/base/monotonic.js';
import { BUILD_ID } from '../../workers/engine/build-id.js';
import type { Instance } from '../../workers/engine/instance.js';
import type { DeclaredLink } from '../../workers/plane/chain.js';
import { type PeerStatus, readPeers } from '../../workers/replication/membership/peers.js';
import { REFUSALS } from '../../workers/replication/metrics.js';
import { selfIndex } from '../../workers/replication/settings.js';
import { FailedError, printable } from '../base/command-errors.js';
import { buildOf, version } from '../base/version.js';
import type { OpenPorts } from '../config/ports.js';
import type { InterfaceWatch } from '../host/interface-watch.js';
import type { AgreementWatch } from '../membership/agreement.js';
import { type ListChange, type Members, shownState } from '../membership/members.js';
import type { RefusalWatch } from '../membership/refusals.js';
import { RosterError } from '../membership/roster.js';
import type { RulesKeeper } from '../rules/rules.js';
import type {
  AdminSource,
  CounterRow,
  Drained,
  FlowFilter,
  FlowRow,
  JoinHow,
  KeysInUse,
  LagRow,
  MemberChange,
  MemberRow,
  NewMember,
  ObjectRow,
  PeerRow,
  RecordFigures,
  RecordRow,
  RejectRow,
  Reloaded,
  RuleRow,
  RulesRow,
  Saved,
  Standing,
  Status,
  ThreadRow,
  ViewRow,
} from '../views/source.js';
import { DigestWatch } from './digest-watch.js';
import { lagGauges, type Owed } from './lag-gauges.js';
import { LagWatch } from './lag-watch.js';
import { MiddleboxWatch } from './middlebox-watch.js';
import { packetTotals } from './packet-totals.js';
import type { RecordLog } from './record-log.js';

/** The part of the daemon that the admin commands show and control. */
export interface Running {
  readonly config: Config;
  readonly instance: Instance;
  readonly objects: readonly StateObject[];
  readonly ports: OpenPorts;
  readonly interfaces: InterfaceWatch | null;
  /** Unix time in milliseconds. */
  readonly startedAt: number;
  readonly standing: Standing;
  /** Whether the state is complete, so that its content can be compared with that of peers. */
  readonly isComplete: boolean;
  readonly members: Members;
  readonly refusals: RefusalWatch;
  readonly records: RecordLog;
  readonly rules: RulesKeeper;
  readonly agreement: AgreementWatch;
  /**
   * Called once when a member's content of an object differs although both applied the same
   * records.
   */
  onDiffer(object: number, member: string, slot: number): void;
  drain(): Promise<Drained>;
  join(how: JoinHow): Promise<Standing>;
  restartThread(thread: number): Promise<boolean>;
  reloadKeys(): Promise<KeysInUse>;
  reloadRules(): Promise<RulesRow[]>;
  save(): Promise<Saved>;
  reload(isCheck: boolean): Promise<Reloaded>;
  stop(): Promise<void>;
}

export class InstanceSource implements AdminSource {
  private readonly daemon: Running;
  private readonly board: AckBoard;
  private readonly lags: LagWatch;
  private readonly digests: DigestWatch;
  private readonly memberTable: MemberTable;
  private readonly seals: SealBoard | null;
  private readonly rejectTable: RejectTable;
  private readonly orders: RecordWriter;
  private readonly watch: MiddleboxWatch;

  constructor(daemon: Running) {
    this.daemon = daemon;
    const { ackBoard, sealBoard, rejects, orders } = daemon.instance.buffers;
    this.board = new AckBoard(ackBoard);
    const self = selfIndex(daemon.instance.plan.replication);
    this.lags = new LagWatch(this.board, self);
    this.digests = new DigestWatch({
      board: this.board,
      self,
      ids: () => this.memberIds(),
      isBusy: () => this.unnumbered() > 0,
      onDiffer: (object, slot) => daemon.onDiffer(object, this.memberTable.name(slot), slot),
    });
    this.memberTable = new MemberTable(daemon.instance.buffers.members);
    this.seals = sealBoard === null ? null : new SealBoard(sealBoard);
    this.rejectTable = new RejectTable(rejects);
    this.orders = new RecordWriter(orders);
    this.watch = new MiddleboxWatch(daemon.instance);
  }

  status(): Status {
    const { config, instance, ports, interfaces, startedAt, standing, members } = this.daemon;
    const { control, metrics, slots } = instance;
    const threads = Array.from({ length: slots.count }, (_, thread) => control.state(thread));
    const peers = this.peerStatuses();
    return {
      state: standing.state,
      state_reason: standing.reason,
      version: version(),
      build: BUILD_ID,
      other_builds: this.daemon.agreement.otherReleases(),
      cluster: config.cluster.id,
      member: config.cluster.self.name,
      id: config.cluster.self.id,
      pid: process.pid,
      uptime_s: Math.trunc((Date.now() - startedAt) / 1000),
      middleboxes: config.middleboxes.map(({ name, as }) => as ?? name),
      ports: interfaces?.describe() ?? ports.names,
      transport: `${config.transport.kind}, port ${config.transport.port}`,
      conditions: this.watch.conditions(),
      membership: members.describe(),
      key: this.seals?.readKeys()[0].id ?? null,
      threads: slots.count,
      threads_ready: threads.filter((state) => state === ThreadState.READY).length,
      peers: peers.length,
      peers_reachable: peers.filter((peer) => peer.state === 'heard').length,
      ...packetTotals(metrics, ports.names.length),
    };
  }

  peers(): PeerRow[] {
    return this.peerStatuses().map((peer) => ({
      name: peer.name,
      id: peer.id,
      address: peer.address,
      state: this.isRefused(peer.name) ? 'refused' : shownState(peer),
      rtt_ms: peer.rttMs?.average ?? null,
      rtt_min_ms: peer.rttMs?.minimum ?? null,
      heard_ms_ago: peer.heardMsAgo,
      clock_skew_ms: peer.clockSkewMs,
      key: this.seals?.keyOf(peer.index) || null,
      build: buildOf(this.daemon.agreement.releaseOf(peer.id)),
      attachment: peer.attachment,
      unacknowledged_records: peer.unacknowledged,
      backlog_records: peer.unacknowledged,
      missing_records: peer.missing,
    }));
  }

  objects(): ObjectRow[] {
    const now = coarseSeconds(Date.now());
    const unacknowledged = this.unacknowledgedByObject();
    return this.daemon.objects.map((object, id) => ({
      id,
      delivery: object.delivery,
      digest: object.digest(now),
      records: this.board.sequence(id),
      ...unacknowledged[id],
      differs_from: this.digests.differing(id).map((slot) => this.memberTable.name(slot)),
      figures: object.describe(now),
    }));
  }

  private unacknowledgedByObject(): Owed[] {
    const peers = this.peerStatuses().filter(hasLag);
    return this.daemon.objects.map((_, id) => ({
      name: this.daemon.instance.declaration.objects[id].name,
      unacknowledged_records: Math.max(0, ...peers.map((peer) => peer.objects[id].unacknowledged)),
      error_bound: this.errorBound(
        id,
        peers.map((peer) => peer.objects[id].acknowledgedThrough),
      ),
    }));
  }

  lag(): LagRow[] {
    const peers = this.peerStatuses().filter(hasLag);
    const self = selfIndex(this.daemon.instance.plan.replication);
    const names = new Map(peers.map(({ index, name }) => [index, name]));
    names.set(self, this.daemon.config.cluster.self.name);
    return this.lags.look(names.keys(), monotonicMs()).map(({ object, origin, member, records, ms, through }) => ({
      object: this.daemon.instance.declaration.objects[object].name,
      origin: names.get(origin) ?? String(origin),
      member: names.get(member) ?? String(member),
      missing_records: records,
      lag_ms: ms,
      error_bound: origin === self ? this.errorBound(object, [through]) : null,
    }));
  }

  /** Called several times a second, to measure lags in time and to compare content. */
  look(): PeerStatus[] {
    const peers = this.peerStatuses();
    this.watch.look();
    if (this.daemon.isComplete && peers.length > 0) this.digests.look(this.daemon.objects, coarseSeconds(Date.now()));
    this.lags.look(
      peers.filter(hasLag).map(({ index }) => index),
      monotonicMs(),
    );
    return peers;
  }

  /** Member ids by slot; 0: the slot is free. */
  private memberIds(): number[] {
    const { memberTable: table } = this;
    table.refresh();
    return Array.from({ length: table.slots }, (_, slot) => (table.isMember(slot) ? table.id(slot) : 0));
  }

  /**
   * The largest bound over the given acknowledged sequence numbers; `null`: the object does not
   * count.
   */
  private errorBound(object: number, through: readonly number[]): number | null {
    const { [object]: counted } = this.daemon.objects;
    if (counted.errorBound === undefined) return null;
    return through.reduce((most, sequence) => Math.max(most, counted.errorBound?.(sequence) ?? 0), 0);
  }

  *flows({ object: wanted }: FlowFilter): Generator<FlowRow | null> {
    const now = coarseSeconds(Date.now());
    for (const link of this.daemon.instance.declaration.links)
      for (const [key, list] of Object.entries(
        link.middlebox.flows?.(this.stateOf(link), now, link.options as never) ?? {},
      )) {
        const object = `${link.name}.${key}`;
        if (wanted !== null && wanted !== object) continue;
        for (const flow of list()) yield flow === null ? null : flowRow(object, flow, now);
      }
  }

  /** A middlebox's objects, by the names it gave them. */
  private stateOf({ objectIds }: DeclaredLink): never {
    const objects = Object.entries(objectIds).map(([key, id]) => [key, this.daemon.objects[id]]);
    return Object.fromEntries(objects) as never;
  }

  threads(): ThreadRow[] {
    const { control, slots } = this.daemon.instance;
    return Array.from({ length: slots.count }, (_, slot) => {
      const { core, tid } = control.place(slot);
      return {
        slot,
        name: slots.name(slot),
        state: THREAD_STATE_NAMES[control.state(slot)],
        core: core < 0 ? null : core,
        tid,
        restarts: control.restarts(slot),
        heartbeat: control.heartbeat(slot) >>> 0,
      };
    });
  }

  counters(): CounterRow[] {
    const { metrics, slots } = this.daemon.instance;
    const counted = metrics.catalogue.metrics.map(({ name, help, kind }): CounterRow => {
      const threads = Array.from({ length: slots.count }, (_, thread) => metrics.value(name, thread));
      return { name, help, kind, total: sum(threads), threads };
    });
    const gauges = this.daemon.interfaces?.gauges() ?? [];
    return [
      ...counted,
      ...gauges,
      ...this.daemon.records.counters(),
      ...lagGauges(this.lag(), this.unacknowledgedByObject(), this.daemon.config.cluster.self.name),
    ];
  }

  members(): MemberRow[] {
    const rows = this.daemon.members.rows(this.peerStatuses(), this.daemon.standing.state);
    return rows.map((row) => (row.role === 'member' && this.isRefused(row.name) ? { ...row, state: 'refused' } : row));
  }

  private isRefused(name: string): boolean {
    return this.daemon.refusals.refused.some((member) => member.name === name);
  }

  addMember(member: NewMember): Promise<MemberChange> {
    return this.change('add', (members) => members.add(member));
  }

  removeMember(name: string, force: boolean): Promise<MemberChange> {
    if (!force) this.expectGone(name, 'remove', 'takes it off the list');
    return this.change('remove', (members) => members.remove(name));
  }

  evictMember(name: string, force: boolean): Promise<MemberChange> {
    if (!force) this.expectGone(name, 'evict', 'declares its incarnation dead');
    return this.change('evict', (members) => members.evict(name));
  }

  /** Throws if the member is heard, unless it is leaving and the command is `remove`. */
  private expectGone(name: string, command: string, effect: string): void {
    const peer = this.peerStatuses().find((candidate) => candidate.name === name);
    if (peer?.state !== 'heard' || (peer.leaving && command === 'remove')) return;
    throw new FailedError(
      `${name} was heard ${Math.round(peer.heardMsAgo ?? 0)} ms ago, so it is alive: drain and shutdown take it out of service there, in order; member ${command} ${name} force ${effect} all the same`,
    );
  }

  join(how: JoinHow): Promise<Standing> {
    return this.daemon.join(how);
  }

  rejects(): RejectRow[] {
    const now = monotonicMs();
    return this.rejectTable.rows().map(({ address, count, inherited, reason, at }) => ({
      address,
      refused: count,
      inherited,
      reason: REFUSALS[reason],
      ms_ago: Math.max(0, now - at),
    }));
  }

  reloadKeys(): Promise<KeysInUse> {
    return this.daemon.reloadKeys();
  }

  records(type: string | null): readonly RecordRow[] {
    const { records } = this.daemon;
    if (type !== null && !records.types.includes(type)) {
      const known = records.types.length === 0 ? 'no middlebox has any' : `there are ${records.types.join(', ')}`;
      throw new FailedError(`no records are of type ${printable(type)}; ${known}`);
    }
    return records.rows(type);
  }

  view(name: string): ViewRow[] {
    const now = coarseSeconds(Date.now());
    const { links } = this.daemon.instance.declaration;
    const rows: ViewRow[] = [];
    let known = false;
    for (const link of links) {
      const { name: middlebox } = link;
      const view = link.middlebox.views?.(this.stateOf(link), now)[name];
      if (view === undefined) continue;
      known = true;
      for (const row of view()) rows.push({ ...row, middlebox });
    }
    if (!known) throw new FailedError(`no middlebox of this instance has ${name} to show`);
    return rows;
  }

  order(name: string, text: string): void {
    const { declaration } = this.daemon.instance;
    const kinds = declaration.orders.flatMap((order, kind) => (order.name === name ? [{ ...order, kind }] : []));
    if (kinds.length === 0) throw new FailedError(`no middlebox of this instance takes ${name}`);
    for (const { kind, parse } of kinds) {
      let words: Int32Array;
      try {
        words = parse(text);
      } catch (error) {
        throw new FailedError((error as Error).message);
      }
      if (!this.orders.write(kind, Date.now(), words)) throw new FailedError('the orders before were not taken yet');
    }
  }

  reopenRecords(): Promise<RecordFigures> {
    return this.daemon.records.reopen();
  }

  rules(): RuleRow[] {
    return this.daemon.rules.rows();
  }

  reloadRules(): Promise<RulesRow[]> {
    return this.daemon.reloadRules();
  }

  reload(isCheck: boolean): Promise<Reloaded> {
    return this.daemon.reload(isCheck);
  }

  drain(): Promise<Drained> {
    return this.daemon.drain();
  }

  save(): Promise<Saved> {
    return this.daemon.save();
  }

  shutdown(): void {
    void this.daemon.stop();
  }

  async restart(thread: number): Promise<void> {
    const isEnded = await this.daemon.restartThread(thread);
    if (!isEnded) throw new FailedError('the thread is being started; try again when show threads shows it as ready');
  }

  /**
   * The records of ours that some member has not acknowledged. Each log ring that is not empty
   * counts as one more.
   */
  unacknowledged(): number {
    return Math.max(0, ...this.peerStatuses().map((peer) => peer.unacknowledged)) + this.unnumbered();
  }

  /** Whether every peer that is heard has all of our records. */
  reachableHaveAll(): boolean {
    if (this.unnumbered() > 0) return false;
    return this.peerStatuses().every((peer) => peer.state !== 'heard' || peer.unacknowledged === 0);
  }

  /** Number of log rings with records that the send thread has not taken. */
  private unnumbered(): number {
    const { logs } = this.daemon.instance.buffers;
    return logs.filter((log) => new LogConsumer(log).backlog !== 0).length;
  }

  private async change(what: ListChange, how: (members: Members) => Promise<string>): Promise<MemberChange> {
    const { members } = this.daemon;
    try {
      const name = await how(members);
      const row = this.members().find((member) => member.name === name);
      if (row === undefined) throw new RosterError(`${name} is on the list no more`);
      return { ...row, note: members.note(row, what) };
    } catch (error) {
      throw error instanceof RosterError ? new FailedError(error.message) : error;
    }
  }

  peerStatuses(): PeerStatus[] {
    return readPeers(this.board, this.daemon.instance.plan.replication, monotonicMs(), this.memberTable);
  }
}

/** A dead or departed incarnation has no lag: the member comes back with a snapshot. */
const hasLag = ({ state }: PeerStatus): boolean => state !== 'dead' && state !== 'left';

function flowRow(object: string, flow: FlowView, now: number): FlowRow {
  const { protocol, inside, external = null, remote = null, state, expires } = flow;
  return { object, protocol, inside, external, remote, state, expires_s: expires === null ? null : expires - now };
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
