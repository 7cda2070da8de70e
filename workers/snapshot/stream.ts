/**
 * A snapshot as a stream of sealed frames (frames.ts), sent to another member by TCP or written to
 * a state file.
 *
 *     DATA frames   the bytes of head.ts, cut into frames of `FRAME_BYTES_MAX`
 *     END           the end of the whole
 *
 * Head and vectors have frames of their own. The writer fills each frame of the state, whatever
 * pieces it gets. So a file's length follows from its content.
 */

import type { ArenaCopy } from './fork.js';
import { FRAME_BYTES_MAX, FRAME_HEAD_BYTES, FrameKind, type FrameOpener, type FrameSealer } from './frames.js';
import type { SnapshotHead, SnapshotShape, SnapshotStart } from './head.js';
import { decodeHead, decodeStart, headLength, LENGTH_BYTES } from './head.js';

/** Where sealed bytes come from. `take` returns exactly `count` bytes, or throws. */
export interface ByteSource {
  take(count: number): Promise<Buffer>;
}

/** The other side's reason why it sends no snapshot. Another donor may send one. */
export class RefusedError extends Error {}

/** Takes the parts of each frame, and resolves when it can take more. */
type PutFrame = (parts: readonly Buffer[]) => Promise<void>;

/**
 * Writes head, vectors and arena, then END. `onBytes`: called with the number of further bytes of
 * the snapshot that were written.
 */
export async function writeSnapshot(
  put: PutFrame,
  sealer: FrameSealer,
  start: Uint8Array,
  copy: Pick<ArenaCopy, 'pieces'>,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const frame = Buffer.allocUnsafe(FRAME_BYTES_MAX);
  let filled = 0;
  const flush = async (): Promise<void> => {
    if (filled === 0) return;
    // Copied: without a key the frame's bytes are passed on as they are, and may wait there.
    await put(sealer.seal(FrameKind.DATA, Buffer.from(frame.subarray(0, filled))));
    onBytes(filled);
    filled = 0;
  };
  const add = async (bytes: Uint8Array): Promise<void> => {
    for (let at = 0; at < bytes.length; ) {
      const piece = bytes.subarray(at, at + FRAME_BYTES_MAX - filled);
      frame.set(piece, filled);
      filled += piece.length;
      at += piece.length;
      if (filled === FRAME_BYTES_MAX) await flush();
    }
  };
  await add(start);
  await flush(); // the reader gets the length before any of the state
  for await (const piece of copy.pieces()) await add(piece);
  await flush();
  await put(sealer.seal(FrameKind.END, new Uint8Array(0)));
}

/**
 * Gives the memory for the arena of a snapshot, as long as its head says. Throws if the snapshot
 * cannot be taken.
 */
export type Place = (start: SnapshotStart) => Uint8Array;

/**
 * Reads a snapshot that an instance of this shape can take, and writes its arena to what `place`
 * gives. `onStart`: called with the total number of bytes before any of the arena is written.
 * `onBytes`: called with the number of further bytes read.
 */
export async function readSnapshot(
  reader: StreamReader,
  shape: SnapshotShape,
  place: Place,
  onStart: (bytes: number) => void,
  onBytes: (bytes: number) => void,
): Promise<SnapshotHead> {
  const length = await reader.take(LENGTH_BYTES);
  const bytes = await reader.take(headLength(length));
  const start = decodeStart(bytes, shape);
  const into = place(start);
  if (into.length !== start.arenaBytes)
    throw new RangeError(`memory of ${into.length} bytes for a snapshot of ${start.arenaBytes}`);
  onStart(LENGTH_BYTES + bytes.length + start.vectorBytes + into.length);
  const vectors = await reader.take(start.vectorBytes);
  onBytes(LENGTH_BYTES + bytes.length + vectors.length);
  const head = decodeHead(start, vectors, shape);
  await reader.fill(into, onBytes);
  await reader.end();
  return head;
}

/** The frames' content as one stream of bytes. */
export class StreamReader {
  private readonly source: ByteSource;
  private readonly opener: FrameOpener;
  /** The part of the last frame that was not taken. */
  private left: Uint8Array = new Uint8Array(0);
  private ended = false;

  constructor(source: ByteSource, opener: FrameOpener) {
    this.source = source;
    this.opener = opener;
  }

  /** Returns exactly `count` bytes. The caller has bounded `count`. */
  async take(count: number): Promise<Buffer> {
    const bytes = Buffer.alloc(count);
    await this.fill(bytes);
    return bytes;
  }

  async fill(into: Uint8Array, onBytes: (bytes: number) => void = () => {}): Promise<void> {
    let at = 0;
    while (at < into.length) {
      if (this.left.length === 0) await this.next();
      if (this.ended) throw new Error(`the snapshot ends ${into.length - at} bytes too early`);
      const piece = this.left.subarray(0, into.length - at);
      into.set(piece, at);
      this.left = this.left.subarray(piece.length);
      at += piece.length;
      onBytes(piece.length);
    }
  }

  /** Returns everything up to the end. Throws if that is more than `most` bytes. */
  async rest(most: number): Promise<Buffer> {
    const pieces: Uint8Array[] = [];
    let bytes = 0;
    for (;;) {
      if (this.left.length === 0) await this.next();
      if (this.ended) return Buffer.concat(pieces);
      bytes += this.left.length;
      if (bytes > most) throw new Error(`the answer has more than ${most} bytes`);
      pieces.push(this.left);
      this.left = this.left.subarray(this.left.length);
    }
  }

  /** Throws if the stream does not end here. */
  async end(): Promise<void> {
    if (this.left.length === 0) await this.next();
    if (!this.ended) throw new Error('the snapshot is longer than the state');
  }

  private async next(): Promise<void> {
    if (this.ended) throw new Error('the snapshot ends too early');
    const head = await this.source.take(FRAME_HEAD_BYTES);
    const body = await this.source.take(this.opener.length(head));
    const { kind, bytes } = this.opener.open(head, body);
    if (kind === FrameKind.REFUSAL) throw new RefusedError(`refuses: ${bytes.toString()}`);
    if (kind === FrameKind.END) this.ended = true;
    else if (kind !== FrameKind.DATA || bytes.length === 0) throw new Error(`sent a frame of kind ${kind}`);
    this.left = bytes;
  }
}
