/**
 * How two members meet to pass a snapshot on: each proves that it has the cluster's key, to a
 * challenge the other has just drawn, before anything is decoded, forked or sent.
 *
 *     client ─ HELLO (96 bytes) ────▶ server     who asks whom for which state, with what key; a nonce; and
 *                                                 the proof that one who has the key made it
 *     client ◀ CHALLENGE (80 bytes) ─ server     a nonce, and the proof that it was made now, by one who has the key
 *     client ─ PROOF (32 bytes) ────▶ server     the same of the client
 *
 * Nothing larger than what was received goes to who has proved nothing. Nothing recorded can be
 * played again: each side's nonce is new, and both are in every proof and in the key of what
 * follows. A proof names its side, so none can be sent back to who made it.
 *
 * The HELLO's proof is not fresh: a recorded HELLO is right once more. It only says which
 * connections deserve a place while the server waits for the PROOF (server.ts), so that connections
 * without the key take none.
 *
 * Without a key (`cluster.insecure`) the proofs are zero and prove nothing.
 */

import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { type ClusterKey, deriveKey } from '../replication/cluster-key.js';

const MAGIC = 0x43_54_53_50; // "CTSP"
/** 4: a HELLO can ask what the members have to agree on. */
const VERSION = 4;
const HELLO_ASKS = 6;
const NONCE_BYTES = 32;
const PROOF_BYTES = 32;
export const HELLO_BYTES = 64 + PROOF_BYTES;
const HELLO_NONCE = 32;
export const CHALLENGE_BYTES = 80;
export { PROOF_BYTES };

/** What is known to both sides before they meet. */
export interface Circle {
  readonly clusterId: number;
  /** Members whose state means the same have the same: shm/arena.ts. */
  readonly meaningHash: readonly [number, number];
  /**
   * The first is used to ask, each to answer; none: nothing is proved, encrypted or protected from
   * change.
   */
  readonly keys: readonly ClusterKey[];
}

export class HandshakeError extends Error {}

/**
 * What a HELLO asks for: a snapshot, what state the member has to offer (offer.ts), or what members
 * have to agree on (agreed.ts). The last is answered also to a member whose state objects differ.
 */
export const Asks = { SNAPSHOT: 0, OFFER: 1, AGREED: 2 } as const;
const ASKS: readonly number[] = Object.values(Asks);
export type Asks = (typeof Asks)[keyof typeof Asks];

export interface Hello {
  /** Ids of the member that asks and of the one that is asked. */
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

/** What a HELLO says, the key it names, and its nonce. */
export interface ReadHello extends Hello {
  readonly asks: Asks;
  readonly key: ClusterKey | null;
  readonly nonce: string;
}

/**
 * Reads a HELLO. Throws if it does not belong here, or was not made with the key that it names. It
 * may be recorded: its client has proved nothing yet.
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

/** Throws unless the challenge was made for this HELLO by one who has the key. */
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

/** The key of what the server sends: of both nonces, so never used before. */
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
