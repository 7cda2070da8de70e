/**
 * The newcomer's side: asks a donor for a snapshot and takes it into memory of its own.
 *
 * Nothing is believed before it is opened (frames.ts), and nothing is written but whole frames into
 * the memory the caller gave, which is as long as the layout says that the caller found right.
 * Whoever gets an error throws the memory's content away (`clearArena`), and asks again, or another
 * donor.
 */

import { connect } from 'node:net';
import { CBOR_BYTES_MAX } from '../cbor.js';
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

export interface AskOptions extends Hello {
  /** The donor's. */
  readonly address: string;
  readonly port: number;
  readonly circle: Circle;
  readonly signal?: AbortSignal;
  readonly connectMs?: number;
  /** A connection on which nothing moves for so long is given up. */
  readonly idleMs?: number;
}

export interface FetchOptions extends AskOptions {
  readonly shape: SnapshotShape;
  /**
   * Where the arena goes. The memory's content is the snapshot's when the promise is kept, else of
   * no worth.
   */
  readonly place: Place;
  readonly log: (text: string) => void;
  /** Told at the start of the transfer. */
  readonly onProgress?: (progress: Progress) => void;
}

export { RefusedError };

const CONNECT_MS = 5_000;
const IDLE_MS = 15_000;

/** Takes a snapshot from a donor; throws with the reason where it does not come whole. */
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

/** Asks a member what it has of what members have to agree on. */
export function askAgreed(options: AskOptions): Promise<Agreed> {
  return connected({ ...options, asks: Asks.AGREED }, async (reader) =>
    decodeAgreed(await reader.rest(CBOR_BYTES_MAX)),
  );
}

/** Connects to a member, meets it, and gives `read` what it sends. Errors name the member. */
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
