/**
 * A snapshot as bytes:
 *
 *     length    32 bits, little-endian: of the head
 *     head      CBOR: format, objects, slots, bytes of vectors, bytes of arena, layout hash, shapes, donor's slot, Unix ms, lacks
 *     vectors   see vectors.ts
 *     arena     as in shared memory, its header with layout hash and hash secret included; counts of the workers added
 *
 * The hash secret is the donor's, and table slots depend on it. An instance that loads a snapshot
 * also takes over the secret, before any thread that hashes opens its objects. An instance that
 * merges one reads its entries one by one and hashes them again (shm/objects/*, `merge`).
 *
 * **Layouts.** Donor and reader have objects of the same meaning (shm/arena.ts), but their
 * capacities may differ. The head has the shape of each of the donor's objects. From these the
 * reader computes the donor's layout itself. It compares hash and length with the head before it
 * allocates memory. So it only uses sizes that its own code derives.
 */

import { type ArenaObject, type Hash64, layoutArena, type Parameters } from '../../shm/arena.js';
import type { StateDefinition } from '../../shm/objects/core/object.js';
import {
  CBOR_BYTES_MAX,
  CborError,
  checkFields,
  decodeCbor,
  encodeCbor,
  wholeField,
  wholesField,
} from '../base/cbor.js';
import { decodeVectors, encodeVectors, type SnapshotVectors, vectorBytesMax } from './vectors.js';

/** 3: the head has the donor's layout. */
const FORMAT = 3;
export const LENGTH_BYTES = 4;

export interface SnapshotHead {
  /** Slot of the donor. */
  readonly donor: number;
  /** When it was taken, by the donor's clock. */
  readonly unixMs: number;
  readonly vectors: SnapshotVectors;
  /**
   * Slots of members whose state the donor still has to join with its own: records that no member
   * sends again are missing.
   */
  readonly lacks: readonly number[];
}

/** What a snapshot looks like by the instance's own layout. */
export interface SnapshotShape {
  readonly objects: number;
  readonly slots: number;
  readonly arenaBytes: number;
  readonly layout: Hash64;
  /** By object. */
  readonly shapes: readonly Parameters[];
}

/** What a head says before the vectors. */
export interface SnapshotStart extends Omit<SnapshotShape, 'layout'> {
  readonly format: number;
  readonly layout: readonly number[];
  readonly vectorBytes: number;
  readonly donor: number;
  readonly unixMs: number;
  readonly lacks: readonly number[];
}

/** Length, head and vectors. */
export function encodeHead(shape: SnapshotShape, head: SnapshotHead): Uint8Array {
  const { objects, slots, arenaBytes, shapes } = shape;
  const vectors = encodeVectors(head.vectors);
  const { donor, unixMs, lacks } = head;
  const start: SnapshotStart = {
    ...{ format: FORMAT, objects, slots, vectorBytes: vectors.byteLength, arenaBytes, donor, unixMs },
    ...{ layout: [...shape.layout], shapes, lacks },
  };
  const bytes = encodeCbor(start);
  const length = Buffer.alloc(LENGTH_BYTES);
  length.writeUInt32LE(bytes.length);
  return Buffer.concat([length, bytes, new Uint8Array(vectors.buffer)]);
}

/** The number of bytes of the head. Throws a `RangeError` if no head can have this length. */
export function headLength(bytes: Uint8Array): number {
  const length = Buffer.from(bytes).readUInt32LE();
  if (length < 1 || length > CBOR_BYTES_MAX) throw new RangeError(`a snapshot with a head of ${length} bytes`);
  return length;
}

/**
 * Decodes a head. Throws a `CborError` or a `RangeError` if an instance of this shape cannot take
 * such a snapshot, even in another layout.
 */
