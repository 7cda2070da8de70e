/**
 * How a simulated instance joins and leaves its cluster: main's part (daemon/membership/entry.ts)
 * in simulated time, around the real state machine. The transfer of a snapshot takes time, and any
 * member may die meanwhile.
 */

import { PeerRecord, VectorRecord } from '../../shm/board-records.js';
import { MemberTable } from '../../shm/members.js';
import { NONE } from '../../shm/none.js';
import { Joining } from '../../workers/replication/membership/joining.js';
import {
  backlogOrigin,
  countAsSent,
  readVectors,
  type SnapshotVectors,
  type Vectors,
  writeVectors,
} from '../../workers/snapshot/vectors.js';
import type { Instance } from './instance.js';
import { restored, type Saved } from './saved.js';
import type { Capture } from './subjects.js';
import type { Merged } from './upkeep.js';

/** Main's polling interval, ms. */
const LOOK_MS = 20;
/** Members answer main's question about their state files within this time, ms. */
const DECIDE_MS = 30;

/** Steps at which a plan may let a member die. */
export const ENTRY_STEPS = ['listening', 'asking', 'copied', 'loading', 'leaving'] as const;
export type EntryStep = (typeof ENTRY_STEPS)[number];

/** What a donor sends to a joiner. */
export interface Snapshot {
  readonly vectors: SnapshotVectors;
  readonly objects: readonly Capture[];
  /** Slots of members whose state the donor has not merged yet. */
  readonly lacks: readonly number[];
  /** What the donor has from merged snapshots only (upkeep.ts). */
  readonly merged: ReadonlyMap<string, Merged>;
}

export class Entry {
  readonly joining: Joining;
  private readonly instance: Instance;
  /**
   * What the loaded snapshot contained of each origin's present incarnation, by object and slot.
   */
  loaded: Vectors = [];
  /** The same of each origin's former incarnation. */
  loadedFormer: Vectors = [];
  /** The floor of each origin that was known when the snapshot was loaded, by object and slot. */
  floors: readonly (readonly number[])[] = [];
  /**
   * Slots of members that were not heard, or were evicted, when the instance asked for its state or
   * began without state. They may not have retained units for it.
   */
  unheard: ReadonlySet<number> = new Set();
  private readonly peer = new PeerRecord();
  private fetching = false;
  private looking = false;

  constructor(instance: Instance, table: SharedArrayBuffer) {
    this.instance = instance;
    this.joining = new Joining(instance.settings, instance.board, new MemberTable(table), instance.localMs);
    this.joining.asksFirst = instance.host.saved.isUsed;
    this.look();
  }

  get isReady(): boolean {
    return this.joining.state === 'ready';
  }

  /** Whether the member in this slot is heard and has state. */
  hasState(slot: number): boolean {
    return this.hears(slot) && !this.peer.isJoining;
  }

  private floorOf(object: number, slot: number): number {
    const vector = new VectorRecord();
    this.instance.board.readReception(object, slot, vector);
    return vector.floor;
  }

  private hears(slot: number): boolean {
    const { peer } = this;
    const { board, settings, localMs } = this.instance;
    peer.floats.fill(0);
    board.readPeer(slot, peer);
    return peer.incarnation !== 0 && localMs - peer.heardAt <= settings.silentMs;
  }

  leave(): void {
    if (!this.isReady) return;
    this.joining.leave();
    this.look();
  }

  /**
   * Whether we hold a part of a backlog. A backlog is folded for us, so its numbers match no other
   * member's units.
   */
  get hasBacklog(): boolean {
    const { board, settings, subjects, localMs } = this.instance;
    const objects = subjects.map(({ receive }) => receive);
    return backlogOrigin(board, objects, settings.silentMs, localMs) !== NONE;
  }

  /**
   * The snapshot that a donor gives. Null: the threads cannot pause together, or a part of a
   * backlog is held.
   */
  capture(): Snapshot | null {
    return this.hasBacklog ? null : this.copy();
  }

  /** The whole state at one moment. Null: the threads cannot pause together. */
  copy(): Snapshot | null {
    const { board, member, subjects } = this.instance;
    if (!this.isReady || this.instance.receiver === null || !this.instance.settle()) return null;
    const objects = subjects.map(({ receive }) => receive);
    countAsSent(board);
    return {
      lacks: this.instance.upkeep.lacks,
      merged: new Map(this.instance.upkeep.merged),
      vectors: readVectors(board, objects, member),
      objects: subjects.map((subject) => subject.capture()),
    };
  }

