/**
 * The state arena: one SharedArrayBuffer with one fixed region per state object.
 *
 * Its layout follows from the configuration alone, not from the machine or the number of workers.
 * It holds indices, never pointers. So a byte copy of it is a snapshot that an instance with the
 * same layout hash can use in place.
 *
 * **Meaning and layout.** Two instances are compatible if their state has the same *meaning*: the
 * same objects, of the same kinds and parameters. Capacities and lists that only shape memory may
 * differ. They are part of the *layout*, which only the threads of one instance have to share. A
 * snapshot of another layout is merged object by object.
 *
 *     header   magic, format, layout hash (2 words), hash secret (4 words)
 *     regions  one per object, in declaration order, each on a cache line
 */

import { createHash, randomBytes } from 'node:crypto';
import { Region } from './region.js';
import { BYTES_PER_LINE, roundUp, struct } from './struct.js';

const HEADER = struct({ magic: 1, format: 1, layoutHash: 2, secret: 4 });
const MAGIC = 0x43_4f_4e_53; // "CONS"
const FORMAT = 1;
/**
 * The version of what words of keys and values mean, where the objects' parameters do not say it.
 * Members of different versions are incompatible, because their hashes differ.
 *
 *     2   a key contains the link, and the ports of SCTP, UDP-Lite and DCCP
 *     3   members compare a hash of the meaning alone
 *     4   records of NAT bindings name the external address and port
 */
const STATE_FORMAT = 4;

export type Parameters = Readonly<Record<string, unknown>>;

/** What the arena needs to know of an object to lay it out. */
export interface ArenaObject {
  readonly name: string;
  readonly kind: string;
  /**
   * What the object's records mean: key and value width, wire form, semantics. Equal at all members
   * of a cluster.
   */
  readonly parameters: Parameters;
  /**
   * What shapes its memory at this instance alone, such as its capacity. Absent: nothing beyond the
   * parameters.
   */
  readonly shape?: Parameters;
  readonly bytes: number;
}

/** First 8 bytes of a SHA-256, as two words. */
export type Hash64 = readonly [number, number];

interface ArenaLayout {
  readonly bytes: number;
  /**
   * Hash of the meaning and of every object's shape and size. The threads of one instance compare
   * it.
   */
  readonly hash: Hash64;
  /**
   * Hash of the state format, the number of slots, and every object's name, kind and parameters.
   * Members compare it.
   */
  readonly meaning: Hash64;
  readonly offsets: readonly number[];
}

/**
 * `slots`: slots for members, by which objects divide ports and totals. Throws if two objects have
 * the same name.
 */
export function layoutArena(objects: readonly ArenaObject[], slots = 1): ArenaLayout {
  const offsets: number[] = [];
  let next = roundUp(HEADER.bytes, BYTES_PER_LINE);
  const layout = createHash('sha256');
  const meaning = createHash('sha256').update(`${STATE_FORMAT} ${slots}\n`);
  const names = new Set<string>();
  for (const object of objects) {
    if (names.has(object.name)) throw new Error(`state object ${object.name} is declared twice`);
    names.add(object.name);
    offsets.push(next);
    next += roundUp(object.bytes, BYTES_PER_LINE);
    const { name, kind, parameters, shape = {}, bytes } = object;
    meaning.update(`${JSON.stringify([name, kind, parameters])}\n`);
    layout.update(`${JSON.stringify([shape, bytes])}\n`);
  }
  const meaningBytes = meaning.digest();
  const layoutBytes = layout.update(meaningBytes).digest();
  return { bytes: next, hash: hash64(layoutBytes), meaning: hash64(meaningBytes), offsets };
}

function hash64(digest: Buffer): Hash64 {
  return [digest.readInt32LE(0), digest.readInt32LE(4)];
}

/** Creates an empty arena with a new secret. Main calls it once. */
export function createArena(layout: ArenaLayout): SharedArrayBuffer {
  const buffer = new SharedArrayBuffer(layout.bytes);
  writeHeader(buffer, layout);
  return buffer;
}

/**
 * Empties an arena whose content cannot be used. Other threads may at most be reading the arena.
 */
export function clearArena(buffer: SharedArrayBuffer, layout: ArenaLayout): void {
  new Uint8Array(buffer).fill(0);
  writeHeader(buffer, layout);
}

/**
 * Copies the secret of a snapshot's arena into ours. No thread may have objects open. See
 * `loadSnapshot`.
 */
export function takeSecret(buffer: SharedArrayBuffer, from: SharedArrayBuffer): void {
  const secret = new Int32Array(from, HEADER.at.secret * 4, 4);
  new Int32Array(buffer, HEADER.at.secret * 4, 4).set(secret);
}

function writeHeader(buffer: SharedArrayBuffer, layout: ArenaLayout): void {
  const header = new Int32Array(buffer, 0, HEADER.words);
  header[HEADER.at.magic] = MAGIC;
  header[HEADER.at.format] = FORMAT;
  header[HEADER.at.layoutHash] = layout.hash[0];
  header[HEADER.at.layoutHash + 1] = layout.hash[1];
  const secret = randomBytes(16);
  for (let i = 0; i < 4; i++) header[HEADER.at.secret + i] = secret.readInt32LE(i * 4);
}

/** A thread's view of the arena. Throws if the buffer was laid out from another configuration. */
export class Arena {
  /**
   * Key for hashes of attacker-chosen keys. It travels with the arena, because slots depend on it.
   */
  readonly secret: Int32Array;
  private readonly buffer: SharedArrayBuffer;
  private readonly layout: ArenaLayout;
  private readonly objects: readonly ArenaObject[];

  constructor(buffer: SharedArrayBuffer, objects: readonly ArenaObject[], slots = 1) {
    this.layout = layoutArena(objects, slots);
    this.buffer = buffer;
    this.objects = objects;
    const header = new Int32Array(buffer, 0, HEADER.words);
    if (
      header[HEADER.at.magic] !== MAGIC ||
      header[HEADER.at.format] !== FORMAT ||
      header[HEADER.at.layoutHash] !== this.layout.hash[0] ||
      header[HEADER.at.layoutHash + 1] !== this.layout.hash[1] ||
      buffer.byteLength !== this.layout.bytes
    )
      throw new Error('the arena was laid out from another configuration');
    this.secret = new Int32Array(buffer, HEADER.at.secret * 4, 4);
  }

  /** Byte offset in the arena of the region of the object with this index. */
  offset(id: number): number {
    return this.layout.offsets[id];
  }

  get bytes(): number {
    return this.layout.bytes;
  }

  /** Equal in all threads of one instance. */
  get layoutHash(): Hash64 {
    return this.layout.hash;
  }

  /** Equal at compatible members. */
  get meaningHash(): Hash64 {
    return this.layout.meaning;
  }

  /** The region of the object with this index (its id). Throws if there is no such object. */
  region(id: number): Region {
    const object = this.objects[id];
    if (object === undefined) throw new RangeError(`no state object ${id}`);
    return new Region(this.buffer, this.layout.offsets[id], object.bytes);
  }
}
