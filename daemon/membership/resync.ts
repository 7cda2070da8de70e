/**
 * Re-sync: recovers state of peers that nobody can send as units any more. Either this instance was
 * cut off for longer than the peers could retain units and backlogs for it, or a digest shows a
 * difference. It fetches a snapshot from every member that has state, one after the other, and
 * merges it with its own state. Packets continue meanwhile. Objects that count by increments cannot
 * be merged; they report that.
 */

import { AckBoard, PeerRecord } from '../../shm/ack-board.js';
import { coarseSeconds } from '../../shm/clock.js';
import { MemberTable } from '../../shm/members.js';
import { monotonicMs } from '../../workers/base/monotonic.js';
import type { Instance } from '../../workers/engine/instance.js';
import { Unmet } from '../../workers/replication/membership/unmet.js';
import { selfIndex } from '../../workers/replication/settings.js';
import type { Circle } from '../../workers/snapshot/handshake.js';
import { Landing } from '../../workers/snapshot/landing.js';
import { type MergeOutcome, mergeSnapshot } from '../../workers/snapshot/load.js';
import type { Progress } from '../../workers/snapshot/progress.js';
import { counted } from '../base/counted.js';
import type { Log } from '../base/log.js';
import type { ThreadSupervisor } from '../lifecycle/threads.js';
import { fetchFrom } from './fetch.js';
import { describeLoss } from './losses.js';

interface ResyncOptions {
  readonly instance: Instance;
  readonly supervisor: ThreadSupervisor;
  readonly circle: Circle;
  readonly log: Log;
}

const LOOK_MS = 500;
/** First delay after a donor refused or failed. It doubles each time. */
const BACK_OFF_MS_MIN = 1_000;
/** Upper limit of the delay. */
const BACK_OFF_MS_MAX = 60_000;

export class Resync {
  private readonly options: ResyncOptions;
  private readonly members: MemberTable;
  private readonly board: AckBoard;
  private readonly ending = new AbortController();
  private timer: NodeJS.Timeout | null = null;
  /** Number of skipped records that have already led to a re-sync. */
  private skipped = 0;
  /** Slots whose state must still be merged with ours. */
  private readonly wanted = new Set<number>();
  private why = '';
  private unmet = new Unmet([]);
  private running: Promise<void> | null = null;
  private transfer: Progress | null = null;
  private backOffMs = BACK_OFF_MS_MIN;
  private notBefore = 0;

  constructor(options: ResyncOptions) {
    this.options = options;
    this.members = new MemberTable(options.instance.buffers.members);
    this.board = new AckBoard(options.instance.buffers.ackBoard);
  }

  /** What is in progress, for people; null: nothing. */
  get state(): string | null {
    if (this.wanted.size === 0) return null;
    return this.transfer === null ? this.why : `${this.why}: ${this.transfer}`;
  }

  /**
   * Starts looking for skipped records. The state must be complete. Records skipped before count as
   * well, because the receive thread has run since the snapshot was loaded. `unmet`: slots of
   * members whose state must be merged with ours (unmet.ts).
   */
  start(unmet: readonly number[] = []): void {
    this.unmet = new Unmet(unmet);
    this.timer = setInterval(() => this.look(), LOOK_MS);
  }

  /** Slots of the members whose state must still be merged with ours. */
  get lacks(): number[] {
    const hasSkipped = this.skippedRecords() > this.skipped;
    const lacks = hasSkipped ? Array(this.board.members).keys() : [...this.wanted, ...this.unmet.slots];
    const self = selfIndex(this.options.instance.plan.replication);
    return [...new Set(lacks)].filter((slot) => slot !== self);
  }

  /**
   * Requests snapshots of the members in `slots`, or of all peers. Members without state are passed
   * over until they have state. `why` is logged.
   */
  want(why: string, slots: Iterable<number> = Array(this.board.members).keys()): void {
    this.why = why;
    this.members.refresh();
    const self = selfIndex(this.options.instance.plan.replication);
    for (const slot of slots) if (slot !== self && this.members.isMember(slot)) this.wanted.add(slot);
    this.options.log.warn(`${why}: taking snapshots of ${counted(this.wanted.size, 'member')} to join with our state`);
  }

  /** Aborts what is in progress. */
  async close(): Promise<void> {
    if (this.timer !== null) clearInterval(this.timer);
    this.timer = null;
    this.ending.abort();
    await this.running;
  }

  private skippedRecords(): number {
    return this.options.instance.metrics.total('state_rx_records_skipped');
  }

  private look(): void {
    const skipped = this.skippedRecords();
    if (skipped > this.skipped) this.want(`${counted(skipped - this.skipped, 'record')} of others can be sent no more`);
    this.skipped = skipped;
    this.members.refresh();
    const { silentMs } = this.options.instance.plan.replication;
    const met = this.unmet.met(this.board, this.members, silentMs, monotonicMs());
    if (met.length > 0) this.want('this instance began without the state of a member that is heard now', met);
    if (this.running !== null || monotonicMs() < this.notBefore) return;
    for (const slot of this.wanted) {
      if (!this.members.isMember(slot)) this.wanted.delete(slot);
      else if (this.hasState(slot)) {
        this.running = this.take(slot).finally(() => {
          this.running = null;
        });
        return;
      }
    }
  }

  private hasState(slot: number): boolean {
    const peer = new PeerRecord();
    this.board.readPeer(slot, peer);
    const { silentMs } = this.options.instance.plan.replication;
    return peer.incarnation !== 0 && !peer.isJoining && monotonicMs() - peer.heardAt <= silentMs;
  }

  private async take(slot: number): Promise<void> {
    const { log } = this.options;
    try {
      const { changed, losses, problems } = await this.merge(slot);
      this.wanted.delete(slot);
      this.backOffMs = BACK_OFF_MS_MIN;
      log.info(
        `joined the state of ${this.members.name(slot)} with ours: ${counted(changed, 'entry', 'entries')} changed`,
      );
      for (const loss of losses) log.error(describeLoss(loss, this.members.name(slot)));
      for (const { object, problem } of problems) log.warn(`${object}: not joined: ${problem}`);
    } catch (error) {
      if (this.ending.signal.aborted) return;
      log.warn(`no snapshot to join: ${error instanceof Error ? error.message : String(error)}`);
      this.notBefore = monotonicMs() + this.backOffMs;
      this.backOffMs = Math.min(2 * this.backOffMs, BACK_OFF_MS_MAX);
      // Moves the slot to the end, so that another member comes first.
      this.wanted.delete(slot);
      this.wanted.add(slot);
    } finally {
      this.transfer = null;
    }
  }

  private async merge(slot: number): Promise<MergeOutcome> {
    const { instance, supervisor, circle, log } = this.options;
    const landing = new Landing(instance, true);
    const head = await fetchFrom({
      ...{ instance, circle, log, members: this.members, slot },
      place: landing.place,
      onProgress: (progress) => {
        this.transfer = progress;
      },
      signal: this.ending.signal,
    });
    const { beside } = landing;
    if (beside === null) throw new Error('no snapshot came');
    let outcome: MergeOutcome = { changed: 0, losses: [], problems: [] };
    await supervisor.replace([instance.slots.receive], 'was ended to join a snapshot with our state', async () => {
      outcome = await mergeSnapshot(instance, beside, head, coarseSeconds(Date.now()));
    });
    return outcome;
  }
}