  private look(): void {
    if (this.looking) return;
    this.looking = true;
    this.instance.every(LOOK_MS, () => {
      const { joining, instance } = this;
      const before = joining.state;
      joining.poll(instance.localMs);
      const { state } = joining;
      if (state !== before) instance.host.happened(`join: ${before} → ${state}`);
      if (state === 'ready' && before === 'listening') this.noteUnheard();
      if (state === 'ready' && before === 'listening' && joining.unmet.length > 0) instance.host.beganAlone(instance);
      if (state === 'listening' || state === 'leaving') instance.host.reachedStep(instance, state);
      if (instance.up && joining.outrunBy !== 0 && !this.fetching) instance.raiseIncarnation(joining.outrunBy);
      if (instance.up && joining.wantsToBegin !== null && !this.fetching) this.decide();
      const donor = joining.wantsSnapshotFrom;
      if (instance.up && donor !== null && !this.fetching) this.fetch(donor);
      if (state === 'left') instance.host.hasLeft(instance);
      this.looking = state !== 'ready' && state !== 'left';
      return this.looking;
    });
  }

  /** Main asks the members that it hears for their state files. */
  private decide(): void {
    const { instance, joining } = this;
    const { host } = instance;
    this.fetching = true;
    host.queue.after(DECIDE_MS, () => {
      this.fetching = false;
      if (!instance.up || joining.state !== 'listening') return;
      const slots = [...instance.settings.members.keys()];
      const decision = host.saved.decide(
        instance,
        slots.filter((slot) => slot !== instance.member && instance.members.isMember(slot) && this.hears(slot)),
      );
      if (decision === 'wait') return;
      if (decision === 'empty') this.begin(null);
      else if (decision.incarnation >= instance.life.incarnation) instance.raiseIncarnation(decision.incarnation);
      else this.restore(decision);
    });
  }

  private noteUnheard(): void {
    const { unmet } = this.joining;
    const slots = [...this.instance.settings.members.keys()];
    this.unheard = new Set(slots.filter((slot) => !this.hears(slot) || unmet.includes(slot)));
  }

  private begin(what: string | null): void {
    const { instance, joining } = this;
    if (!joining.mayBeginNow(instance.localMs)) return;
    this.noteUnheard();
    joining.begin(what);
    instance.host.happened(what === null ? 'join: begun' : 'join: restored');
    if (joining.unmet.length > 0) instance.host.beganAlone(instance);
  }

  private restore(file: Saved): void {
    const { instance, joining } = this;
    this.fetching = true;
    instance.withoutThreads(
      () => {
        if (!joining.mayBeginNow(instance.localMs)) return;
        this.write(restored(file, instance.member));
        this.begin('has restored its state file');
      },
      () => {
        this.fetching = false;
      },
    );
  }

  private fetch(donor: number): void {
    const { instance, joining } = this;
    this.fetching = true;
    instance.host.reachedStep(instance, 'asking');
    if (!instance.up) return;
    this.noteUnheard();
    instance.host.fetchSnapshot(instance, donor, (snapshot) => {
      this.fetching = false;
      if (!instance.up || joining.state !== 'asking') return;
      instance.host.reachedStep(instance, 'loading');
      if (!instance.up) return;
      const refusal =
        typeof snapshot === 'string'
          ? snapshot
          : (joining.refusesDonor(snapshot.lacks, instance.localMs) ?? joining.refuses(snapshot.vectors.present));
      if (typeof snapshot === 'string' || refusal !== null) {
        instance.host.happened(`snapshot: ${refusal === snapshot ? snapshot : 'refused'}`);
        joining.snapshotFailed(refusal ?? '', instance.localMs);
        return;
      }
      const mayLack = snapshot.objects.some(({ ledger }) => ledger?.mayLack);
      for (const slot of mayLack ? [donor] : snapshot.lacks) instance.host.lacking(instance, slot);
      this.load(snapshot, () => {
        instance.host.happened('snapshot: loaded');
        joining.snapshotTaken(snapshot.lacks);
        instance.host.succeeded(instance, snapshot.lacks);
      });
    });
  }

  /** Main writes the snapshot while no thread runs. This takes as long as the plan says. */
  private load(snapshot: Snapshot, done: () => void): void {
    this.instance.withoutThreads(() => this.write(snapshot), done);
  }

  private write({ vectors, objects, merged }: Snapshot): void {
    const { instance } = this;
    for (const [key, one] of merged) instance.upkeep.merged.set(key, one);
    instance.subjects.forEach((subject, id) => {
      subject.load(objects[id]);
    });
    this.floors = objects.map((_, object) =>
      [...instance.settings.members.keys()].map((slot) => this.floorOf(object, slot)),
    );
    writeVectors(instance.board, vectors, instance.member, instance.localMs);
    this.loaded = vectors.present;
    this.loadedFormer = vectors.former;
  }
}
