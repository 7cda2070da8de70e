/**
 * What members have to agree on, as one member reports it to another: its release, and each option
 * that must be the same at all sites. The options' values are text, which only serves to name the
 * differences. The report also has the shapes of the member's objects, which may differ: every
 * member creates only entries that all members can hold (`StateObject.heedShapes`). The request
 * goes to the snapshot server's port, after the same handshake. Members with other state objects
 * may ask too.
 */

import { createHash } from 'node:crypto';
import type { Parameters } from '../../shm/arena.js';
import { CBOR_BYTES_MAX, checkFields, decodeCbor, encodeCbor, textField, textsField } from '../base/cbor.js';
import { shapesField } from './head.js';

/** The most characters of a name and of a value, and the most options of one answer. */
const NAME_MAX = 80;
const VALUE_MAX = 160;
const OPTIONS_MAX = 256;
/**
 * The most characters of the shapes as JSON, which is longer than CBOR: enough for two lists of 128
 * addresses.
 */
const SHAPES_MAX = 3000;
const DIGEST_DIGITS = 12;
/** Characters shown of a value that is too long, before its digest. */
const BEGINNING = 60;

export interface Agreed {
  readonly release: string;
  /** By option: `transport.mtu_bytes`, `middleboxes[0].nat.first_port`. */
  readonly options: ReadonlyMap<string, string>;
  /** By object. Empty: the object has no shape, or the answer has no room for it. */
  readonly shapes: readonly Parameters[];
}

/**
 * One option whose value differs. `null`: the member does not have the option, or had no room for
 * it.
 */
export interface Difference {
  readonly option: string;
  readonly ours: string | null;
  readonly theirs: string | null;
}

/**
 * Encodes an answer that fits. A long value is shortened and gets a digest, so that different
 * values are never shown as equal. If the whole is still too long, each value is replaced by its
 * digest, and finally options are left out.
 */
export function encodeAgreed({ release, options, shapes: all }: Agreed): Buffer {
  const shapes = fitting(all);
  const bounded = [...options].slice(0, OPTIONS_MAX).map(([name, value]) => [name.slice(0, NAME_MAX), value] as const);
  const forms: ((value: string) => string)[] = [boundedText, digestOf];
  for (const form of forms) {
    const bytes = tryEncode(release, shapes, bounded, form);
    if (bytes !== null) return bytes;
  }
  for (let count = bounded.length - 1; count > 0; count--) {
    const bytes = tryEncode(release, shapes, bounded.slice(0, count), digestOf);
    if (bytes !== null) return bytes;
  }
  return encodeCbor({ release: release.slice(0, NAME_MAX), options: {}, shapes });
}

/** The shapes, without the longest ones if there is no room for all. */
function fitting(all: readonly Parameters[]): readonly Parameters[] {
  const shapes = [...all];
  const length = (shape: Parameters): number => JSON.stringify(shape).length;
  while (JSON.stringify(shapes).length > SHAPES_MAX) {
    const longest = shapes.reduce((best, shape, i) => (length(shape) > length(shapes[best]) ? i : best), 0);
    if (length(shapes[longest]) <= 2) return [];
    shapes[longest] = {};
  }
  return shapes;
}

function tryEncode(
  release: string,
  shapes: readonly Parameters[],
  options: readonly (readonly [string, string])[],
  form: (value: string) => string,
): Buffer | null {
  const values = Object.fromEntries(options.map(([name, value]) => [name, form(value)]));
  const room = CBOR_BYTES_MAX - 256 - JSON.stringify(shapes).length;
  const bytes = options.reduce((sum, [name]) => sum + 6 + Buffer.byteLength(name + values[name]), 0);
  return bytes > room ? null : encodeCbor({ release: release.slice(0, NAME_MAX), options: values, shapes });
}

/** Throws a `CborError` if the bytes are no such answer. */
export function decodeAgreed(bytes: Uint8Array): Agreed {
  return decodeCbor(bytes, (value) =>
    checkFields<{ release: string; options: Map<string, string>; shapes: Parameters[] }>(value, {
      release: textField(NAME_MAX),
      options: textsField(OPTIONS_MAX, NAME_MAX, VALUE_MAX),
      shapes: shapesField,
    }),
  );
}

/** The options that differ, in our order, then those that only the other member has. */
export function differences(ours: Agreed, theirs: Agreed): Difference[] {
  const found: Difference[] = [];
  for (const [option, value] of ours.options) {
    const other = theirs.options.get(option) ?? null;
    if (other === null || !isSame(value, other)) found.push({ option, ours: boundedText(value), theirs: other });
  }
  for (const [option, value] of theirs.options)
    if (!ours.options.has(option)) found.push({ option, ours: null, theirs: value });
  return found;
}

/** Whether a value of ours is the one that a member reported, in any of its forms. */
function isSame(value: string, said: string): boolean {
  return value === said || boundedText(value) === said || digestOf(value) === said;
}

function boundedText(value: string): string {
  return value.length <= VALUE_MAX ? value : `${value.slice(0, BEGINNING)}… (${digestOf(value)})`;
}

function digestOf(value: string): string {
  return `sha256 ${createHash('sha256').update(value).digest('hex').slice(0, DIGEST_DIGITS)}`;
}
