/**
 * The status of replication for operators. Any thread can compute it from shared memory, without
 * asking the working threads.
 */

import { type AckBoard, PeerRecord, VectorRecord } from '../../../shm/ack-board.js';
import { AttachmentRecord, SlotIncarnations } from '../../../shm/board-records.js';
import { MemberTable } from '../../../shm/members.js';
import { memberTableOf, type ReplicationSettings, selfIndex } from '../settings.js';

/** Names by `Attachment`, in the order of severity. */
const ATTACHMENT_NAMES = ['attached', 'backlog', 'absent'] as const;

interface PeerObject {
  readonly object: number;
  /** Records of ours, taken from the log rings, that the peer has not acknowledged. */
  readonly unacknowledged: number;
  /** Records that the peer said it sent and that we do not have. */
  readonly missing: number;
  /** Whether the peer gets our units, gets a backlog, or needs a snapshot. */
  readonly attachment: 'attached' | 'backlog' | 'absent';
  /** Records in the peer's backlog. */
  readonly backlogRecords: number;
  /**
   * The number through which the peer acknowledged all of our records, and we received all of its
   * records.
   */
  readonly acknowledgedThrough: number;
  readonly receivedThrough: number;
}

export interface PeerStatus {
  readonly id: number;
  readonly name: string;
  /** Its slot. */
  readonly index: number;
  readonly address: string;
  /**
   * `never`: no message was heard yet. `silent`: none for `silentMs`. `left`: silent after it said
   * that it leaves, and we have all of its records. `dead`: its incarnation has ended, and no other
   * has come. Nothing is kept for peers that are `left` or `dead`.
   */
  readonly state: 'heard' | 'silent' | 'never' | 'left' | 'dead';
  /** The peer said that it leaves. */
  readonly leaving: boolean;
  /** 0 if it was never heard. */
  readonly incarnation: number;
  readonly heardMsAgo: number | null;
  /**
   * Round trip in ms; null before the first sample. Minimum and average are over a sliding window
   * of samples.
   */
  readonly rttMs: { readonly latest: number; readonly minimum: number; readonly average: number } | null;
  /** How far its wall clock is ahead of ours, in ms; null before they were compared. */
  readonly clockSkewMs: number | null;
  /** Sums over the objects. */
  readonly unacknowledged: number;
  readonly missing: number;
  readonly backlogRecords: number;
  /** The most severe over the objects. */
  readonly attachment: PeerObject['attachment'];
  readonly objects: readonly PeerObject[];
}

/**
 * The status of every other member, in the order of their slots, from the current member table;
 * absent: the members in the settings. `now`: `monotonicMs()`.
 */
export function readPeers(
  board: AckBoard,
  settings: ReplicationSettings,
  now: number,
  members: MemberTable = new MemberTable(memberTableOf(settings)),
): PeerStatus[] {
  members.refresh();
  const self = selfIndex(settings);
  const statuses: PeerStatus[] = [];
  for (let index = 0; index < members.slots; index++) {
    if (index === self || !members.isMember(index)) continue;
    const peer = new PeerRecord();
    board.readPeer(index, peer);
    const dead = isDead(board, members.dead(index), index, peer);
    const heardMsAgo = peer.incarnation === 0 ? null : Math.max(0, now - peer.heardAt);
    const silent = heardMsAgo !== null && heardMsAgo > settings.silentMs;
    const left = silent && peer.isLeaving && hasAllOf(board, index);
    const objects = Array.from({ length: board.objects }, (_, object) =>
      readObject(board, object, index, self, dead || left),
    );
    const state = heardMsAgo === null ? 'never' : left ? 'left' : silent ? 'silent' : 'heard';
    statuses.push({
      id: members.id(index),
      name: members.name(index),
      index,
      address: members.address(index),
      state: dead ? 'dead' : state,
      leaving: peer.isLeaving,
      incarnation: peer.incarnation,
      heardMsAgo,
      rttMs: peer.samples === 0 ? null : { latest: peer.latest, minimum: peer.minimum, average: peer.average },
      clockSkewMs: peer.skewSamples === 0 ? null : peer.skewMs,
      unacknowledged: sum(objects, (object) => object.unacknowledged),
      missing: sum(objects, (object) => object.missing),
      backlogRecords: sum(objects, (object) => object.backlogRecords),
      attachment:
        ATTACHMENT_NAMES.findLast((name) => objects.some(({ attachment }) => attachment === name)) ?? 'attached',
      objects,
    });
  }
  return statuses;
}

/**
 * Whether the member's incarnation has ended: by the member table, or because other members said
 * so.
 */
function isDead(board: AckBoard, declared: number, slot: number, peer: PeerRecord): boolean {
  if (declared !== 0 && peer.incarnation <= declared) return true;
  const incarnations = new SlotIncarnations();
  board.readIncarnations(slot, incarnations);
  return peer.incarnation === 0 && incarnations.current === 0 && incarnations.former !== 0;
}

function hasAllOf(board: AckBoard, slot: number): boolean {
  const theirs = new VectorRecord();
  for (let object = 0; object < board.objects; object++) {
    theirs.clear();
    board.readReception(object, slot, theirs);
    if (theirs.missing(theirs.highest) > 0) return false;
  }
  return true;
}

function sum(objects: readonly PeerObject[], of: (object: PeerObject) => number): number {
  return objects.reduce((total, object) => total + of(object), 0);
}

function readObject(board: AckBoard, object: number, member: number, self: number, gone: boolean): PeerObject {
  const theirs = new VectorRecord();
  const ours = new VectorRecord();
  board.readReception(object, member, theirs);
  board.readVector(object, member, self, ours);
  const attachment = new AttachmentRecord();
  board.readAttachment(object, member, attachment);
  return {
    object,
    attachment: ATTACHMENT_NAMES[attachment.state],
    backlogRecords: gone ? 0 : attachment.backlogRecords,
    unacknowledged: gone ? 0 : ours.missing(board.numbered(object)),
    missing: theirs.missing(theirs.highest),
    acknowledgedThrough: ours.contiguous,
    receivedThrough: theirs.contiguous,
  };
}
