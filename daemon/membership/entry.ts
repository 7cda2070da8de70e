/**
 * How this instance enters its cluster and leaves it: the main thread's part of
 * workers/replication/membership/joining.ts. It polls the state machine every `LOOK_MS`, fetches
 * the snapshot that it wants, and loads it while no thread uses the state.
 */

import { AckBoard, PeerFlag } from '../../shm/ack-board.js';
import { clearArena, layoutArena } from '../../shm/arena.js';
import { coarseSeconds } from '../../shm/clock.js';
import { MemberTable } from '../../shm/members.js';
import type { StateObject } from '../../shm/objects/core/object.js';
import { monotonicMs } from '../../workers/base/monotonic.js';
import type { Instance } from '../../workers/engine/instance.js';
import { Joining } from '../../workers/replication/membership/joining.js';
import { laterIncarnation, startOf } from '../../workers/replication/settings.js';
import type { Circle } from '../../workers/snapshot/handshake.js';
import type { SnapshotHead } from '../../workers/snapshot/head.js';
import { Landing } from '../../workers/snapshot/landing.js';
import { loadBeside, loadSnapshot } from '../../workers/snapshot/load.js';
import { type Offer, Stands } from '../../workers/snapshot/offer.js';
import type { Progress } from '../../workers/snapshot/progress.js';
import type { Log } from '../base/log.js';
import type { ThreadSupervisor } from '../lifecycle/threads.js';
import { fetchFrom } from './fetch.js';
import { describeLoss } from './losses.js';
import { Restoration } from './restoration.js';
import type { StateKeeper } from './state-keeper.js';

interface EntryOptions {
  readonly instance: Instance;
  readonly supervisor: ThreadSupervisor;
  readonly circle: Circle;
  readonly log: Log;
  /**
   * Opens the objects again and returns them. Called when the arena has new content, because
   * objects opened before hash with the old secret.
   */
  readonly reopen: () => readonly StateObject[];
  /** Why members that exist are not heard; null: no such member is known. */
  readonly refused: () => string | null;
  readonly keeper: StateKeeper;
  /** Whether etcd assigned our incarnation, later than the last one it knew of our slot. */
  readonly isRegistered: boolean;
}

const LOOK_MS = 20;
/** Interval between two checks for members that restore or have not answered. */
const DECIDE_MS = 100;
const CONFIRM = 'enlarge what is too small, or give constellation join lossy';
const OVERRIDE = 'mend it, or give constellation join alone';

export class Entry {
  private readonly options: EntryOptions;
  private readonly board: AckBoard;
  /** Set by `join`. */
  private joining: Joining | null = null;
  private readonly members: MemberTable;
  private readonly ending = new AbortController();
  private timer: NodeJS.Timeout | null = null;
  private progress: Progress | null = null;
  /** The state or the incarnation is being replaced. */
  private fetching = false;
  /** The later incarnation that was last logged. */
  private outrun = 0;
  private said = '';
  private readonly restoration: Restoration;
  private decideAt = 0;
  /** What would be lost of the state last fetched; `null`: nothing, or none was fetched. */
  private lossy: string | null = null;
  private acceptsLosses = false;

  /** Marks the instance as joining for the members that its threads speak to. */
  constructor(options: EntryOptions) {
    this.options = options;
    const { buffers } = options.instance;
    this.members = new MemberTable(buffers.members);
    this.board = new AckBoard(buffers.ackBoard);
    this.board.setStatus(PeerFlag.JOINING);
    const { instance, circle, keeper, log } = options;
    const { board, members } = this;
    this.restoration = new Restoration({
      ...{ instance, board, members, circle, keeper, log },
      signal: this.ending.signal,
    });
  }

  /** Whether the state is complete, and the instance has not begun to leave. */
  get isComplete(): boolean {
    return this.joining?.state === 'ready';
  }

  /** Slots of members whose state must still be merged with ours. */
  get unmet(): readonly number[] {
    return this.joining?.unmet ?? [];
  }

  /** Whether the state is being fetched or replaced. */
  get isFetching(): boolean {
    return this.fetching;
  }

  /** What the instance is doing, for people. */
  get reason(): string {
    if (this.lossy !== null && !this.acceptsLosses) return `${this.lossy}: ${CONFIRM}`;
    const { reason } = this.joining ?? { reason: 'starts' };
    return this.progress === null ? reason : `${reason}: ${this.progress}`;
  }

