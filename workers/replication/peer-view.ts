/**
 * The other members as the send thread sees them: who they are (shm/members.ts), retransmission
 * timeouts (RFC 6298 §2) and who has fallen silent. Read from the board at most once a millisecond.
 */

import { type AckBoard, PeerRecord } from '../../shm/ack-board.js';
import { MemberTable } from '../../shm/members.js';
import { FORMAT_VERSION } from './message.js';
import { groupAckDelayMs, type ReplicationSettings, selfIndex } from './settings.js';

const REFRESH_MS = 1;

export class PeerView {
  /** Who takes part, as of the last `refresh`. */
  readonly members: MemberTable;
  /**
   * 1: another member has this slot, and its present life was not declared dead: it is waited for.
   */
  readonly present: Uint8Array;
  /** Grows with every change of `present`. */
  presence = 0;
  /** Members but us. */
  others = 0;
  /** Retransmission timeout per member, in ms, without back-off. */
  readonly timeout: Float64Array;
  /**
   * 1: not heard for so long that it gets probes only; or joining, so that it can take nothing yet.
   */
  readonly silent: Uint8Array;
  /** 1: it is joining, and takes a snapshot of what is let go of meanwhile. */
  readonly joining: Uint8Array;
  /**
   * The life of each member that is believed, and the highest format version it speaks; 0 while it
   * was not heard.
   */
  readonly incarnation: Float64Array;
  readonly speaks: Uint8Array;
  /** Grows whenever a silent member is heard again. */
  revivals = 0;
  /**
   * Round trips of each member: smoothed, and the latest; 0 before the first. When it was last
   * silent no more.
   */
  readonly smoothedMs: Float64Array;
  readonly latestMs: Float64Array;
  readonly revivedAt: Float64Array;
  /** Grows whenever the board was looked at. */
  looks = 0;
  /** Format version that every member which is heard understands. */
  format = FORMAT_VERSION;
  private readonly board: AckBoard;
  private readonly settings: ReplicationSettings;
  private readonly self: number;
  private version = -1;
  /** 1: another member has this slot, dead or alive. */
  private readonly listed: Uint8Array;
  private readonly record = new PeerRecord();
  private refreshedAt = Number.NEGATIVE_INFINITY;

  constructor(settings: ReplicationSettings, board: AckBoard, members: SharedArrayBuffer) {
    this.settings = settings;
    this.board = board;
    this.members = new MemberTable(members);
    this.self = selfIndex(settings);
    this.present = new Uint8Array(settings.slots);
    this.listed = new Uint8Array(settings.slots);
    this.timeout = new Float64Array(settings.slots).fill(settings.retransmitMsInitial);
    this.silent = new Uint8Array(settings.slots).fill(1);
    this.joining = new Uint8Array(settings.slots);
    this.incarnation = new Float64Array(settings.slots);
    this.speaks = new Uint8Array(settings.slots);
    this.smoothedMs = new Float64Array(settings.slots);
    this.latestMs = new Float64Array(settings.slots);
    this.revivedAt = new Float64Array(settings.slots).fill(Number.NEGATIVE_INFINITY);
    this.readMembers();
  }

  refresh(now: number): void {
    if (now - this.refreshedAt < REFRESH_MS) return;
    this.refreshedAt = now;
    this.looks = (this.looks + 1) | 0;
    this.members.refresh();
    if (this.members.version !== this.version) this.readMembers();
    this.format = FORMAT_VERSION;
    for (let member = 0; member < this.silent.length; member++) {
      if (this.listed[member] === 0) continue;
      const { record } = this;
      record.incarnation = 0;
      this.board.readPeer(member, record);
      const dead = this.members.dead(member);
      this.setPresent(member, dead === 0 || record.incarnation > dead);
      if (this.present[member] === 0) continue;
      this.joining[member] = record.incarnation !== 0 && record.isJoining ? 1 : 0;
      const heard = record.incarnation !== 0 && now - record.heardAt <= this.settings.silentMs;
      const silent = !heard || record.isJoining;
      if (!silent && this.silent[member] === 1) {
        this.revivals++;
        this.revivedAt[member] = now;
      }
      this.smoothedMs[member] = record.samples > 0 ? record.smoothed : 0;
      this.latestMs[member] = record.samples > 0 ? record.latest : 0;
      this.silent[member] = silent ? 1 : 0;
      this.incarnation[member] = record.incarnation;
      this.speaks[member] = record.incarnation === 0 ? 0 : record.speaks;
      if (!silent && record.speaks < this.format) this.format = record.speaks;
      if (!silent && record.samples > 0) this.timeout[member] = this.timeoutOf(record);
    }
  }

  private readMembers(): void {
    this.version = this.members.version;
    this.others = 0;
    for (let slot = 0; slot < this.present.length; slot++) {
      const listed = slot !== this.self && this.members.isMember(slot);
      this.listed[slot] = listed ? 1 : 0;
      if (listed) this.others++;
      // Of those that are listed and were declared dead, `refresh` says whether they live again.
      this.setPresent(slot, listed && this.members.dead(slot) === 0);
    }
  }

  /** Acknowledgements may wait so long. Read anew each time: a reload changes it. */
  get ackDelayMs(): number {
    return groupAckDelayMs(this.settings, this.others + 1);
  }

  private setPresent(slot: number, present: boolean): void {
    if (this.present[slot] === (present ? 1 : 0)) return;
    this.present[slot] = present ? 1 : 0;
    this.presence++;
    if (present) return;
    this.silent[slot] = 1;
    this.joining[slot] = 0;
  }

  /** A unit tried `attempts` times is tried again when this is over. */
  backedOff(timeoutMs: number, attempts: number): number {
    return Math.min(timeoutMs * 2 ** Math.min(30, Math.max(0, attempts - 1)), this.settings.retransmitMsMax);
  }

  private timeoutOf(record: PeerRecord): number {
    const ms = record.longestRoundTrip + this.ackDelayMs;
    return Math.min(Math.max(ms, this.settings.retransmitMsMin), this.settings.retransmitMsMax);
  }
}
