/**
 * The encoding of a member's record in etcd (`slot/07`). It is CBOR, or JSON while a member is
 * alive that does not read CBOR.
 *
 * Records of earlier versions are JSON. A member of this version reads both forms, and says so in
 * the JSON that it writes (`cbor`). Once all members that are alive read CBOR, records are written
 * in CBOR. The cluster key does not authenticate etcd. So a record is limited in size, checked in
 * form and fields, and decoded once.
 */

import { CBOR_BYTES_MAX, CborError, checkFields, decodeCbor, encodeCbor, wholeField } from '../../workers/base/cbor.js';
import { RosterError } from './roster.js';

/** One member's record. */
export interface SlotRecord {
  readonly name: string;
  readonly id: number;
  readonly address: string;
  readonly port: number;
  /** Its present or last incarnation. */
  readonly incarnation: number;
  /** The last incarnation of this member that ended before this one; 0: none. */
  readonly dead: number;
  readonly left: boolean;
  /** An operator declared the incarnation dead. It must not come back. */
  readonly evicted: boolean;
}

/** A record that was read, and whether its writer reads CBOR. */
export interface ReadRecord {
  readonly record: SlotRecord;
  readonly readsCbor: boolean;
}

const TEXT_MAX = 255;
const JSON_START = '{'.charCodeAt(0);

const text = (field: unknown): string => {
  if (typeof field !== 'string' || field.length > TEXT_MAX)
    throw new CborError(`expected a text, found ${typeof field}`);
  return field;
};
const flag = (field: unknown): boolean => {
  if (field !== undefined && typeof field !== 'boolean')
    throw new CborError(`expected true or false, found ${typeof field}`);
  return field === true;
};
const whole = wholeField(0);
const FIELDS = {
  ...{ name: text, id: whole, address: text, port: whole, incarnation: whole, left: flag, evicted: flag },
  dead: (field: unknown): number => (field === undefined ? 0 : whole(field)),
};

export function encodeRecord(record: SlotRecord, asCbor: boolean): Uint8Array {
  return asCbor ? encodeCbor(record) : Buffer.from(JSON.stringify({ ...record, cbor: 1 }));
}

/** Throws a `RosterError` that names the key. */
export function decodeRecord(key: string, bytes: Uint8Array): ReadRecord {
  try {
    if (bytes[0] !== JSON_START)
      return { record: decodeCbor(bytes, (value) => checkFields<SlotRecord>(value, FIELDS)), readsCbor: true };
    if (bytes.length > CBOR_BYTES_MAX) throw new CborError(`has ${bytes.length} bytes`);
    // JSON comes from earlier versions, or from members that share a cluster with them. Unknown
    // fields are ignored.
    const { cbor, ...written } = JSON.parse(Buffer.from(bytes).toString()) as Record<string, unknown>;
    const known = Object.fromEntries(Object.entries(written).filter(([name]) => Object.hasOwn(FIELDS, name)));
    return { record: checkFields<SlotRecord>(known, FIELDS), readsCbor: cbor === 1 };
  } catch (error) {
    throw new RosterError(`etcd: ${key} is not a member's record: it ${(error as Error).message}`);
  }
}