  /** Why we cannot be a donor; null: we can. */
  get lacksState(): string | null {
    if (this.isComplete) return null;
    const isLeaving = this.joining?.state === 'leaving' || this.joining?.state === 'left';
    return isLeaving ? 'is leaving itself' : 'is joining itself';
  }

  /** What we answer to members that start. */
  get offer(): Offer {
    const { joining } = this;
    const { candidate } = this.options.keeper;
    const isReady = joining?.state === 'ready';
    const stands = !isReady ? Stands.JOINING : joining.hasBegunEmpty ? Stands.BEGUN_EMPTY : Stands.READY;
    return { stands, savedMs: candidate?.savedMs ?? 0 };
  }

  /**
   * Joins; resolves when the state is complete. Never resolves if `close` is called first. The
   * replication threads must run.
   */
  join(): Promise<void> {
    const { instance } = this.options;
    const table = new MemberTable(instance.buffers.members);
    const joining = new Joining(instance.plan.replication, this.board, table, monotonicMs());
    joining.asksFirst = true;
    this.joining = joining;
    return new Promise((resolve) => {
      this.timer = setInterval(() => {
        if (!this.look(joining)) return;
        this.stopLooking();
        resolve();
      }, LOOK_MS);
    });
  }

  /** Accepts state although some of it does not fit here. */
  acceptLosses(): void {
    this.acceptsLosses = true;
  }

  /** Does not wait for members that are not heard or are refused. */
  beginAlone(): void {
    this.joining?.beginAlone();
  }

  /** Returns whether the instance is ready. */
  private look(joining: Joining): boolean {
    const refused = this.options.refused();
    joining.block = refused === null ? null : `${refused}; it does not begin without their state: ${OVERRIDE}`;
    joining.poll(monotonicMs());
    if (joining.reason !== this.said) {
      this.said = joining.reason;
      this.options.log[this.said === joining.block ? 'error' : 'info'](`joining: ${this.said}`);
    }
    if (this.lossy !== null && !this.acceptsLosses) return false;
    if (joining.outrunBy !== 0 && !this.fetching) void this.raise(joining.outrunBy);
    if (joining.wantsToBegin !== null && !this.fetching && monotonicMs() >= this.decideAt) void this.decide(joining);
    const donor = joining.wantsSnapshotFrom;
    if (donor !== null && !this.fetching) void this.take(joining, donor);
    return joining.state === 'ready';
  }

  /**
   * Begins to leave, and returns true once all members have everything of ours. Must be called
   * repeatedly.
   */
  leave(): boolean {
    const { joining } = this;
    if (joining === null) return true;
    if (joining.state !== 'leaving') joining.leave();
    joining.poll(monotonicMs());
    return joining.state === 'left';
  }

  /** Aborts what is in progress. */
  close(): void {
    this.stopLooking();
    this.ending.abort();
  }

  private stopLooking(): void {
    if (this.timer !== null) clearInterval(this.timer);
    this.timer = null;
  }

  private async take(joining: Joining, donor: number): Promise<void> {
    const { instance, circle, log } = this.options;
    this.fetching = true;
    let touched = false;
    const landing = new Landing(instance, false);
    try {
      const head = await fetchFrom({
        ...{ instance, circle, log, members: this.members, slot: donor },
        place: (start) => {
          const refusal = joining.refusesDonor(start.lacks, monotonicMs());
          if (refusal !== null) throw new Error(refusal);
          return landing.place(start);
        },
        onProgress: (progress) => {
          touched = true;
          this.progress = progress;
        },
        signal: this.ending.signal,
      });
      const refusal = joining.refuses(head.vectors.present);
      if (refusal !== null) throw new Error(refusal);
      await this.load(head, landing, this.members.name(donor));
      joining.snapshotTaken(head.lacks);
      this.options.keeper.ignore();
    } catch (error) {
      if (this.ending.signal.aborted) return;
      const why = error instanceof Error ? error.message : String(error);
      log.warn(`joining: ${why}`);
      if (touched) await this.clear();
      joining.snapshotFailed(why, monotonicMs());
    } finally {
      this.progress = null;
      this.fetching = false;
    }
  }

