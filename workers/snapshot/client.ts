/**
 * The newcomer's side: asks a donor for a snapshot and reads it into memory of its own.
 *
 * Nothing is used before it is opened (frames.ts). Only whole frames are written, into the memory
 * that the caller gave. Its length follows from the layout, which the caller has checked. After an
 * error, the caller must clear the memory (`clearArena`) and ask again, or ask another donor.
 */

import { connect } from 'node:net';
import { CBOR_BYTES_MAX } from '../base/cbor.js';
import { type Agreed, decodeAgreed } from './agreed.js';
import { FrameOpener } from './frames.js';
import {
  Asks,
  CHALLENGE_BYTES,
  type Circle,
  checkChallenge,
  type Hello,
  makeHello,
  makeProof,
  sessionKey,
} from './handshake.js';
import type { SnapshotHead, SnapshotShape } from './head.js';
import { decodeOffer, type Offer } from './offer.js';
import { Progress } from './progress.js';
import { type Place, RefusedError, readSnapshot, StreamReader } from './stream.js';
import { Connection } from './wire.js';

interface AskOptions extends Hello {
  /** The donor's address. */
  readonly address: string;
  readonly port: number;
  readonly circle: Circle;
  readonly signal?: AbortSignal;
  readonly connectMs?: number;
  /** A connection on which nothing moves for this time, in ms, is closed. */
  readonly idleMs?: number;
}

export interface FetchOptions extends AskOptions {
  readonly shape: SnapshotShape;
  /**
   * Where the arena goes. The memory has the snapshot's content once the promise resolves; if it
   * rejects, the content is void.
   */
  readonly place: Place;
  readonly log: (text: string) => void;
  /** Called at the start of the transfer. */
  readonly onProgress?: (progress: Progress) => void;
}

export { RefusedError };

const CONNECT_MS = 5_000;
const IDLE_MS = 15_000;

/** Fetches a snapshot from a donor. Throws the reason if it does not arrive whole. */
export async function fetchSnapshot(options: FetchOptions): Promise<SnapshotHead> {
  const { shape, place, server, log } = options;
  let progress: Progress | null = null;
  const onStart = (bytes: number): void => {
    progress = new Progress(server, bytes, (text) => log(`snapshot from member ${server}: ${text}`));
    options.onProgress?.(progress);
  };
  return connected(options, (reader) => readSnapshot(reader, shape, place, onStart, (bytes) => progress?.add(bytes)));
}

/** Asks a member what state it has to offer. */
export function askOffer(options: AskOptions): Promise<Offer> {
  return connected({ ...options, asks: Asks.OFFER }, async (reader) => decodeOffer(await reader.rest(CBOR_BYTES_MAX)));
}

/** Asks a member for its release, options and shapes (agreed.ts). */
export function askAgreed(options: AskOptions): Promise<Agreed> {
  return connected({ ...options, asks: Asks.AGREED }, async (reader) =>
    decodeAgreed(await reader.rest(CBOR_BYTES_MAX)),
  );
}

/**
 * Connects to a member, does the handshake, and lets `read` read the answer. Errors name the
 * member.
 */
async function connected<T>(options: AskOptions, read: (reader: StreamReader) => Promise<T>): Promise<T> {
  const { signal, idleMs = IDLE_MS } = options;
  signal?.throwIfAborted();
  const socket = connect({ host: options.address, port: options.port, noDelay: true });
  const connection = new Connection(socket, options.connectMs ?? CONNECT_MS);
  const abort = (): void => void socket.destroy();
  signal?.addEventListener('abort', abort);
  try {
    const reader = new StreamReader(connection, new FrameOpener(await meet(connection, options)));
    connection.setIdle(idleMs);
    return await read(reader);
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

async function meet(connection: Connection, options: AskOptions): Promise<Buffer | null> {
  const { circle } = options;
  const hello = makeHello(circle, options);
  await connection.put([hello]);
  const challenge = await connection.take(CHALLENGE_BYTES);
  checkChallenge(circle, hello, challenge);
  const key = circle.keys[0] ?? null;
  await connection.put([makeProof(circle, key, hello, challenge)]);
  return sessionKey(circle, key, hello, challenge);
}
