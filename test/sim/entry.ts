/**
 * How a simulated instance enters its cluster and leaves it: main's part (daemon/membership/entry.ts) in simulated time, around
 * the same state machine. A snapshot takes its time to travel, and anybody may die on the way. Main's part of re-syncing, too
 * (daemon/membership/resync.ts): a member that is ready joins a snapshot with its state.
 */

import { MemberTable } from '../../shm/members.js';
import { NONE } from '../../shm/none.js';
import { Joining } from '../../workers/replication/joining.js';
import { mergeObject } from '../../workers/snapshot/load.js';
import {
  backlogOrigin,
  countAsSent,
  type OriginVector,
  readVectors,
  type SnapshotVectors,
  writeVectors,
} from '../../workers/snapshot/vectors.js';
import type { Instance } from './instance.js';
import { regionOf } from './real-objects.js';
import type { Capture, Subject } from './subjects.js';
import { Violation } from './violation.js';

/** As main looks. */
const LOOK_MS = 20;

/** Steps at which a plan may let somebody die. */
export const ENTRY_STEPS = ['listening', 'asking', 'copied', 'loading', 'leaving'] as const;
export type EntryStep = (typeof ENTRY_STEPS)[number];

/** What a donor gives. */
export interface Snapshot {
  readonly vectors: SnapshotVectors;
  readonly objects: readonly Capture[];
}

export class Entry {
  readonly joining: Joining;
  private readonly instance: Instance;
  private fetching = false;
  private looking = false;

  constructor(instance: Instance, table: SharedArrayBuffer) {
    this.instance = instance;
    this.joining = new Joining(instance.settings, instance.board, new MemberTable(table), instance.localMs);
    this.look();
  }

  get isReady(): boolean {
    return this.joining.state === 'ready';
  }

  leave(): void {
    if (!this.isReady) return;
    this.joining.leave();
    this.look();
  }

  /** As a donor: everything at one moment. Null: the threads do not come together. */
  capture(): Snapshot | null {
    const { board, member, subjects } = this.instance;
    if (!this.isReady || this.instance.receiver === null || !this.instance.settle()) return null;
    if (backlogOrigin(board, this.instance.settings.silentMs, this.instance.localMs) !== NONE) return null;
    const objects = subjects.map(({ receive }) => receive);
    countAsSent(board);
    return {
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
      if (state === 'listening' || state === 'leaving') instance.host.reachedStep(instance, state);
      if (instance.up && joining.outrunBy !== 0 && !this.fetching) instance.raiseIncarnation(joining.outrunBy);
      const donor = joining.wantsSnapshotFrom;
      if (instance.up && donor !== null && !this.fetching) this.fetch(donor);
      if (state === 'left') instance.host.hasLeft(instance);
      this.looking = state !== 'ready' && state !== 'left';
      return this.looking;
    });
  }

  private fetch(donor: number): void {
    const { instance, joining } = this;
    this.fetching = true;
    instance.host.reachedStep(instance, 'asking');
    if (!instance.up) return;
    instance.host.fetchSnapshot(instance, donor, (snapshot) => {
      this.fetching = false;
      if (!instance.up || joining.state !== 'asking') return;
      instance.host.reachedStep(instance, 'loading');
      if (!instance.up) return;
      const refusal = typeof snapshot === 'string' ? snapshot : joining.refuses(snapshot.vectors.present);
      if (typeof snapshot === 'string' || refusal !== null) {
        instance.host.happened(`snapshot: ${refusal === snapshot ? snapshot : 'refused'}`);
        joining.snapshotFailed(refusal ?? '', instance.localMs);
        return;
      }
      this.load(snapshot, () => {
        instance.host.happened('snapshot: loaded');
        joining.snapshotTaken();
      });
    });
  }

  /** Takes a snapshot of another member and joins it with its own state, object by object, while no receive thread runs. */
  merge(donor: number): void {
    const { instance } = this;
    if (!this.isReady || this.fetching) return;
    this.fetching = true;
    instance.host.fetchSnapshot(instance, donor, (snapshot) => {
      this.fetching = false;
      if (!instance.up || !this.isReady || typeof snapshot === 'string') return;
      instance.withoutReceiver(() => {
        instance.subjects.forEach((subject, id) => {
          this.mergeSubject(subject, snapshot.objects[id], snapshot.vectors.present[id]);
        });
      });
      instance.host.happened('snapshot: merged');
    });
  }

  private mergeSubject(subject: Subject, capture: Capture, vectors: readonly OriginVector[]): void {
    const { board, member, moment } = this.instance;
    const region = capture.region === null ? null : regionOf(capture.region);
    try {
      if (region !== null) mergeObject(board, subject.receive.inner, region, vectors, member, moment.coarse);
    } catch (error) {
      // Increments cannot be joined.
      if (error instanceof Violation) throw error;
      this.instance.host.happened(`not merged: ${subject.kind}`);
    }
  }

  /** Main writes the snapshot while no thread runs, for as long as the plan says. */
  private load({ vectors, objects }: Snapshot, done: () => void): void {
    const { instance } = this;
    instance.withoutThreads(() => {
      instance.subjects.forEach((subject, id) => {
        subject.load(objects[id]);
      });
      writeVectors(instance.board, vectors, instance.member, instance.localMs);
    }, done);
  }
}