  /**
   * Called if no member with state is heard. Begins with the state of a file or with none, unless
   * another member restores.
   */
  private async decide(joining: Joining): Promise<void> {
    const { log } = this.options;
    this.fetching = true;
    try {
      const decision = await this.restoration.decide(joining.isTogether);
      joining.waitsFor = decision.kind === 'wait' ? decision.reason : null;
      if (decision.kind === 'empty' && joining.mayBeginNow(monotonicMs())) joining.begin(null);
      else if (decision.kind === 'restore') await this.restore(joining);
    } catch (error) {
      if (this.ending.signal.aborted) return;
      log.warn(`joining: ${error instanceof Error ? error.message : String(error)}`);
    } finally {
      this.decideAt = monotonicMs() + DECIDE_MS;
      this.fetching = false;
    }
  }

  private async restore(joining: Joining): Promise<void> {
    const { instance, keeper, isRegistered, log } = this.options;
    const { candidate } = keeper;
    if (candidate === null) return;
    if (candidate.incarnation >= this.board.incarnation) {
      // The clock was put back since the save. A former incarnation must be the earlier one.
      if (isRegistered) await keeper.refuse('is of a later incarnation than etcd gave this start');
      else
        await this.withoutThreads('to take a later incarnation', () =>
          this.board.raiseIncarnation(laterIncarnation(candidate.incarnation)),
        );
      return;
    }
    let isDone = false;
    try {
      const landing = new Landing(instance, false);
      const head = await keeper.read(landing.place);
      await this.withoutThreads('to restore the state file', async () => {
        // A member with state may have been heard meanwhile. Its snapshot then replaces what was
        // read.
        if (!joining.mayBeginNow(monotonicMs())) return;
        await this.fill(head, landing, 'the state file');
        joining.begin('has restored its state file');
        isDone = true;
      });
      if (isDone) log.info(`restored the state of ${new Date(head.unixMs).toISOString()} from ${keeper.file}`);
    } finally {
      if (!isDone) await this.clear();
    }
  }

  /**
   * The members take our messages for those of an earlier start. Continues with a later
   * incarnation.
   */
  private async raise(known: number): Promise<void> {
    const { log, isRegistered } = this.options;
    if (isRegistered) {
      if (this.outrun === known) return;
      this.outrun = known;
      log.error(
        `joining: members know incarnation ${known} of this instance, and etcd gave it the earlier ${this.board.incarnation}: etcd has lost its data and the clock was put back; restart the instance once the clock is past ${new Date(startOf(known)).toISOString()}`,
      );
      return;
    }
    this.fetching = true;
    try {
      log.warn(
        `joining: members know a start of this instance at ${new Date(startOf(known)).toISOString()}, which is later than this one by our clock: the clock was put back; goes on as the later start`,
      );
      await this.withoutThreads('to take a later incarnation', () =>
        this.board.raiseIncarnation(laterIncarnation(known)),
      );
    } finally {
      this.fetching = false;
    }
  }

  private load(head: SnapshotHead, landing: Landing, from: string): Promise<void> {
    return this.withoutThreads('to load a snapshot', () => this.fill(head, landing, from));
  }

  /** Replaces the state with that of a snapshot, in either layout, while no thread uses it. */
  private async fill(head: SnapshotHead, { beside }: Landing, from: string): Promise<void> {
    const { instance, reopen, log } = this.options;
    if (beside === null) return loadSnapshot(instance, reopen(), head);
    const losses = await loadBeside(instance, beside, reopen, head, coarseSeconds(Date.now()));
    log.info(`took the state of ${from} over entry by entry: its capacities or lists differ from ours`);
    const texts = losses.map((loss) => describeLoss(loss, from));
    if (texts.length > 0 && !this.acceptsLosses) {
      this.lossy = texts.join('; ');
      log.error(`joining: ${this.lossy}: ${CONFIRM}`);
      throw new Error('not taken: some of it finds no room here');
    }
    for (const text of texts) log.error(text);
  }

  private clear(): Promise<void> {
    const { instance, reopen } = this.options;
    const { buffers, declaration, plan } = instance;
    return this.withoutThreads('to begin again without state', () => {
      clearArena(buffers.arena, layoutArena(declaration.objects, plan.replication.slots));
      reopen();
    });
  }

  /** Replaces both replication threads, because they have the objects open with the old secret. */
  private withoutThreads(why: string, what: () => void | Promise<void>): Promise<void> {
    const { supervisor, instance } = this.options;
    const { send, receive } = instance.slots;
    return supervisor.replace([send, receive], `was ended ${why}`, what);
  }
}
