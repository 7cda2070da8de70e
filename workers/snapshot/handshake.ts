/**
 * The handshake before a snapshot is sent. Each side proves that it has the cluster's key, in
 * answer to a fresh challenge of the other, before anything is decoded, forked or sent.
 *
 *     client ─ HELLO (96 bytes) ────▶ server     the two members, what is asked for, the key's id; a nonce; and
 *                                                 the proof that a holder of the key made it
 *     client ◀ CHALLENGE (80 bytes) ─ server     a nonce, and the proof that a holder of the key made it now
 *     client ─ PROOF (32 bytes) ────▶ server     the same proof of the client
 *
 * A client that has proved nothing never gets more bytes than it sent. Nothing recorded can be
 * replayed: each side's nonce is new, and both nonces are in every proof and in the key of what
 * follows. A proof names its side, so it cannot be reflected to its maker.
 *
 * The HELLO's proof is not fresh: a recorded HELLO is valid again. It only decides which
 * connections get a place while the server waits for the PROOF (server.ts), so that connections
 * without the key take none.
 *
 * Without a key (`cluster.insecure`) the proofs are zero and prove nothing.
 */

import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { type ClusterKey, deriveKey } from '../replication/wire/cluster-key.js';

const MAGIC = 0x43_54_53_50; // "CTSP"
/** 4: a HELLO can ask for what members have to agree on. */
const VERSION = 4;
const HELLO_ASKS = 6;
const NONCE_BYTES = 32;
const PROOF_BYTES = 32;
export const HELLO_BYTES = 64 + PROOF_BYTES;
const HELLO_NONCE = 32;
export const CHALLENGE_BYTES = 80;
export { PROOF_BYTES };

/** What both sides know before the handshake. */
export interface Circle {
  readonly clusterId: number;
  /** Members with this hash in common have state objects of the same meaning: shm/arena.ts. */
  readonly meaningHash: readonly [number, number];
  /**
   * The first key is used to ask, every key to answer. If there are no keys, nothing is proved,
   * encrypted or protected from change.
   */
  readonly keys: readonly ClusterKey[];
}

class HandshakeError extends Error {}

/**
 * What a HELLO asks for: a snapshot, the state that the member has to offer (offer.ts), or what
 * members have to agree on (agreed.ts). The last is also answered to a member with other state
 * objects.
 */
export const Asks = { SNAPSHOT: 0, OFFER: 1, AGREED: 2 } as const;
const ASKS: readonly number[] = Object.values(Asks);
export type Asks = (typeof Asks)[keyof typeof Asks];

export interface Hello {
  /** Ids of the asking member and of the asked one. */
  readonly client: number;
  readonly server: number;
  /** Default: a snapshot. */
  readonly asks?: Asks;
}

export function makeHello(circle: Circle, { client, server, asks = Asks.SNAPSHOT }: Hello): Buffer {
  const hello = Buffer.alloc(HELLO_BYTES);
  hello.writeUInt32LE(MAGIC, 0);
  hello.writeUInt8(VERSION, 4);
  hello.writeUInt8(circle.keys[0]?.id ?? 0, 5);
  hello.writeUInt8(asks, HELLO_ASKS);
  hello.writeUInt16LE(client, 8);
  hello.writeUInt16LE(server, 10);
  hello.writeUInt32LE(circle.clusterId, 12);
  hello.writeInt32LE(circle.meaningHash[0], 16);
  hello.writeInt32LE(circle.meaningHash[1], 20);
  randomBytes(NONCE_BYTES).copy(hello, HELLO_NONCE);
  const said = hello.subarray(0, HELLO_BYTES - PROOF_BYTES);
  prove(circle, circle.keys[0] ?? null, 'hello', [said]).copy(hello, said.length);
  return hello;
}

/** The content of a HELLO, the key it names, and its nonce. */
interface ReadHello extends Hello {
  readonly asks: Asks;
  readonly key: ClusterKey | null;
  readonly nonce: string;
}

/**
 * Reads a HELLO. Throws a `HandshakeError` if it is not for this member, or was not made with the
 * key that it names. It may be a recording: its client has proved nothing yet.
 */
