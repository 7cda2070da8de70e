/**
 * The other members as the send thread sees them: which take part (shm/members.ts), their
 * retransmission timeouts (RFC 6298 §2), and which are silent. Read from the board at most once a
 * millisecond.
 */

import { type AckBoard, PeerRecord } from '../../../shm/ack-board.js';
import { MemberTable } from '../../../shm/members.js';
import { groupAckDelayMs, type ReplicationSettings, selfIndex } from '../settings.js';
import { FORMAT_VERSION } from '../wire/message.js';

const REFRESH_MS = 1;

export class PeerView {
  /** The members, as of the last `refresh`. */
  readonly members: MemberTable;
  /**
   * 1: another member has this slot, and its present incarnation was not declared dead. Units are
   * kept for it.
   */
  readonly present: Uint8Array;
  /** Grows with every change of `present`. */
  presence = 0;
  /** The number of members other than this one. */
  others = 0;
  /** Retransmission timeout per member, in ms, without back-off. */
  readonly timeout: Float64Array;
  /** 1: silent, so it gets probes only; or joining, so it cannot apply anything yet. */
  readonly silent: Uint8Array;
  /** 1: it is joining, and its snapshot will contain what is pruned meanwhile. */
  readonly joining: Uint8Array;
  /**
   * The believed incarnation of each member, and the highest format version it speaks; 0 until it
   * is heard.
   */
  readonly incarnation: Float64Array;
  readonly speaks: Uint8Array;
  /** Grows whenever a silent member is heard again. */
  revivals = 0;
  /**
   * Per member: the smoothed and the latest round trip, in ms; 0 before the first. And when it was
   * last heard again after it was silent, in ms.
   */
  readonly smoothedMs: Float64Array;
  readonly latestMs: Float64Array;
  readonly revivedAt: Float64Array;
  /** Grows whenever the board was read. */
  looks = 0;
  /** The highest format version that every heard member speaks. */
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
      // `refresh` determines whether a member that was declared dead has a new incarnation.
      this.setPresent(slot, listed && this.members.dead(slot) === 0);
    }
  }

  /**
   * The longest time, in ms, that acknowledgements may wait. Read each time: a reload changes it.
   */
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

  /** The time, in ms, after which a unit that was sent `attempts` times is sent again. */
  backedOff(timeoutMs: number, attempts: number): number {
    return Math.min(timeoutMs * 2 ** Math.min(30, Math.max(0, attempts - 1)), this.settings.retransmitMsMax);
  }

  private timeoutOf(record: PeerRecord): number {
    const ms = record.longestRoundTrip + this.ackDelayMs;
    return Math.min(Math.max(ms, this.settings.retransmitMsMin), this.settings.retransmitMsMax);
  }
}
