/**
 * The newcomer's side: asks a donor for a snapshot and takes it into memory of its own.
 *
 * Nothing is believed before it is opened (frames.ts), and nothing is written but whole frames into the memory the
 * caller gave, which is as long as our own layout says. Whoever gets an error throws the memory's content away
 * (`clearArena`), and asks again, or another donor.
 */

import { connect } from 'node:net';
import { FrameOpener } from './frames.js';
import {
  CHALLENGE_BYTES,
  type Circle,
  checkChallenge,
  type Hello,
  makeHello,
  makeProof,
  sessionKey,
} from './handshake.js';
import type { SnapshotHead, SnapshotShape } from './head.js';
import { Progress } from './progress.js';
import { RefusedError, readSnapshot, StreamReader } from './stream.js';
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

export { RefusedError };

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
    let progress: Progress | null = null;
    const onStart = (bytes: number): void => {
      progress = new Progress(options.server, bytes, (text) =>
        options.log(`snapshot from member ${options.server}: ${text}`),
      );
      options.onProgress?.(progress);
    };
    return await readSnapshot(reader, shape, options.into, onStart, (bytes) => progress?.add(bytes));
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
