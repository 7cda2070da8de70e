import { strict as assert } from 'node:assert';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, readFileSync } from 'node:fs';
import { Socket } from 'node:net';
import {
  addressOf,
  adviseMemory,
  childKill,
  childStatus,
  closeDescriptor,
  forkSnapshot,
  PAGE_BYTES,
  type SnapshotChild,
  thickenFork,
  thinFork,
} from '../../../workers/native/index.js';
import { children, openDescriptors, soon } from '../../support/process.js';
import { inThread } from './in-thread.js';

const BINDING = new URL('../../../workers/native/index.js', import.meta.url).href;
const NO_SUMS = new Float64Array(0);

function shared(bytes: number): Uint8Array {
  return new Uint8Array(new SharedArrayBuffer(bytes));
}

async function readAll(pipe: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of new Socket({ fd: pipe, readable: true, writable: false })) pieces.push(piece as Buffer);
  return Buffer.concat(pieces);
}

/** How it ended; it is gone then. */
async function ended({ child }: SnapshotChild): Promise<number> {
  let status: number | undefined;
  assert.ok(
    await soon(() => {
      status = childStatus(child);
      return status !== undefined;
    }),
    'it ends',
  );
  closeDescriptor(child);
  return status as number;
}

describe('the native binding: a snapshot by fork', () => {
  let descriptors: string[];
  let before: Record<number, string>;
  beforeEach(async () => {
    descriptors = openDescriptors();
    before = children();
  });
  afterEach(async () => {
    assert.ok(await soon(() => openDescriptors().length <= descriptors.length));
    assert.deepEqual(openDescriptors(), descriptors, 'no descriptor is left');
    assert.deepEqual(children(), before, 'no child, and no zombie');
  });

  it('writes memory as it was at that moment, whatever becomes of it', async () => {
    const arena = shared(3 << 20);
    for (let i = 0; i < arena.length; i++) arena[i] = i % 251;
    const was = Buffer.from(arena);
    const fork = forkSnapshot(arena, shared(64), NO_SUMS);
    arena.fill(255);
    const bytes = await readAll(fork.pipe);
    assert.equal(await ended(fork), 0);
    assert.ok(bytes.equals(was));
  });

  it('writes memory whose former owner had kept it out of forks', async () => {
    const arena = shared(1 << 20);
    arena.fill(7);
    adviseMemory(arena, 'dontfork');
    const fork = forkSnapshot(arena, shared(64), NO_SUMS);
    const bytes = await readAll(fork.pipe);
    assert.equal(await ended(fork), 0);
    assert.ok(bytes.equals(Buffer.alloc(1 << 20, 7)));
  });

  it('adds what lies beside the arena, cell by cell, also across its blocks', async () => {
    const arena = shared((1 << 20) + 4096);
    const locals = shared(1 << 20);
    const inArena = new Float64Array(arena.buffer);
    const inLocals = new Float64Array(locals.buffer);
    for (let i = 0; i < inArena.length; i++) inArena[i] = i;
    for (let i = 0; i < inLocals.length; i++) inLocals[i] = 1e6 + i;
    // Every third double from the 5th: three lanes; then a column of one lane near the end; then
    // the last double itself.
    const sums = [
      { target: 5, stride: 3, cells: 30_000, source: 7, step: 1, lane: 32_768, lanes: 3 },
      { target: 130_000, stride: 1, cells: 500, source: 1, step: 2, lane: 0, lanes: 1 },
      { target: inArena.length - 1, stride: 1, cells: 1, source: 0, step: 1, lane: 1, lanes: 4 },
    ];
    const expected = inArena.slice();
    for (const { target, stride, cells, source, step, lane, lanes } of sums)
      for (let cell = 0; cell < cells; cell++)
        for (let l = 0; l < lanes; l++) expected[target + cell * stride] += inLocals[source + cell * step + l * lane];
    const numbers = sums.flatMap(({ target, stride, cells, source, step, lane, lanes }) => [
      8 * target,
      8 * stride,
      cells,
      8 * source,
      8 * step,
      8 * lane,
      lanes,
    ]);
    const fork = forkSnapshot(arena, locals, Float64Array.from(numbers));
    const bytes = await readAll(fork.pipe);
    assert.equal(await ended(fork), 0);
    assert.deepEqual(new Float64Array(Uint8Array.from(bytes).buffer), Float64Array.from(expected));
    assert.equal(inArena[5], 5, 'our own memory is as it was');
  });

  it('refuses sums that reach past the memory, overlap, or are not on words', () => {
    const arena = shared(4096);
    const locals = shared(4096);
    const good = [0, 8, 512, 0, 8, 0, 1];
    for (const [at, wrong] of [
      [0, 4096],
      [0, 4],
      [0, -8],
      [0, Number.NaN],
      [1, 0],
      [1, 16],
      [2, 0],
      [2, 513],
      [2, 2 ** 52],
      [3, 8],
      [4, 16],
      [5, 2 ** 60],
      [6, 0],
      [6, 1e9],
    ] as const)
      assert.throws(
        () => forkSnapshot(arena, locals, Float64Array.from(good.map((n, i) => (i === at ? wrong : n)))),
        RangeError,
        `${at}: ${wrong}`,
      );
    assert.throws(() => forkSnapshot(arena, locals, Float64Array.from([...good, ...good])), RangeError, 'overlap');
    assert.throws(() => forkSnapshot(arena, locals, new Float64Array(8)), RangeError);
    assert.throws(() => forkSnapshot(new Uint8Array(8), locals, NO_SUMS), TypeError, 'not shared');
    assert.throws(() => forkSnapshot(arena.subarray(1), locals, NO_SUMS), RangeError, 'not on a word');
  });

  it('can be ended half-way', async () => {
    const fork = forkSnapshot(shared(32 << 20), shared(8), NO_SUMS);
    assert.equal(childStatus(fork.child), undefined, 'nobody reads: it waits');
    childKill(fork.child);
    assert.equal(await ended(fork), -9);
    closeSync(fork.pipe);
  });

  it('ends when nobody reads any more', async () => {
    const fork = forkSnapshot(shared(32 << 20), shared(8), NO_SUMS);
    closeSync(fork.pipe);
    assert.equal(await ended(fork), 1);
  });

  it('ends with the descriptor, and with the thread that forked it', async () => {
    const fork = forkSnapshot(shared(32 << 20), shared(8), NO_SUMS);
    closeDescriptor(fork.child);
    assert.ok(!existsSync(`/proc/${fork.pid}`));
    closeSync(fork.pipe);
    const pid = await inThread((native) => {
      const memory = (bytes: number): Uint8Array => new Uint8Array(new SharedArrayBuffer(bytes));
      const { pid: child, pipe } = native.forkSnapshot(memory(32 << 20), memory(8), new Float64Array(0));
      new (process.getBuiltinModule('node:net').Socket)({ fd: pipe, readable: true, writable: false }).unref();
      return child;
    });
    assert.ok(await soon(() => !existsSync(`/proc/${pid}`)));
  });

  it('ends when its parent is killed', async () => {
    const source = `
      const { forkSnapshot } = await import(${JSON.stringify(BINDING)});
      const memory = (bytes) => new Uint8Array(new SharedArrayBuffer(bytes));
      console.log(forkSnapshot(memory(32 << 20), memory(8), new Float64Array(0)).pid);
      setInterval(() => {}, 1000);`;
    const parent = spawn(process.execPath, ['--input-type=module', '-e', source], { stdio: ['ignore', 'pipe', 2] });
    const [pid] = (await once(parent.stdout as NonNullable<typeof parent.stdout>, 'data')) as [Buffer];
    assert.ok(existsSync(`/proc/${Number(pid)}`));
    parent.kill('SIGKILL');
    await once(parent, 'exit');
    parent.stdout?.destroy();
    assert.ok(await soon(() => !existsSync(`/proc/${Number(pid)}`)));
  });

  it('has no descriptor but its pipe', async () => {
    const fork = forkSnapshot(shared(32 << 20), shared(8), NO_SUMS);
    const open = (): string =>
      execFileSync('ls', ['-l', `/proc/${fork.pid}/fd`], { encoding: 'utf8' })
        .match(/->.*/g)
        ?.join() ?? '';
    assert.ok(await soon(() => /^-> pipe:\[\d+\]$/.test(open())), open());
    childKill(fork.child);
    await ended(fork);
    closeSync(fork.pipe);
  });

  it('copies less where it is told what is read, and other programs start as before', async () => {
    const arena = shared(1 << 20).fill(7);
    const locals = shared(64);
    const packets = shared(4 * PAGE_BYTES);
    adviseMemory(packets, 'dontfork');
    assert.ok(thinFork(arena, locals) > 0);
    const fork = forkSnapshot(arena, locals, NO_SUMS);
    thickenFork();
    assert.ok((await readAll(fork.pipe)).every((byte) => byte === 7));
    assert.equal(await ended(fork), 0);
    assert.equal(execFileSync('echo', ['started'], { encoding: 'utf8' }), 'started\n');
    assert.match(flagsOf(addressOf(packets) + PAGE_BYTES), /\bdc\b/, 'what was to stay out of forks does');
    assert.doesNotMatch(flagsOf(addressOf(arena)), /\bdc\b/);
  });
});

/** The kernel's flags of the mapping an address is in; `dc`: not copied in a fork. */
function flagsOf(address: number): string {
  let inside = false;
  for (const line of readFileSync('/proc/self/smaps', 'utf8').split('\n')) {
    const range = /^([0-9a-f]+)-([0-9a-f]+) /.exec(line);
    if (range !== null) inside = Number.parseInt(range[1], 16) <= address && address < Number.parseInt(range[2], 16);
    if (inside && line.startsWith('VmFlags:')) return line;
  }
  return '';
}
