/**
 * The instance's state file: finds the file that this start may restore, and saves the state.
 *
 * A file is a *candidate* if its head is valid, it belongs to this member, and it is young enough.
 * Within one boot of the host, its age is measured with the monotonic clock: the wall clock may
 * have been set meanwhile, which costs no state. After a reboot only the wall clock is left. A file
 * from the future then means that this clock is or was wrong, so the age is unknown and the file is
 * refused. A refused file is kept under another name, so that the next save does not overwrite it.
 */

import { constants } from 'node:fs';
import { access, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { AckBoard } from '../../shm/ack-board.js';
import { CLOCK_SKEW_GUARD_S } from '../../shm/clock.js';
import type { MemberTable } from '../../shm/members.js';
import type { StateObject } from '../../shm/objects/core/object.js';
import { monotonicMs } from '../../workers/base/monotonic.js';
import type { Instance } from '../../workers/engine/instance.js';
import { ownMember } from '../../workers/replication/settings.js';
import { copyState, forkState, shapeOf } from '../../workers/snapshot/fork.js';
import type { Circle } from '../../workers/snapshot/handshake.js';
import type { SnapshotHead } from '../../workers/snapshot/head.js';
import { restoredVectors } from '../../workers/snapshot/restore.js';
import {
  type SavedSnapshot,
  StateFile,
  StateFileError,
  type StateFileHead,
  writeStateFile,
} from '../../workers/snapshot/state-file.js';
import type { Place } from '../../workers/snapshot/stream.js';
import type { Log } from '../base/log.js';
import { bootId } from '../host/boot.js';
import type { Saved } from '../views/source.js';

interface StateKeeperOptions {
  /** `null`: state is neither saved nor restored. */
  readonly file: string | null;
  readonly restoreWithinS: number;
  readonly instance: Instance;
  readonly circle: Circle;
  readonly members: MemberTable;
  readonly log: Log;
}

export class StateKeeper {
  /** The head of the file that this start may restore; null: none. */
  candidate: StateFileHead | null = null;
  private readonly options: StateKeeperOptions;
  private saving: Promise<Saved> | null = null;

  constructor(options: StateKeeperOptions) {
    this.options = options;
  }

  /**
   * Looks for a file at the start. Logs why a file is refused. Throws if the folder is not
   * writable.
   */
  async find(): Promise<void> {
    const { file, circle, log } = this.options;
    if (file === null) return;
    const folder = dirname(file);
    await access(folder, constants.W_OK | constants.X_OK).catch((error: Error) => {
      throw new Error(`state.file: nothing can be written to ${folder}: ${error.message}`);
    });
    try {
      const opened = await StateFile.open(file, circle);
      if (opened === null) return;
      await opened.close();
      const ageS = this.check(opened.head);
      this.candidate = opened.head;
      log.info(`state file ${file}: saved ${shownTime(opened.head.savedMs)}, ${ageS} s ago`);
    } catch (error) {
      await this.refuse(error);
    }
  }

  /** Returns the file's age in seconds. Throws if this start may not restore the file. */
  private check({ member, slot, savedMs, ...clock }: StateFileHead): number {
    const { restoreWithinS, instance } = this.options;
    const own = ownMember(instance.plan.replication);
    if (member !== own.id || slot !== own.slot)
      throw new StateFileError(`is of member ${member} in slot ${slot}; this is member ${own.id} in slot ${own.slot}`);
    const isSameBoot = clock.boot !== '' && clock.boot === bootId() && clock.monotonicMs <= monotonicMs();
    const ageMs = isSameBoot ? monotonicMs() - clock.monotonicMs : Date.now() - savedMs;
    if (ageMs < -CLOCK_SKEW_GUARD_S * 1000)
      throw new StateFileError(`was saved ${shownTime(savedMs)}, which is in the future; check the clock`);
    const ageS = Math.max(0, Math.ceil(ageMs / 1000));
    if (ageS > restoreWithinS)
      throw new StateFileError(`was saved ${ageS} s ago, and state.restore_within_s is ${restoreWithinS}`);
    return ageS;
  }

  /**
   * Reads the candidate's state, for `loadSnapshot`, into the memory that `place` gives. Throws if
   * that fails; then the file is no candidate any more, and the memory's content is undefined.
   */
  async read(place: Place): Promise<SnapshotHead> {
    const { file, circle, instance, members } = this.options;
    if (file === null || this.candidate === null) throw new Error('there is no state file');
    try {
      const opened = await StateFile.open(file, circle);
      if (opened === null) throw new StateFileError('is gone');
      try {
        this.check(opened.head);
        const head = await opened.read(shapeOf(instance), place);
        members.refresh();
        return { ...head, vectors: restoredVectors(head.vectors, opened.head, (slot) => members.id(slot)) };
      } finally {
        await opened.close();
      }
    } catch (error) {
      await this.refuse(error);
      throw error;
    }
  }

  /** Refuses the file: this start continues without it. */
  async refuse(error: unknown): Promise<void> {
    const { file, log } = this.options;
    this.candidate = null;
    const why = error instanceof Error ? error.message : String(error);
    const kept = `${file}.refused`;
    try {
      await rename(file as string, kept);
      log.error(`the state file ${file} is not restored: it ${why}; it is kept as ${kept}`);
    } catch (failed) {
      log.error(
        `the state file ${file} is not restored: it ${why}; nor can it be renamed: ${(failed as Error).message}`,
      );
    }
  }

  /** Ignores the file, because this instance took the state of a member. */
  ignore(): void {
    const { file, log } = this.options;
    if (this.candidate !== null)
      log.info(`the state file ${file} is not needed: the state came from a member; the next save replaces the file`);
    this.candidate = null;
  }

  /** Saves while the instance runs. Rejects with the reason if that fails. */
  save(objects: readonly StateObject[]): Promise<Saved> {
    return this.write(() => {
      return forkState(this.options.instance, objects);
    });
  }

  /** Saves after all threads have ended. */
  saveStopped(objects: readonly StateObject[]): Promise<Saved> {
    return this.write(() => {
      const { instance } = this.options;
      const { copy, vectors } = copyState(instance, objects);
      const head = { donor: ownMember(instance.plan.replication).slot, unixMs: Date.now(), vectors, lacks: [] };
      return { head, copy, done: async () => void (await copy.end()) };
    });
  }

  get file(): string | null {
    return this.options.file;
  }

  private write(fork: () => SavedSnapshot & { done(): Promise<void> }): Promise<Saved> {
    // A save in progress has older state, so this one runs after it.
    const before = this.saving?.catch(() => {}) ?? Promise.resolve();
    this.saving = before.then(() => this.writeOnce(fork));
    return this.saving;
  }

  private async writeOnce(take: () => SavedSnapshot & { done(): Promise<void> }): Promise<Saved> {
    const { file, instance, circle, members } = this.options;
    if (file === null) throw new Error('state.file is not set: there is nowhere to save the state to');
    const { id, slot } = ownMember(instance.plan.replication);
    const fork = take();
    try {
      members.refresh();
      const { incarnation } = new AckBoard(instance.buffers.ackBoard);
      const ids = Array.from({ length: members.slots }, (_, other) => members.id(other));
      const clock = { boot: bootId(), monotonicMs: Math.trunc(monotonicMs()) };
      const saver = { member: id, slot, incarnation, members: ids, ...clock };
      const bytes = await writeStateFile(file, circle, saver, shapeOf(instance), fork);
      return { file, bytes, saved_ms: fork.head.unixMs };
    } finally {
      await fork.done();
    }
  }
}

function shownTime(unixMs: number): string {
  return new Date(unixMs).toISOString();
}
