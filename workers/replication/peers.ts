/** Replication as the operator sees it: computed from shared memory by any thread, without asking the ones that work. */

import { type AckBoard, PeerRecord, VectorRecord } from '../../shm/ack-board.js';
import { AttachmentRecord } from '../../shm/board-records.js';
import { MemberTable } from '../../shm/members.js';
import { memberTableOf, type ReplicationSettings, selfIndex } from './settings.js';

/** By `Attachment`, each graver than the one before it. */
const ATTACHMENT_NAMES = ['attached', 'owed', 'absent'] as const;

export interface PeerObject {
  readonly object: number;
  /** Records of ours, taken from the log rings, that it has not acknowledged. */
  readonly unacknowledged: number;
  /** Records of its that it said it sent and that we do not have. */
  readonly missing: number;
  /** Whether it gets our units, is owed them, or needs a snapshot. */
  readonly attachment: 'attached' | 'owed' | 'absent';
  /** Records of ours that are kept for it apart. */
  readonly owed: number;
  /** Everything of ours through this number has been acknowledged; of its, received. */
  readonly acknowledgedThrough: number;
  readonly receivedThrough: number;
}

export interface PeerStatus {
  readonly id: number;
  readonly name: string;
  /** Its slot. */
  readonly index: number;
  readonly address: string;
  /** `never`: no message yet; `silent`: none for `silentMs`; `dead`: its life is over, and no other came: nothing is owed to it. */
  readonly state: 'heard' | 'silent' | 'never' | 'dead';
  /** 0 while never heard. */
  readonly incarnation: number;
  readonly heardMsAgo: number | null;
  /** Round trip, ms; null before the first sample. Minimum and average are over a sliding window of samples. */
  readonly rttMs: { readonly latest: number; readonly minimum: number; readonly average: number } | null;
  /** How far its wall clock is ahead of ours; null before it was compared. */
  readonly clockSkewMs: number | null;
  /** Sums over the objects. */
  readonly unacknowledged: number;
  readonly missing: number;
  readonly owed: number;
  /** The gravest over the objects. */
  readonly attachment: PeerObject['attachment'];
  readonly objects: readonly PeerObject[];
}

/**
 * Every other member, in the order of their slots, as the table now has them; absent: the settings' members. `now`:
 * `monotonicMs()`.
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
    const dead = members.dead(index) !== 0 && peer.incarnation <= members.dead(index);
    const objects = Array.from({ length: board.objects }, (_, object) => readObject(board, object, index, self, dead));
    const heardMsAgo = peer.incarnation === 0 ? null : Math.max(0, now - peer.heardAt);
    const state = heardMsAgo === null ? 'never' : heardMsAgo > settings.silentMs ? 'silent' : 'heard';
    statuses.push({
      id: members.id(index),
      name: members.name(index),
      index,
      address: members.address(index),
      state: dead ? 'dead' : state,
      incarnation: peer.incarnation,
      heardMsAgo,
      rttMs: peer.samples === 0 ? null : { latest: peer.latest, minimum: peer.minimum, average: peer.average },
      clockSkewMs: peer.skewSamples === 0 ? null : peer.skewMs,
      unacknowledged: sum(objects, (object) => object.unacknowledged),
      missing: sum(objects, (object) => object.missing),
      owed: sum(objects, (object) => object.owed),
      attachment:
        ATTACHMENT_NAMES.findLast((name) => objects.some(({ attachment }) => attachment === name)) ?? 'attached',
      objects,
    });
  }
  return statuses;
}

function sum(objects: readonly PeerObject[], of: (object: PeerObject) => number): number {
  return objects.reduce((total, object) => total + of(object), 0);
}

function readObject(board: AckBoard, object: number, member: number, self: number, dead: boolean): PeerObject {
  const theirs = new VectorRecord();
  const ours = new VectorRecord();
  board.readReception(object, member, theirs);
  board.readVector(object, member, self, ours);
  const attachment = new AttachmentRecord();
  board.readAttachment(object, member, attachment);
  return {
    object,
    attachment: ATTACHMENT_NAMES[attachment.state],
    owed: attachment.owedRecords,
    unacknowledged: dead ? 0 : ours.missing(board.numbered(object)),
    missing: theirs.missing(theirs.highest),
    acknowledgedThrough: ours.contiguous,
    receivedThrough: theirs.contiguous,
  };
}
