/**
 * The newcomer's side: asks a donor for a snapshot and takes it into memory of its own.
 *
 * Nothing is believed before it is opened (frames.ts), and nothing is written but whole frames into the memory the
 * caller gave, which is as long as our own layout says. Whoever gets an error throws the memory's content away
 * (`clearArena`), and asks again, or another donor.
 */

import { connect } from 'node:net';
import { FRAME_HEAD_BYTES, FrameKind, FrameOpener } from './frames.js';
import {
  CHALLENGE_BYTES,
  type Circle,
  checkChallenge,
  type Hello,
  makeHello,
  makeProof,
  sessionKey,
} from './handshake.js';
import { checkHead, decodeHead, HEAD_BYTES, type SnapshotHead, type SnapshotShape } from './head.js';
import { Progress } from './progress.js';
import { Connection } from './wire.js';

export interface FetchOptions extends Hello {
  /** The donor's. */
  readonly address: string;
  readonly port: number;
  readonly circle: Circle;
  readonly shape: SnapshotShape;
  /** Where the arena goes: `shape.arenaBytes` long. Its content is the snapshot's when the promise is kept, else of no worth. */
  readonly into: Uint8Array;
  readonly log: (text: string) => void;
  /** Told at the start of the transfer. */
  readonly onProgress?: (progress: Progress) => void;
  readonly signal?: AbortSignal;
  readonly connectMs?: number;
  /** A connection on which nothing moves for so long is given up. */
  readonly idleMs?: number;
}

/** The donor will not; `message` is its reason. Another may. */
export class RefusedError extends Error {}

const CONNECT_MS = 5_000;
const IDLE_MS = 15_000;

/** Takes a snapshot from a donor; throws with the reason where it does not come whole. */
export async function fetchSnapshot(options: FetchOptions): Promise<SnapshotHead> {
  const { shape, signal, idleMs = IDLE_MS } = options;
  if (options.into.length !== shape.arenaBytes)
    throw new RangeError(`memory of ${options.into.length} bytes for a snapshot of ${shape.arenaBytes}`);
  signal?.throwIfAborted();
  const socket = connect({ host: options.address, port: options.port, noDelay: true });
  const connection = new Connection(socket, options.connectMs ?? CONNECT_MS);
  const abort = (): void => void socket.destroy();
  signal?.addEventListener('abort', abort);
  try {
    const reader = new StreamReader(connection, new FrameOpener(await meet(connection, options)));
    connection.setIdle(idleMs);
    return await read(reader, options);
  } catch (error) {
    signal?.throwIfAborted();
    const text = error instanceof Error ? error.message : String(error);
    const message = `donor ${options.server} at ${options.address}:${options.port}: ${text}`;
    throw error instanceof RefusedError ? new RefusedError(message) : new Error(message, { cause: error });
  } finally {
    signal?.removeEventListener('abort', abort);
    connection.close();
  }
}

async function meet(connection: Connection, { circle, client, server }: FetchOptions): Promise<Buffer | null> {
  const hello = makeHello(circle, { client, server });
  await connection.put([hello]);
  const challenge = await connection.take(CHALLENGE_BYTES);
  checkChallenge(circle, hello, challenge);
  const key = circle.keys[0] ?? null;
  await connection.put([makeProof(circle, key, hello, challenge)]);
  return sessionKey(circle, key, hello, challenge);
}

async function read(reader: StreamReader, options: FetchOptions): Promise<SnapshotHead> {
  const { shape, into, server, log } = options;
  const start = Buffer.alloc(HEAD_BYTES);
  await reader.fill(start);
  const vectors = Buffer.alloc(checkHead(start, shape));
  const progress = new Progress(server, HEAD_BYTES + vectors.length + into.length, (text) =>
    log(`snapshot from member ${server}: ${text}`),
  );
  options.onProgress?.(progress);
  progress.add(HEAD_BYTES);
  await reader.fill(vectors, progress);
  const head = decodeHead(start, vectors, shape);
  await reader.fill(into, progress);
  await reader.end();
  return head;
}

/** The frames' content as one stream of bytes. */
class StreamReader {
  private readonly connection: Connection;
  private readonly opener: FrameOpener;
  /** What of the last frame was not taken. */
  private left: Uint8Array = new Uint8Array(0);
  private ended = false;

  constructor(connection: Connection, opener: FrameOpener) {
    this.connection = connection;
    this.opener = opener;
  }

  async fill(into: Uint8Array, progress?: Progress): Promise<void> {
    let at = 0;
    while (at < into.length) {
      if (this.left.length === 0) await this.next();
      if (this.ended) throw new Error(`the snapshot ends ${into.length - at} bytes too early`);
      const piece = this.left.subarray(0, into.length - at);
      into.set(piece, at);
      this.left = this.left.subarray(piece.length);
      at += piece.length;
      progress?.add(piece.length);
    }
  }

  /** That was all. */
  async end(): Promise<void> {
    if (this.left.length === 0) await this.next();
    if (!this.ended) throw new Error('the snapshot is longer than the state');
  }

  private async next(): Promise<void> {
    const head = await this.connection.take(FRAME_HEAD_BYTES);
    const body = await this.connection.take(this.opener.length(head));
    const { kind, bytes } = this.opener.open(head, body);
    if (kind === FrameKind.REFUSAL) throw new RefusedError(`refuses: ${bytes.toString()}`);
    if (kind === FrameKind.END) this.ended = true;
    else if (kind !== FrameKind.DATA || bytes.length === 0) throw new Error(`sent a frame of kind ${kind}`);
    this.left = bytes;
  }
}