export function readHello(circle: Circle, self: number, hello: Buffer): ReadHello {
  const wrong = (problem: string): HandshakeError => new HandshakeError(problem);
  if (hello.length !== HELLO_BYTES || hello.readUInt32LE(0) !== MAGIC) throw wrong('not a request for a snapshot');
  if (hello.readUInt8(4) !== VERSION) throw wrong(`asks in version ${hello.readUInt8(4)}, here is ${VERSION}`);
  if (hello.readUInt32LE(12) !== circle.clusterId) throw wrong('is of another cluster');
  if (hello.readUInt16LE(10) !== self) throw wrong(`asks member ${hello.readUInt16LE(10)}, this is ${self}`);
  const asks = hello.readUInt8(HELLO_ASKS) as Asks;
  if (!ASKS.includes(asks)) throw wrong(`asks for something unknown (${asks})`);
  const hasOurState =
    hello.readInt32LE(16) === circle.meaningHash[0] && hello.readInt32LE(20) === circle.meaningHash[1];
  if (asks !== Asks.AGREED && !hasOurState) throw wrong('has another configuration of state objects');
  const id = hello.readUInt8(5);
  const key = circle.keys.find((candidate) => candidate.id === id) ?? null;
  if (id === 0 && circle.keys.length > 0) throw wrong('has no cluster key');
  if (id !== 0 && key === null) throw wrong(`uses a key ${id} that is not known here`);
  const said = hello.subarray(0, HELLO_BYTES - PROOF_BYTES);
  if (!timingSafeEqual(prove(circle, key, 'hello', [said]), hello.subarray(said.length)))
    throw wrong('did not prove that it has the cluster key');
  const nonce = hello.toString('latin1', HELLO_NONCE, HELLO_NONCE + NONCE_BYTES);
  return { client: hello.readUInt16LE(8), server: self, asks, key, nonce };
}

export function makeChallenge(circle: Circle, key: ClusterKey | null, hello: Buffer): Buffer {
  const challenge = Buffer.alloc(CHALLENGE_BYTES);
  challenge.writeUInt32LE(MAGIC, 0);
  challenge.writeUInt8(VERSION, 4);
  randomBytes(NONCE_BYTES).copy(challenge, 16);
  const said = challenge.subarray(0, CHALLENGE_BYTES - PROOF_BYTES);
  prove(circle, key, 'server', [hello, said]).copy(challenge, said.length);
  return challenge;
}

/** Throws a `HandshakeError` unless a holder of the key made the challenge for this HELLO. */
export function checkChallenge(circle: Circle, hello: Buffer, challenge: Buffer): void {
  const said = challenge.subarray(0, CHALLENGE_BYTES - PROOF_BYTES);
  if (challenge.readUInt32LE(0) !== MAGIC || challenge.readUInt8(4) !== VERSION)
    throw new HandshakeError('does not answer as a donor of snapshots');
  const proof = prove(circle, circle.keys[0] ?? null, 'server', [hello, said]);
  if (!timingSafeEqual(proof, challenge.subarray(said.length)))
    throw new HandshakeError('did not prove that it has the cluster key');
}

export function makeProof(circle: Circle, key: ClusterKey | null, hello: Buffer, challenge: Buffer): Buffer {
  return prove(circle, key, 'client', [hello, challenge]);
}

export function checkProof(
  circle: Circle,
  key: ClusterKey | null,
  hello: Buffer,
  challenge: Buffer,
  proof: Buffer,
): void {
  if (!timingSafeEqual(makeProof(circle, key, hello, challenge), proof))
    throw new HandshakeError('did not prove that it has the cluster key');
}

/** The key of what the server sends. It depends on both nonces, so it was never used before. */
export function sessionKey(circle: Circle, key: ClusterKey | null, hello: Buffer, challenge: Buffer): Buffer | null {
  if (key === null) return null;
  const both = createHash('sha256').update(hello).update(challenge).digest();
  return deriveKey(key, circle.clusterId, 'snapshot stream', both);
}

function prove(circle: Circle, key: ClusterKey | null, side: string, parts: readonly Buffer[]): Buffer {
  if (key === null) return Buffer.alloc(PROOF_BYTES);
  const hmac = createHmac('sha256', deriveKey(key, circle.clusterId, `snapshot ${side}`, Buffer.alloc(0)));
  for (const part of parts) hmac.update(part);
  return hmac.digest();
}
