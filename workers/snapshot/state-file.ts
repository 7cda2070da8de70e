/**
 * The state file: a snapshot of this instance on its own disk, from which its next start resumes.
 *
 *     preamble   magic (8 bytes), format (8 bits), id of the cluster key (8 bits; 0: none), zero (6 bytes), salt (32 bytes)
 *     frames     first the file's head, alone in its frame, as CBOR; then the snapshot, as to a member (stream.ts)
 *
 * Frames are sealed with a key derived from the cluster key and the preamble, so each file has a
 * key of its own. Without a cluster key, a CRC detects accidents, and only the file's owner and
 * mode protect it. Nothing is decoded before its frame was opened.
 *
 * **Writing** uses a temporary name. The file is synced and then renamed, and its folder is synced
 * as well. So there is always a whole file under the file's name. **Reading** checks owner, mode,
 * length and head before it reads state.
 */

import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { geteuid } from 'node:process';
import { SLOTS_MAX } from '../../shm/members.js';
import {
  CBOR_BYTES_MAX,
  checkFields,
  decodeCbor,
  encodeCbor,
  textField,
  wholeField,
  wholesField,
} from '../base/cbor.js';
import { INCARNATION_MAX } from '../replication/settings.js';
import { type ClusterKey, deriveKey, KEY_ID_MAX } from '../replication/wire/cluster-key.js';
import type { ArenaCopy } from './fork.js';
import { FRAME_BYTES_MAX, FRAME_HEAD_BYTES, FRAME_TAG_BYTES, FrameKind, FrameOpener, FrameSealer } from './frames.js';
import type { Circle } from './handshake.js';
import { encodeHead, LENGTH_BYTES, type SnapshotHead, type SnapshotShape, type SnapshotStart } from './head.js';
import { type ByteSource, type Place, readSnapshot, StreamReader, writeSnapshot } from './stream.js';
import { vectorBytesMax } from './vectors.js';

const MAGIC = Buffer.from('CNSTSAVE');
/** 2: a file has the meaning of its state, and the snapshot's head has the layout. */
const FORMAT = 2;
const SALT_BYTES = 32;
const PREAMBLE = { format: 8, key: 9, salt: 16, bytes: 16 + SALT_BYTES } as const;
const FRAME_OVERHEAD = FRAME_HEAD_BYTES + FRAME_TAG_BYTES;
/** Any other user who may write the file could put any state into it. */
const OTHERS_WRITE = 0o022;
const READ_FLAGS = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW;
const ID_MAX = 0xffff;
const BOOT_CHARACTERS_MAX = 64;

/** Why a file cannot be restored. The message completes "the state file …". */
export class StateFileError extends Error {}

export interface StateFileHead {
  readonly clusterId: number;
  readonly meaning: readonly number[];
  /** The member whose state it is: id and slot, and the incarnation that saved it. */
  readonly member: number;
  readonly slot: number;
  readonly incarnation: number;
  /** By the wall clock of the host, Unix ms. */
  readonly savedMs: number;
  /** The host's boot in which it was saved, and its `monotonicMs()` then. '': not known. */
  readonly boot: string;
  readonly monotonicMs: number;
  /** The member ids by slot when it was saved; 0: none. */
  readonly members: readonly number[];
}

/** The part of a file's head that the writing instance supplies. */
export type Saver = Omit<StateFileHead, 'clusterId' | 'meaning' | 'savedMs'>;

export interface SavedSnapshot {
  readonly head: SnapshotHead;
  readonly copy: Pick<ArenaCopy, 'pieces'>;
}

/**
 * Writes the file. Returns its length in bytes. If it cannot, it throws and leaves the former file.
 */
