/**
 * Structured data as CBOR (RFC 8949): the heads of state files and snapshots, and the members'
 * entries in etcd.
 *
 * Decoding accepts less than CBOR allows. `checkForm` reads the bytes before the codec does, and
 * refuses tags, indefinite lengths, deep nesting and lengths beyond the end. So no codec extension
 * runs on received bytes, and no length makes it allocate more than the bytes received.
 * `decodeCbor` also limits the size. If there is a key, authenticate before decoding.
 */

import { Decoder, Encoder } from 'cbor-x/index-no-eval';

/** Most bytes of one encoded value. */
export const CBOR_BYTES_MAX = 4096;
/** Most levels of nested maps and arrays. */
const DEPTH_MAX = 4;

const encoder = new Encoder({ useRecords: false, tagUint8Array: false });
const decoder = new Decoder({ useRecords: false, mapsAsObjects: true });

/** Why bytes are invalid. The message continues a sentence such as "the head of the file …". */
export class CborError extends Error {}

/** Throws a `CborError` if the value is too long to be decoded again. */
export function encodeCbor(value: object): Buffer {
  const bytes = encoder.encode(value);
  if (bytes.length > CBOR_BYTES_MAX) throw new CborError(`has ${bytes.length} bytes, and may have ${CBOR_BYTES_MAX}`);
  return Buffer.from(bytes); // the encoder reuses its memory
}

/**
 * Decodes a value and passes it to `check`, which returns it typed or throws. Throws a `CborError`.
 */
export function decodeCbor<T>(bytes: Uint8Array, check: (value: unknown) => T): T {
  if (bytes.length > CBOR_BYTES_MAX) throw new CborError(`has ${bytes.length} bytes, and may have ${CBOR_BYTES_MAX}`);
  const end = checkForm(bytes, 0, 0);
  if (end !== bytes.length) throw new CborError(`has ${bytes.length - end} bytes behind its end`);
  let value: unknown;
  try {
    value = decoder.decode(bytes);
  } catch (error) {
    throw new CborError(`is no CBOR: ${(error as Error).message}`);
  }
  return check(value);
}

const Major = { ARRAY: 4, MAP: 5, TAG: 6, SIMPLE: 7 } as const;

/**
 * Returns the offset after the item at `at`. Throws if the item is not plain data within the bytes.
 */
function checkForm(bytes: Uint8Array, at: number, depth: number): number {
  if (at >= bytes.length) throw new CborError('is cut short');
  if (depth > DEPTH_MAX) throw new CborError(`is nested more than ${DEPTH_MAX} deep`);
  const major = bytes[at] >>> 5;
  const info = bytes[at] & 31;
  if (major === Major.TAG || info > 27) throw new CborError(`has a byte ${bytes[at]} at ${at}, which is not accepted`);
  const argumentBytes = info < 24 ? 0 : 1 << (info - 24);
  let next = at + 1 + argumentBytes;
  if (next > bytes.length) throw new CborError('is cut short');
  if (major < 2 || major === Major.SIMPLE) return next;
  let count = info;
  if (argumentBytes > 0) {
    count = 0;
    for (let i = at + 1; i < next; i++) count = count * 256 + bytes[i];
  }
  // Each item takes at least one byte.
  if (count > bytes.length - next) throw new CborError('is cut short');
  if (major < Major.ARRAY) return next + count;
  const items = major === Major.MAP ? 2 * count : count;
  for (let i = 0; i < items; i++) next = checkForm(bytes, next, depth + 1);
  return next;
}

/** Checks a decoded map: exactly the fields of `fields`, each by its own check. */
export function checkFields<T extends object>(
  value: unknown,
  fields: { readonly [K in keyof T]: (field: unknown) => T[K] },
): T {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new CborError('is not a map');
  const entries = new Map(Object.entries(value));
  const result: Record<string, unknown> = {};
  for (const name of Object.keys(fields)) {
    const check = fields[name as keyof T];
    try {
      result[name] = check(entries.get(name));
    } catch (error) {
      throw new CborError(`has a wrong ${name}: ${(error as Error).message}`);
    }
    entries.delete(name);
  }
  for (const name of entries.keys()) throw new CborError(`has an unknown field ${JSON.stringify(name.slice(0, 40))}`);
  return result as T;
}

/** A field that is a whole number from `min` to `max`. */
export function wholeField(min: number, max: number = Number.MAX_SAFE_INTEGER): (field: unknown) => number {
  return (field) => {
    if (typeof field !== 'number' || !Number.isSafeInteger(field) || field < min || field > max)
      throw new CborError(`expected a whole number from ${min} to ${max}, found ${shown(field)}`);
    return field;
  };
}

/** A field that is a list of at most `lengthMax` whole numbers. */
export function wholesField(lengthMax: number, min: number, max: number): (field: unknown) => number[] {
  const whole = wholeField(min, max);
  return (field) => {
    if (!Array.isArray(field) || field.length > lengthMax)
      throw new CborError(`expected a list of up to ${lengthMax} numbers, found ${shown(field)}`);
    return field.map(whole);
  };
}

/** A field that is text of at most `charactersMax` characters, without control characters. */
export function textField(charactersMax: number): (field: unknown) => string {
  return (field) => {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is refused
    if (typeof field !== 'string' || field.length > charactersMax || /[\u0000-\u001f\u007f-\u009f]/.test(field))
      throw new CborError(`expected text of up to ${charactersMax} characters, found ${shown(field)}`);
    return field;
  };
}

/** A field that is a map from text to text, with at most `countMax` entries. */
export function textsField(
  countMax: number,
  namesMax: number,
  valuesMax: number,
): (field: unknown) => Map<string, string> {
  const [name, text] = [textField(namesMax), textField(valuesMax)];
  return (field) => {
    if (typeof field !== 'object' || field === null || Array.isArray(field))
      throw new CborError(`expected a map, found ${shown(field)}`);
    const entries = Object.entries(field);
    if (entries.length > countMax) throw new CborError(`expected up to ${countMax} entries, found ${entries.length}`);
    return new Map(entries.map(([key, value]) => [name(key), text(value)]));
  };
}

function shown(field: unknown): string {
  return typeof field === 'number' || typeof field === 'boolean' || field === undefined || field === null
    ? String(field)
    : Array.isArray(field)
      ? `a list of ${field.length}`
      : `a ${typeof field}`;
}
