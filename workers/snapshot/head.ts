/**
 * A snapshot as bytes:
 *
 *     length    32 bits, little-endian: of the head
 *     head      CBOR: format, objects, slots, bytes of vectors, bytes of arena, donor's slot, Unix ms
 *     vectors   see vectors.ts
 *     arena     as in shared memory, its header with layout hash and hash secret included; counts of the workers added
 *
 * The hash secret is the donor's: slots depend on it. So who loads a snapshot takes the secret over with it, before any thread that
 * hashes opens its objects; who merges one reads its entries one by one and hashes them anew (shm/objects/*, `merge`).
 *
 * Whoever reads one knows the layout he wants: every length is compared with his own, or bounded by it, before it is used.
 */

import { CBOR_BYTES_MAX, checkFields, decodeCbor, encodeCbor, wholeField } from '../cbor.js';
import { decodeVectors, encodeVectors, type SnapshotVectors, vectorBytesMax } from './vectors.js';

const FORMAT = 2;
export const LENGTH_BYTES = 4;

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

/** What a head says before the vectors. */
export interface SnapshotStart extends SnapshotShape {
  readonly format: number;
  readonly vectorBytes: number;
  readonly donor: number;
  readonly unixMs: number;
}

/** Length, head and vectors. */
export function encodeHead({ objects, slots, arenaBytes }: SnapshotShape, head: SnapshotHead): Uint8Array {
  const vectors = encodeVectors(head.vectors);
  const { donor, unixMs } = head;
  const start: SnapshotStart = {
    ...{ format: FORMAT, objects, slots, vectorBytes: vectors.byteLength, arenaBytes, donor, unixMs },
  };
  const bytes = encodeCbor(start);
  const length = Buffer.alloc(LENGTH_BYTES);
  length.writeUInt32LE(bytes.length);
  return Buffer.concat([length, bytes, new Uint8Array(vectors.buffer)]);
}

/** How many bytes the head has. Throws a RangeError if there can be no such head. */
export function headLength(bytes: Uint8Array): number {
  const length = Buffer.from(bytes).readUInt32LE();
  if (length < 1 || length > CBOR_BYTES_MAX) throw new RangeError(`a snapshot with a head of ${length} bytes`);
  return length;
}

/** Throws an error if it is not the head of a snapshot of this shape. */
export function decodeStart(bytes: Uint8Array, shape: SnapshotShape): SnapshotStart {
  const start = decodeCbor(bytes, (value) =>
    checkFields<SnapshotStart>(value, {
      format: wholeField(FORMAT, FORMAT),
      objects: wholeField(0),
      slots: wholeField(0),
      vectorBytes: wholeField(0, vectorBytesMax(shape.objects, shape.slots)),
      arenaBytes: wholeField(0),
      donor: wholeField(0, shape.slots - 1),
      unixMs: wholeField(0),
    }),
  );
  for (const [name, theirs, ours] of [
    ['state objects', start.objects, shape.objects],
    ['slots', start.slots, shape.slots],
    ['bytes of state', start.arenaBytes, shape.arenaBytes],
  ] as const)
    if (theirs !== ours) throw new RangeError(`a snapshot of ${theirs} ${name}; here are ${ours}`);
  if (start.vectorBytes % 8 !== 0) throw new RangeError(`a snapshot with ${start.vectorBytes} bytes of vectors`);
  return start;
}

export function decodeHead({ donor, unixMs }: SnapshotStart, vectors: Uint8Array, shape: SnapshotShape): SnapshotHead {
  // Copied, for the bytes may start anywhere.
  const numbers = new Float64Array(new Uint8Array(vectors).buffer, 0, vectors.length >>> 3);
  return { donor, unixMs, vectors: decodeVectors(numbers, shape.objects, shape.slots) };
}