export function decodeStart(bytes: Uint8Array, shape: SnapshotShape): SnapshotStart {
  const start = decodeCbor(bytes, (value) =>
    checkFields<SnapshotStart>(value, {
      format: wholeField(FORMAT, FORMAT),
      objects: wholeField(0),
      slots: wholeField(0),
      vectorBytes: wholeField(0, vectorBytesMax(shape.objects, shape.slots)),
      arenaBytes: wholeField(0),
      layout: hashField,
      shapes: shapesField,
      donor: wholeField(0, shape.slots - 1),
      unixMs: wholeField(0),
      lacks: wholesField(shape.slots, 0, shape.slots - 1),
    }),
  );
  for (const [name, theirs, ours] of [
    ['state objects', start.objects, shape.objects],
    ['slots', start.slots, shape.slots],
    ['shapes', start.shapes.length, shape.objects],
  ] as const)
    if (theirs !== ours) throw new RangeError(`a snapshot of ${theirs} ${name}; here are ${ours}`);
  if (hasLayoutOf(start, shape) && start.arenaBytes !== shape.arenaBytes)
    throw new RangeError(`a snapshot of ${start.arenaBytes} bytes of state; here are ${shape.arenaBytes}`);
  if (start.vectorBytes % 8 !== 0) throw new RangeError(`a snapshot with ${start.vectorBytes} bytes of vectors`);
  return start;
}

/** Whether the snapshot's memory layout is that of our own state. */
export function hasLayoutOf({ layout }: Pick<SnapshotStart, 'layout'>, shape: SnapshotShape): boolean {
  return layout.every((word, i) => word === shape.layout[i]);
}

function hashField(field: unknown): number[] {
  const words = wholesField(2, -(2 ** 31), 2 ** 31 - 1)(field);
  if (words.length !== 2) throw new CborError(`a hash of ${words.length} words`);
  return words;
}

/** The most entries of one object's shape, and of a list in it. */
const SHAPE_ENTRIES_MAX = 16;
const LIST_MAX = 256;

export function shapesField(field: unknown): Parameters[] {
  if (!Array.isArray(field)) throw new CborError('expected a list of shapes');
  return field.map((shape: unknown) => {
    if (typeof shape !== 'object' || shape === null || Array.isArray(shape))
      throw new CborError('a shape is not a map');
    const entries = Object.entries(shape);
    if (entries.length > SHAPE_ENTRIES_MAX) throw new CborError(`a shape has ${entries.length} entries`);
    for (const [name, value] of entries) if (!isShapeValue(value)) throw new CborError(`a shape has a wrong ${name}`);
    return Object.fromEntries(entries);
  });
}

function isShapeValue(value: unknown): boolean {
  if (Array.isArray(value)) return value.length <= LIST_MAX && value.every((entry) => Number.isSafeInteger(entry));
  return typeof value === 'boolean' || Number.isSafeInteger(value);
}

/**
 * The donor's objects, as our definitions lay them out in its shapes. Throws a `RangeError` that
 * names the object that cannot be read. It also throws one if the donor's layout differs for
 * another reason, such as its release.
 */
export function donorObjects(
  start: SnapshotStart,
  objects: readonly ArenaObject[],
  definitions: readonly StateDefinition[],
): ArenaObject[] {
  const theirs = objects.map((object, id): ArenaObject => {
    const shape = start.shapes[id];
    if (isSameShape(shape, object.shape)) return object;
    const definition = definitions[id];
    if (definition.withShape === undefined)
      throw new RangeError(`${object.name} has another shape at the donor, and this kind cannot be read in another`);
    try {
      return { ...object, shape, bytes: definition.withShape(shape).bytes };
    } catch (error) {
      throw new RangeError(`${object.name} cannot be read in the donor's shape: ${(error as Error).message}`);
    }
  });
  const layout = layoutArena(theirs, start.slots);
  if (layout.bytes !== start.arenaBytes || layout.hash.some((word, i) => word !== start.layout[i]))
    throw new RangeError('the donor lays its state out in another way; run the same release at both');
  return theirs;
}

/** Whether two shapes are the same, in whatever order their entries are. */
export function isSameShape(a: Parameters, b: Parameters = {}): boolean {
  const sorted = (shape: Parameters): string =>
    JSON.stringify(Object.entries(shape).sort(([x], [y]) => (x < y ? -1 : 1)));
  return sorted(a) === sorted(b);
}

export function decodeHead(
  { donor, unixMs, lacks }: SnapshotStart,
  vectors: Uint8Array,
  shape: SnapshotShape,
): SnapshotHead {
  // Copied, because the bytes may be unaligned.
  const numbers = new Float64Array(new Uint8Array(vectors).buffer, 0, vectors.length >>> 3);
  return { donor, unixMs, lacks, vectors: decodeVectors(numbers, shape.objects, shape.slots) };
}
