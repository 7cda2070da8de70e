/** Forged messages: valid in form and checksum, but wrong in one fact that a member can check. */

import { crc32 } from 'node:zlib';
import { VectorRecord } from '../../shm/ack-board.js';
import { messageBytes } from '../../workers/replication/settings.js';
import { Datagram, MessageWriter } from '../../workers/replication/wire/message.js';
import type { Instance } from './instance.js';
import { CLUSTER_ID, MEANING_HASH } from './member-settings.js';
import type { Forgery } from './plan.js';

/** Byte offset of the checksum in a message (workers/replication/wire/message.ts). */
const CHECKSUM_AT = 8;

/** More operations than any incarnation sends. */
const NEVER_SENT = 1e6;

/**
 * Forges a message to `victim` in the name of member `sender`, whose incarnation number is
 * `incarnation`.
 */
export function forge(
  what: Forgery,
  victim: Instance,
  sender: number,
  incarnation: number,
  object: number,
): Uint8Array {
  const bytesMax = messageBytes(victim.settings);
  const into = new Datagram(bytesMax);
  const writer = new MessageWriter(
    {
      clusterId: what === 'cluster' ? CLUSTER_ID + 1 : CLUSTER_ID,
      meaningHash: what === 'meaning' ? [MEANING_HASH[0], MEANING_HASH[1] + 1] : MEANING_HASH,
      view: victim.settings.view + (what === 'view' ? 1 : 0),
      sender: what === 'sender' ? 0xfff0 : what === 'own' ? victim.member + 1 : sender + 1,
      incarnation: what === 'incarnation' ? Math.max(1, incarnation - 1) : incarnation,
    },
    bytesMax,
  );
  writer.begin(into, what === 'object' ? victim.subjects.length : object, 2 ** 40, 1e6);
  if (what === 'ack_unsent') {
    const vector = new VectorRecord();
    vector.incarnation = victim.life.incarnation;
    // A slow victim reads the message later. By then, the next number may have been sent, and the
    // acknowledgement could not be told from an honest one without a key.
    vector.contiguous = victim.board.sequence(object) + (victim.takesAtOnce ? 1 : NEVER_SENT);
    vector.datagram = 1;
    writer.addEntry(victim.member + 1, vector, 1e6, 0);
  }
  const length = writer.finish(1, 0);
  if (what !== 'malformed') return into.bytes.slice(0, length);
  // Announces more units than the message contains.
  const bytes = into.bytes.slice(0, length);
  bytes[7] = 3;
  bytes.fill(0, CHECKSUM_AT, CHECKSUM_AT + 4);
  new DataView(bytes.buffer).setUint32(CHECKSUM_AT, crc32(bytes), true);
  return bytes;
}
