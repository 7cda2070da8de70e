/**
 * The state arena: one SharedArrayBuffer, one fixed region per state object.
 *
 * Its layout follows from the configuration alone: not from the number of workers, not from the machine, and it holds
 * indices, never pointers. So a byte copy of it is a snapshot that an instance with the same layout hash can use in place.
 *
 *     header   magic, format, layout hash (2 words), hash secret (4 words)
 *     regions  one per object, in the order declared, each on a cache line
 */

import { createHash, randomBytes } from 'node:crypto';
import { Region } from './region.js';
import { BYTES_PER_LINE, roundUp, struct } from './struct.js';

const HEADER = struct({ magic: 1, format: 1, layoutHash: 2, secret: 4 });
const MAGIC = 0x43_4f_4e_53; // "CONS"
const FORMAT = 1;
/**
 * What the words of keys and values mean, where the objects' parameters do not say it. 2: a key
 * contains the link, and the ports of SCTP, UDP-Lite and DCCP. Members of different formats are
 * incompatible, as their layout hashes differ.
 */
const STATE_FORMAT = 2;

/** What the arena needs to know of an object to give it a place. */
export interface ArenaObject {
  readonly name: string;
  readonly kind: string;
  /** Everything that shapes the object's layout and meaning; equal at every member of a cluster. */
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly bytes: number;
}

export interface ArenaLayout {
  readonly bytes: number;
  /** First 8 bytes of SHA-256 over the state format, the slots, and every object's name, kind, parameters and size: members compare it. */
  readonly hash: readonly [number, number];
  readonly offsets: readonly number[];
}

/** `slots`: places for members, which objects share ports and totals by. */
export function layoutArena(objects: readonly ArenaObject[], slots = 1): ArenaLayout {
  const offsets: number[] = [];
  let next = roundUp(HEADER.bytes, BYTES_PER_LINE);
  const digest = createHash('sha256').update(`${STATE_FORMAT} ${slots}\n`);
  const names = new Set<string>();
  for (const object of objects) {
    if (names.has(object.name)) throw new Error(`state object ${object.name} is declared twice`);
    names.add(object.name);
    offsets.push(next);
    next += roundUp(object.bytes, BYTES_PER_LINE);
    digest.update(`${JSON.stringify([object.name, object.kind, object.parameters, object.bytes])}\n`);
  }
  const hash = digest.digest();
  return { bytes: next, hash: [hash.readInt32LE(0), hash.readInt32LE(4)], offsets };
}

/** A new, empty arena with a secret of its own. Main thread, once. */
export function createArena(layout: ArenaLayout): SharedArrayBuffer {
  const buffer = new SharedArrayBuffer(layout.bytes);
  writeHeader(buffer, layout);
  return buffer;
}

/** Empties an arena that was filled with what cannot be used. While nobody has it open but to look at it. */
export function clearArena(buffer: SharedArrayBuffer, layout: ArenaLayout): void {
  new Uint8Array(buffer).fill(0);
  writeHeader(buffer, layout);
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

/** A thread's view of the arena. Throws when the buffer was laid out from another configuration. */
export class Arena {
  /** Key for hashes of attacker-chosen keys; travels with the arena, for slots depend on it. */
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

  /** Where the region of the object with this index begins, in bytes of the arena. */
  offset(id: number): number {
    return this.layout.offsets[id];
  }

  get bytes(): number {
    return this.layout.bytes;
  }

  get layoutHash(): readonly [number, number] {
    return this.layout.hash;
  }

  /** The region of the object with this index, its id. */
  region(id: number): Region {
    const object = this.objects[id];
    if (object === undefined) throw new RangeError(`no state object ${id}`);
    return new Region(this.buffer, this.layout.offsets[id], object.bytes);
  }
}
