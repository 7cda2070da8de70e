/**
 * A snapshot as bytes:
 *
 *     head      eight doubles, little-endian: magic, format, objects, slots, bytes of vectors, bytes of arena, donor's slot, Unix ms
 *     vectors   see vectors.ts
 *     arena     as in shared memory, its header with layout hash and hash secret included; counts of the workers added
 *
 * The hash secret is the donor's: slots depend on it. So who loads a snapshot takes the secret over with it, before any thread that
 * hashes opens its objects; who merges one reads its entries one by one and hashes them anew (shm/objects/*, `merge`).
 *
 * Whoever reads one knows the layout he wants: every length is compared with his own, or bounded by it, before it is used.
 */

import { decodeVectors, encodeVectors, type SnapshotVectors, vectorBytesMax } from './vectors.js';

const MAGIC = 0x43_54_53_4e; // "CTSN"
const FORMAT = 1;
const FIELDS = ['magic', 'format', 'objects', 'slots', 'vectorBytes', 'arenaBytes', 'donor', 'unixMs'] as const;
export const HEAD_BYTES = FIELDS.length * 8;

export interface SnapshotHead {
  /** Slot of the member it is from. */
  readonly donor: number;
  /** When it was taken, by the donor's clock. */
  readonly unixMs: number;
  readonly vectors: SnapshotVectors;
}

/** What an instance's own layout says a snapshot is like. */
export interface SnapshotShape {
  readonly objects: number;
  readonly slots: number;
  readonly arenaBytes: number;
}

/** Head and vectors. */
export function encodeHead({ objects, slots, arenaBytes }: SnapshotShape, head: SnapshotHead): Uint8Array {
  const vectors = encodeVectors(head.vectors);
  const fields = [MAGIC, FORMAT, objects, slots, vectors.byteLength, arenaBytes, head.donor, head.unixMs];
  const numbers = new Float64Array(fields.length + vectors.length);
  numbers.set(fields);
  numbers.set(vectors, fields.length);
  return new Uint8Array(numbers.buffer);
}

/** How many bytes of vectors follow the head. Throws a RangeError where it is not the head of a snapshot of this shape. */
export function checkHead(bytes: Uint8Array, shape: SnapshotShape): number {
  const [magic, format, objects, slots, vectorBytes, arenaBytes, donor, unixMs] = doubles(bytes);
  if (magic !== MAGIC) throw new RangeError('this is not a snapshot');
  if (format !== FORMAT) throw new RangeError(`a snapshot of format ${format}; this version reads ${FORMAT}`);
  for (const [name, theirs, ours] of [
    ['state objects', objects, shape.objects],
    ['slots', slots, shape.slots],
    ['bytes of state', arenaBytes, shape.arenaBytes],
  ] as const)
    if (theirs !== ours) throw new RangeError(`a snapshot of ${theirs} ${name}; here are ${ours}`);
  if (!(vectorBytes >= 0 && vectorBytes <= vectorBytesMax(shape.objects, shape.slots)) || vectorBytes % 8 !== 0)
    throw new RangeError(`a snapshot with ${vectorBytes} bytes of vectors`);
  if (!Number.isInteger(donor) || donor < 0 || donor >= shape.slots || !Number.isSafeInteger(unixMs) || unixMs < 0)
    throw new RangeError(`a snapshot of slot ${donor} at ${unixMs}`);
  return vectorBytes;
}

/** After `checkHead`: the whole, of head and vectors. */
export function decodeHead(head: Uint8Array, vectors: Uint8Array, { objects, slots }: SnapshotShape): SnapshotHead {
  const fields = doubles(head);
  return {
    donor: fields[FIELDS.indexOf('donor')],
    unixMs: fields[FIELDS.indexOf('unixMs')],
    vectors: decodeVectors(doubles(vectors), objects, slots),
  };
}

/** Copied, for the bytes may start anywhere. */
function doubles(bytes: Uint8Array): Float64Array {
  return new Float64Array(bytes.slice().buffer, 0, bytes.length >>> 3);
}