export async function writeStateFile(
  file: string,
  { clusterId, meaningHash, keys }: Circle,
  saver: Saver,
  shape: SnapshotShape,
  { head, copy }: SavedSnapshot,
): Promise<number> {
  const key = keys[0] ?? null;
  const preamble = Buffer.alloc(PREAMBLE.bytes);
  MAGIC.copy(preamble);
  preamble.writeUInt8(FORMAT, PREAMBLE.format);
  preamble.writeUInt8(key?.id ?? 0, PREAMBLE.key);
  randomBytes(SALT_BYTES).copy(preamble, PREAMBLE.salt);
  const fileHead: StateFileHead = { ...saver, clusterId, meaning: [...meaningHash], savedMs: head.unixMs };
  const sealer = new FrameSealer(keyOf(key, clusterId, preamble));
  const temporary = `${file}.new`;
  await rm(temporary, { force: true });
  const handle = await open(temporary, 'wx', 0o600);
  let length = 0;
  const put = async (parts: readonly Buffer[]): Promise<void> => {
    for (const part of parts) await writeAll(handle, part);
    length += parts.reduce((sum, part) => sum + part.length, 0);
  };
  try {
    await put([preamble, ...sealer.seal(FrameKind.DATA, encodeCbor(fileHead))]);
    await writeSnapshot(put, sealer, encodeHead(shape, head), copy, () => {});
    await handle.sync();
    await handle.close();
    await rename(temporary, file);
  } catch (error) {
    await handle.close().catch(() => {});
    await rm(temporary, { force: true });
    throw error;
  }
  const folder = await open(dirname(file), 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
  return length;
}

async function writeAll(handle: FileHandle, bytes: Buffer): Promise<void> {
  for (let at = 0; at < bytes.length; ) at += (await handle.write(bytes, at, bytes.length - at)).bytesWritten;
}

function keyOf(key: ClusterKey | null, clusterId: number, preamble: Buffer): Buffer | null {
  return key === null ? null : deriveKey(key, clusterId, 'state file', preamble);
}

/** A state file of this cluster, opened: its head was read and checked. */
export class StateFile {
  readonly head: StateFileHead;
  private readonly handle: FileHandle;
  private readonly reader: StreamReader;
  private readonly length: number;

  private constructor(handle: FileHandle, length: number, head: StateFileHead, reader: StreamReader) {
    this.handle = handle;
    this.length = length;
    this.head = head;
    this.reader = reader;
  }

  /**
   * Opens a state file. Returns null if it does not exist. Throws a `StateFileError` if it is not
   * one of this cluster.
   */
  static async open(file: string, circle: Circle): Promise<StateFile | null> {
    let handle: FileHandle;
    try {
      handle = await open(file, READ_FLAGS);
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT') return null;
      throw new StateFileError(code === 'ELOOP' ? 'is a symbolic link' : `cannot be opened: ${message}`);
    }
    try {
      return await StateFile.begin(handle, circle);
    } catch (error) {
      await handle.close();
      throw asFileError(error);
    }
  }

  private static async begin(handle: FileHandle, circle: Circle): Promise<StateFile> {
    const stat = await handle.stat();
    if (!stat.isFile()) throw new StateFileError('is not a regular file');
    if (stat.uid !== 0 && stat.uid !== geteuid?.()) throw new StateFileError(`belongs to user ${stat.uid}`);
    if ((stat.mode & OTHERS_WRITE) !== 0)
      throw new StateFileError(`can be written by others (mode ${(stat.mode & 0o777).toString(8)}); expected 600`);
    const source = new FileSource(handle);
    const preamble = await source.take(PREAMBLE.bytes);
    if (!preamble.subarray(0, MAGIC.length).equals(MAGIC)) throw new StateFileError('is something else');
    const format = preamble.readUInt8(PREAMBLE.format);
    if (format !== FORMAT) throw new StateFileError(`has format ${format}; this version reads ${FORMAT}`);
    const key = namedKey(circle, preamble.readUInt8(PREAMBLE.key));
    const opener = new FrameOpener(keyOf(key, circle.clusterId, preamble));
    const start = await source.take(FRAME_HEAD_BYTES);
    const length = opener.length(start);
    if (length > CBOR_BYTES_MAX + FRAME_TAG_BYTES) throw new StateFileError(`has a head of ${length} bytes`);
    const body = await source.take(length);
    const { kind, bytes } = openFirst(opener, key, start, body);
    if (kind !== FrameKind.DATA) throw new StateFileError(`begins with a frame of kind ${kind}`);
    const head = decodeCbor(bytes, checkFileHead);
    if (head.clusterId !== circle.clusterId) throw new StateFileError('is of another cluster');
    if (circle.meaningHash.some((word, i) => word !== head.meaning[i]))
      throw new StateFileError('was saved with another configuration of state objects');
    return new StateFile(handle, stat.size, head, new StreamReader(source, opener));
  }

  /**
   * Reads the state into the memory that `place` gives. Call it once. Throws a `StateFileError`;
   * then the memory's content is void.
   */
  async read(shape: SnapshotShape, place: Place): Promise<SnapshotHead> {
    try {
      return await readSnapshot(
        this.reader,
        shape,
        (start) => {
          const most = fileBytesMax(start);
          if (this.length > most) throw new StateFileError(`has ${this.length} bytes, and may have ${most}`);
          return place(start);
        },
        () => {},
        () => {},
      );
    } catch (error) {
      throw asFileError(error);
    }
  }

  close(): Promise<void> {
    return this.handle.close();
  }
}

function openFirst(opener: FrameOpener, key: ClusterKey | null, start: Buffer, body: Buffer) {
  try {
    return opener.open(start, body);
  } catch {
    throw new StateFileError(
      key === null ? 'is damaged' : `does not open with key ${key.id}: it is damaged, or of another cluster or key`,
    );
  }
}

/** The most bytes of a file of this shape. */
function fileBytesMax({ objects, slots, arenaBytes }: SnapshotStart): number {
  const content = LENGTH_BYTES + CBOR_BYTES_MAX + vectorBytesMax(objects, slots) + arenaBytes;
  const frames = 3 + Math.ceil(content / FRAME_BYTES_MAX);
  return PREAMBLE.bytes + CBOR_BYTES_MAX + content + frames * FRAME_OVERHEAD;
}

function checkFileHead(value: unknown): StateFileHead {
  const [text, whole] = [textField(BOOT_CHARACTERS_MAX), wholeField(0)];
  return checkFields<StateFileHead>(value, {
    clusterId: wholeField(0, 0xffff_ffff),
    meaning: wholesField(2, -(2 ** 31), 2 ** 31 - 1),
    member: wholeField(1, ID_MAX),
    slot: wholeField(0, SLOTS_MAX - 1),
    incarnation: wholeField(1, INCARNATION_MAX),
    savedMs: wholeField(0),
    // The first files of this format have neither.
    boot: (field) => (field === undefined ? '' : text(field)),
    monotonicMs: (field) => (field === undefined ? 0 : whole(field)),
    members: wholesField(SLOTS_MAX, 0, ID_MAX),
  });
}

/** The key that a file names. */
function namedKey({ keys }: Circle, id: number): ClusterKey | null {
  if (id > KEY_ID_MAX) throw new StateFileError(`names key ${id}`);
  if (id === 0 && keys.length === 0) return null;
  if (id === 0) throw new StateFileError('is not sealed, and this cluster has a key');
  if (keys.length === 0) throw new StateFileError(`is sealed with key ${id}, and cluster.key_file is not set`);
  const key = keys.find((candidate) => candidate.id === id);
  if (key === undefined) throw new StateFileError(`is sealed with key ${id}, which is not in cluster.key_file`);
  return key;
}

function asFileError(error: unknown): StateFileError {
  if (error instanceof StateFileError) return error;
  return new StateFileError(`cannot be read: ${(error as Error).message}`, { cause: error });
}

class FileSource implements ByteSource {
  private readonly handle: FileHandle;

  constructor(handle: FileHandle) {
    this.handle = handle;
  }

  /** `count` is at most a frame's length. */
  async take(count: number): Promise<Buffer> {
    const bytes = Buffer.alloc(count);
    for (let at = 0; at < count; ) {
      const { bytesRead } = await this.handle.read(bytes, at, count - at);
      if (bytesRead === 0) throw new StateFileError('is cut short');
      at += bytesRead;
    }
    return bytes;
  }
}
