import { strict as assert } from 'node:assert';
import {
  appendFile,
  chmod,
  mkdtemp,
  open,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { INCARNATIONS_FLOATS } from '../../../shm/board-records.js';
import { newKey } from '../../../workers/replication/wire/cluster-key.js';
import type { Circle } from '../../../workers/snapshot/handshake.js';
import type { SnapshotHead, SnapshotShape } from '../../../workers/snapshot/head.js';
import { type Saver, StateFile, StateFileError, writeStateFile } from '../../../workers/snapshot/state-file.js';

const SHAPE: SnapshotShape = { objects: 1, slots: 2, arenaBytes: 200_000, layout: [3, -4], shapes: [{}] };
const nothing = { incarnation: 0, contiguous: 0, ranges: [] };
const HEAD: SnapshotHead = {
  donor: 1,
  unixMs: 1_800_000_000_000,
  lacks: [],
  vectors: {
    present: [[{ incarnation: 9, contiguous: 3, ranges: [5, 6, 9, 9] }, nothing]],
    former: [[nothing, nothing]],
    incarnations: [new Array<number>(INCARNATIONS_FLOATS).fill(0), new Array<number>(INCARNATIONS_FLOATS).fill(1)],
  },
};
const SAVER: Saver = { member: 4, slot: 1, incarnation: 77, members: [3, 4], boot: 'b', monotonicMs: 9 };
const key = newKey(1);
const circle = (keys = [key]): Circle => ({ clusterId: 5, meaningHash: [1, -2], keys });
const state = Uint8Array.from({ length: SHAPE.arenaBytes }, (_, i) => (i * 7919) >>> 5);

/** The state in pieces of other lengths than a frame's. */
function copyOf(bytes: Uint8Array) {
  return {
    async *pieces() {
      for (let at = 0; at < bytes.length; at += 5000) yield Buffer.from(bytes.subarray(at, at + 5000));
    },
  };
}

describe('a state file', () => {
  let folder: string;
  let file: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'state-file-'));
    file = join(folder, 'state');
  });
  afterEach(() => rm(folder, { recursive: true }));

  const save = (to = circle()) => writeStateFile(file, to, SAVER, SHAPE, { head: HEAD, copy: copyOf(state) });

  async function restore(from = circle(), shape = SHAPE) {
    const opened = await StateFile.open(file, from);
    if (opened === null) return null;
    try {
      const into = new Uint8Array(shape.arenaBytes);
      const head = await opened.read(shape, () => into);
      return { file: opened.head, head, into };
    } finally {
      await opened.close();
    }
  }

  for (const [name, keys] of [
    ['sealed with the cluster key', [key]],
    ['without a key', []],
  ] as const) {
    it(`is read as it was written, ${name}`, async () => {
      const length = await save(circle([...keys]));
      const read = await restore(circle([...keys]));
      assert.deepEqual(read?.head, HEAD);
      assert.deepEqual(read?.into, state);
      assert.deepEqual(read?.file, { ...SAVER, clusterId: 5, meaning: [1, -2], savedMs: HEAD.unixMs });
      const { mode, size } = await stat(file);
      assert.equal(mode & 0o777, 0o600);
      assert.equal(size, length);
      assert.deepEqual(await readdir(folder), ['state']);
      assert.equal((await readFile(file)).includes(Buffer.from(state.subarray(0, 64))), keys.length === 0);
    });

    it(`is refused with any byte changed or missing, ${name}`, async () => {
      await save(circle([...keys]));
      const good = await readFile(file);
      // The reserved bytes of the preamble are protected by a key alone.
      const places = [0, 8, 9, 48, 60, 130, 200, 300, good.length - 25, good.length - 1];
      const anywhere = fc.oneof(fc.constantFrom(...places), fc.integer({ min: 48, max: good.length - 1 }));
      await fc.assert(
        fc.asyncProperty(anywhere, fc.integer({ min: 1, max: 255 }), fc.boolean(), async (at, change, isCut) => {
          const bad = isCut ? good.subarray(0, at) : Buffer.from(good);
          if (!isCut) bad[at] ^= change;
          await writeFile(file, bad);
          await assert.rejects(restore(circle([...keys])), StateFileError, `${isCut ? 'cut' : 'changed'} at ${at}`);
        }),
        { numRuns: 60 },
      );
    });
  }

  it('is refused with the reason if it is not for this instance', async () => {
    await save();
    const other = newKey(2);
    const refused = (from: Circle, reason: RegExp) => assert.rejects(restore(from), reason);
    await refused(circle([other]), /sealed with key 1, which is not in cluster.key_file/);
    await refused(circle([{ ...other, id: 1 }]), /does not open with key 1: .*another cluster or key/);
    await refused({ ...circle(), clusterId: 6 }, /another cluster or key/);
    await refused(circle([]), /sealed with key 1, and cluster.key_file is not set/);
    await refused({ ...circle(), meaningHash: [1, 2] }, /another configuration of state objects/);
    assert.ok(await restore(circle([other, key])), 'the second key of a rotation opens it');
    await save(circle([]));
    await refused(circle(), /is not sealed, and this cluster has a key/);
    await refused({ ...circle([]), clusterId: 6 }, /is of another cluster/);
    await appendFile(file, Buffer.alloc(100_000));
    await assert.rejects(restore(circle([])), /has 30\d+ bytes, and may have/);
    await save(circle([]));
    await assert.rejects(
      restore(circle([]), { ...SHAPE, arenaBytes: 199_999 }),
      /200000 bytes of state; here are 199999/,
    );
  });

  it('is refused if it is no file that its owner alone can write', async () => {
    assert.equal(await restore(), null);
    await save();
    await chmod(file, 0o620);
    await assert.rejects(restore(), /can be written by others \(mode 620\)/);
    await chmod(file, 0o600);
    await truncate(file, 20);
    await assert.rejects(restore(), /is cut short/);
    await writeFile(file, 'x'.repeat(500));
    await assert.rejects(restore(), /is something else/);
    await rm(file);
    await symlink(join(folder, 'elsewhere'), file);
    await assert.rejects(restore(), /is a symbolic link/);
    await rm(file);
    file = folder;
    await assert.rejects(restore(), /is not a regular file/);
  });

  it('stays as it was if another cannot be written', async () => {
    await save();
    const before = await readFile(file);
    const failing = {
      async *pieces() {
        yield Buffer.alloc(100_000);
        throw new Error('the child died');
      },
    };
    const saving = writeStateFile(file, circle(), SAVER, SHAPE, { head: HEAD, copy: failing });
    await assert.rejects(saving, /the child died/);
    assert.deepEqual(await readdir(folder), ['state']);
    assert.deepEqual(await readFile(file), before);
    // What an earlier save left when the host went down.
    const handle = await open(`${file}.new`, 'w', 0o666);
    await handle.close();
    await save();
    assert.equal((await stat(file)).mode & 0o777, 0o600);
    assert.ok(await restore());
  });
});
