/** Replication as the operator sees it: computed from shared memory by any thread, without asking the ones that work. */

import { AckBoard, PeerRecord, VectorRecord } from '../../shm/ack-board.js';
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
  /** `never`: no message yet; `silent`: none for `silentMs`. */
  readonly state: 'heard' | 'silent' | 'never';
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

/** Every other member, in the order of their slots. `now`: `monotonicMs()`; `table`: absent, the settings' members. */
export function readPeers(
  buffer: SharedArrayBuffer,
  settings: ReplicationSettings,
  now: number,
  table: SharedArrayBuffer = memberTableOf(settings),
): PeerStatus[] {
  const board = new AckBoard(buffer);
  const members = new MemberTable(table);
  const self = selfIndex(settings);
  const statuses: PeerStatus[] = [];
  for (let index = 0; index < members.slots; index++) {
    if (index === self || !members.isMember(index)) continue;
    const peer = new PeerRecord();
    board.readPeer(index, peer);
    const objects = Array.from({ length: board.objects }, (_, object) => readObject(board, object, index, self));
    const heard = peer.incarnation !== 0;
    const heardMsAgo = heard ? Math.max(0, now - peer.heardAt) : null;
    statuses.push({
      id: members.id(index),
      name: members.name(index),
      index,
      address: members.address(index),
      state: heardMsAgo === null ? 'never' : heardMsAgo > settings.silentMs ? 'silent' : 'heard',
      incarnation: peer.incarnation,
      heardMsAgo,
      rttMs: peer.samples === 0 ? null : { latest: peer.latest, minimum: peer.minimum, average: peer.average },
      clockSkewMs: peer.skewSamples === 0 ? null : peer.skewMs,
      unacknowledged: objects.reduce((sum, object) => sum + object.unacknowledged, 0),
      missing: objects.reduce((sum, object) => sum + object.missing, 0),
      owed: objects.reduce((sum, object) => sum + object.owed, 0),
      attachment:
        ATTACHMENT_NAMES.findLast((name) => objects.some(({ attachment }) => attachment === name)) ?? 'attached',
      objects,
    });
  }
  return statuses;
}

function readObject(board: AckBoard, object: number, member: number, self: number): PeerObject {
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
    unacknowledged: ours.missing(board.numbered(object)),
    missing: theirs.missing(theirs.highest),
    acknowledgedThrough: ours.contiguous,
    receivedThrough: theirs.contiguous,
  };
}
