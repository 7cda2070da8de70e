/** A datagram in transit, with its contents as the simulator read them when it was sent. */

import { MessageReader } from '../../workers/replication/wire/message.js';

export interface SentUnit {
  readonly first: number;
  readonly count: number;
  /** Hash of the unit's records, header words included. */
  readonly hash: number;
  readonly words: Int32Array;
}

/** An entry that acknowledges units of `origin` (a slot). */
export interface SentEntry {
  readonly origin: number;
  readonly incarnation: number;
  readonly echoValid: boolean;
  readonly echoDatagram: number;
  readonly echoDelayUs: number;
}

export interface Contents {
  readonly incarnation: number;
  /** Origin of the units: its slot and its incarnation number. */
  readonly origin: number;
  readonly originIncarnation: number;
  /** The units are folded for one member. */
  readonly folded: boolean;
  /** Slots of the members that the units are not for. */
  readonly excluded: readonly number[];
  readonly datagram: number;
  readonly floor: number;
  readonly highest: number;
  readonly units: readonly SentUnit[];
  readonly entries: readonly SentEntry[];
}

export interface Flight {
  readonly bytes: Uint8Array;
  /** Slots of the sender and the recipient, and the id of the object. */
  readonly sender: number;
  readonly to: number;
  readonly object: number;
  /** `null`: the datagram is damaged or forged, and the receiver must refuse it. */
  readonly contents: Contents | null;
}

/** Reads the messages that members send. */
export class Dissector {
  private readonly reader: MessageReader;
  private readonly members: number;

  constructor(
    members: number,
    clusterId: number,
    meaningHash: readonly [number, number],
    objects: number,
    bytesMax: number,
  ) {
    this.members = members;
    this.reader = new MessageReader(clusterId, meaningHash, objects, bytesMax);
  }

  /** Throws an error if the message is one that no member may send. */
  read(bytes: Uint8Array): Contents {
    const { reader } = this;
    const reject = reader.read(bytes);
    if (reject !== null) throw new Error(`a member sent a message that is refused: ${reject}`);
    const units = Array.from({ length: reader.units }, (_, i): SentUnit => {
      reader.unit(i);
      const words = reader.words.slice(reader.recordsAt, reader.recordsAt + reader.recordWords);
      return { first: reader.first, count: reader.count, hash: hashOf(words), words };
    });
    const entries = Array.from({ length: reader.entries }, (_, i): SentEntry => {
      reader.entry(i);
      return {
        origin: reader.origin - 1,
        incarnation: reader.originIncarnation,
        echoValid: reader.echoValid,
        echoDatagram: reader.echoDatagram,
        echoDelayUs: reader.echoDelayUs,
      };
    });
    const excluded: number[] = [];
    for (let member = 0; member < this.members; member++) if (reader.excludes(member)) excluded.push(member);
    return {
      incarnation: reader.incarnation,
      origin: reader.unitsOrigin - 1,
      originIncarnation: reader.unitsIncarnation,
      folded: reader.folded,
      excluded,
      datagram: reader.datagram,
      floor: reader.floor,
      highest: reader.highest,
      units,
      entries,
    };
  }
}

function hashOf(words: Int32Array): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < words.length; i++) hash = Math.imul(hash ^ words[i], 0x01000193) ^ (hash >>> 15);
  return hash >>> 0;
}
