/**
 * How this instance enters its cluster and leaves it: main's part of workers/replication/joining.ts. It looks at the state
 * machine some times a second, fetches the snapshot it wants, and loads it while no thread uses the state.
 */

import { AckBoard, PeerFlag } from '../../shm/ack-board.js';
import { clearArena, layoutArena } from '../../shm/arena.js';
import { MemberTable } from '../../shm/members.js';
import type { StateObject } from '../../shm/objects/object.js';
import type { Instance } from '../../workers/instance.js';
import { monotonicMs } from '../../workers/monotonic.js';
import { Joining } from '../../workers/replication/joining.js';
import { laterIncarnation, startOf } from '../../workers/replication/settings.js';
import type { Circle } from '../../workers/snapshot/handshake.js';
import type { SnapshotHead } from '../../workers/snapshot/head.js';
import { loadSnapshot } from '../../workers/snapshot/load.js';
import type { Progress } from '../../workers/snapshot/progress.js';
import type { Standing } from '../admin/source.js';
import type { Log } from '../log.js';
import type { ThreadSupervisor } from '../threads.js';
import { fetchFrom } from './fetch.js';

export interface EntryOptions {
  readonly instance: Instance;
  readonly supervisor: ThreadSupervisor;
  readonly circle: Circle;
  readonly log: Log;
  /** The state has other memory content: what was opened before hashes with another secret. Returns it, opened anew. */
  readonly reopen: () => readonly StateObject[];
  /** Why members that are there are not heard; null: nothing is known of such. */
  readonly refused: () => string | null;
  /** Whether etcd gave us our incarnation, after the last one it knew of our place. */
  readonly isRegistered: boolean;
}

const LOOK_MS = 20;
const OVERRIDE = 'mend it, or give constellation join alone';

export class Entry {
  private readonly options: EntryOptions;
  private readonly board: AckBoard;
  /** From `join` on. */
  private joining: Joining | null = null;
  private readonly members: MemberTable;
  private readonly ending = new AbortController();
  private timer: NodeJS.Timeout | null = null;
  private progress: Progress | null = null;
  /** The state, or the incarnation, is being replaced. */
  private fetching = false;
  /** The later incarnation that was last reported to people. */
  private outrun = 0;
  private said = '';

  /** From here on the instance is joining, to whom its threads speak. */
  constructor(options: EntryOptions) {
    this.options = options;
    const { buffers } = options.instance;
    this.members = new MemberTable(buffers.members);
    this.board = new AckBoard(buffers.ackBoard);
    this.board.setStatus(PeerFlag.JOINING);
  }

  /** What it is at, for people. */
  get standing(): Standing {
    const { state, reason } = this.joining ?? { state: 'listening', reason: 'starts' };
    if (state === 'ready') return { state, reason };
    if (state === 'leaving' || state === 'left') return { state: 'leaving', reason };
    return { state: 'joining', reason: this.progress === null ? reason : `${reason}: ${this.progress}` };
  }

  /** Why we can be nobody's donor; null: we can. */
  get lacksState(): string | null {
    return this.joining?.state === 'ready' ? null : `is ${this.standing.state} itself`;
  }

  /** Joins; resolves when the state is complete. Never where `close` comes first. The replication threads are running. */
  join(): Promise<void> {
    const { instance } = this.options;
    const table = new MemberTable(instance.buffers.members);
    const joining = new Joining(instance.plan.replication, this.board, table, monotonicMs());
    this.joining = joining;
    return new Promise((resolve) => {
      this.timer = setInterval(() => {
        if (!this.look(joining)) return;
        this.stopLooking();
        resolve();
      }, LOOK_MS);
    });
  }

  /** Does not wait for members that are not heard, or are refused. */
  beginAlone(): void {
    this.joining?.beginAlone();
  }

  /** Returns whether it is ready. */
  private look(joining: Joining): boolean {
    const refused = this.options.refused();
    joining.hold = refused === null ? null : `${refused}; it does not begin without their state: ${OVERRIDE}`;
    joining.poll(monotonicMs());
    if (joining.reason !== this.said) {
      this.said = joining.reason;
      this.options.log[this.said === joining.hold ? 'error' : 'info'](`joining: ${this.said}`);
    }
    if (joining.outrunBy !== 0 && !this.fetching) void this.raise(joining.outrunBy);
    const donor = joining.wantsSnapshotFrom;
    if (donor !== null && !this.fetching) void this.take(joining, donor);
    return joining.state === 'ready';
  }

  /** Begins to leave, and looks how far it is: true, when all have everything of ours. To be called again and again. */
  leave(): boolean {
    const { joining } = this;
    if (joining === null) return true;
    if (joining.state !== 'leaving') joining.leave();
    joining.poll(monotonicMs());
    return joining.state === 'left';
  }

  /** Breaks off what is under way. */
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
    try {
      const head = await fetchFrom({
        ...{ instance, circle, log, members: this.members, slot: donor },
        into: instance.buffers.arena,
        onProgress: (progress) => {
          touched = true;
          this.progress = progress;
        },
        signal: this.ending.signal,
      });
      const refusal = joining.refuses(head.vectors.present);
      if (refusal !== null) throw new Error(refusal);
      await this.load(head);
      joining.snapshotTaken();
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

  /** The members take our messages for those of an earlier start: goes on under a later incarnation. */
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

  private load(head: SnapshotHead): Promise<void> {
    const { instance, reopen } = this.options;
    return this.withoutThreads('to load a snapshot', () => loadSnapshot(instance, reopen(), head));
  }

  private clear(): Promise<void> {
    const { instance, reopen } = this.options;
    const { buffers, declaration, plan } = instance;
    return this.withoutThreads('to begin again without state', () => {
      clearArena(buffers.arena, layoutArena(declaration.objects, plan.replication.slots));
      reopen();
    });
  }

  /** Both replication threads have the objects open, with the secret that was. */
  private withoutThreads(why: string, what: () => void): Promise<void> {
    const { supervisor, instance } = this.options;
    const { send, receive } = instance.slots;
    return supervisor.replace([send, receive], `was ended ${why}`, what);
  }
}
