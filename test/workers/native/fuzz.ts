/**
 * Calls every function of the raw addon with arguments of every kind, for fuzz.test.ts: `node
 * fuzz.js SEED`. What it opens by chance is closed by chance, so functions also meet descriptors
 * that are open, closed, or another kind's.
 */

import { closeSync } from 'node:fs';
import { createRequire } from 'node:module';
import fc from 'fast-check';

const addon = createRequire(import.meta.url)('../../../workers/native/addon.node') as Record<
  string,
  (...argv: unknown[]) => unknown
>;
const RUNS = 20_000;

const shared = new SharedArrayBuffer(1 << 17);
const detached = new Uint8Array(8);
structuredClone(detached.buffer, { transfer: [detached.buffer] });

/** Descriptors that were handed out lately. */
const handed: number[] = [];

const value = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: -2, max: 70 }) },
  { weight: 3, arbitrary: fc.nat({ max: 1000 }).map((i) => handed[i % (handed.length || 1)] ?? i) },
  { weight: 2, arbitrary: fc.constantFrom(2048, 4096, 64, 65536, 2 ** 31, 2 ** 32, 2 ** 53, -(2 ** 31)) },
  { weight: 2, arbitrary: fc.double() },
  {
    weight: 4,
    arbitrary: fc.constantFrom('lo', 'p', '', 'x'.repeat(5000), 'a\0b', '\ud800', 'gro', 'tso', '@ct-fuzz'),
  },
  { weight: 4, arbitrary: fc.boolean() },
  {
    weight: 8,
    arbitrary: fc.constantFrom<unknown>(
      new Uint8Array(shared),
      new Uint8Array(shared, 3, 100),
      new Uint8Array(64),
      new Uint8Array(0),
      detached,
      new Int32Array(4),
      new Int32Array(100),
      new Int32Array(new SharedArrayBuffer(16)),
      new Float64Array(4),
      new Float64Array(7),
      new DataView(new ArrayBuffer(8)),
      new ArrayBuffer(8),
      shared,
    ),
  },
  {
    weight: 3,
    arbitrary: fc.constantFrom<unknown>(undefined, null, {}, [], Symbol('s'), 7n, () => 1, new Proxy([], {})),
  },
  { weight: 1, arbitrary: fc.bigInt() },
  { weight: 1, arbitrary: fc.string() },
);

/**
 * A wait may be an hour long, rightly; here it must not be. And the loopback of this machine keeps
 * its offloads.
 */
function harmless(name: string, argv: unknown[]): unknown[] {
  if (name === 'waitReadable' && typeof argv[1] === 'number' && argv[1] > 1) return [argv[0], 1];
  if (name === 'offloadSet' && argv[0] === 'lo') return ['ct-absent', ...argv.slice(1)];
  if (name === 'bpfLinkCreate' && argv[1] === 'lo') return [argv[0], 'ct-absent', argv[2]];
  return argv;
}

function call(name: string, argv: unknown[]): void {
  let result: unknown;
  try {
    result = addon[name](...harmless(name, argv));
  } catch (error) {
    if (!(error instanceof Error)) throw new Error(`${name} threw ${String(error)}`);
    return;
  }
  const fd = typeof result === 'object' && result !== null && 'fd' in result ? result.fd : result;
  if (name === 'forkSnapshot') {
    const { child, pipe } = result as { child: number; pipe: number };
    closeSync(pipe);
    handed.push(child);
  }
  if (/Open|Create|Load/.test(name) && typeof fd === 'number') handed.push(fd);
  if (handed.length > 20) {
    const oldest = handed.shift();
    try {
      addon['closeDescriptor'](oldest);
    } catch {
      // closed by chance already
    }
  }
}

const cases = fc.record({
  // `exitNow` does what it says.
  name: fc.constantFrom(...Object.keys(addon).filter((name) => name !== 'exitNow')),
  argv: fc.array(value, { maxLength: 7 }),
});

// Plausible calls, so that not everything ends at the first argument's check.
const plausible = fc.oneof(
  fc.record({
    name: fc.constant('xskOpen'),
    argv: fc.tuple(
      fc.constant('p'),
      fc.constant(new Uint8Array(shared)),
      fc.constantFrom(2048, 4096, 3000),
      fc.nat({ max: 4096 }),
      fc.constantFrom(64, 2, 63, 1 << 20),
      fc.boolean(),
    ),
  }),
  fc.record({ name: fc.constantFrom('eventCreate', 'threadId', 'threadCores', 'pageBytes'), argv: fc.constant([]) }),
  fc.record({
    name: fc.constant('forkSnapshot'),
    argv: fc.tuple(
      fc.constant(new Uint8Array(shared, 0, 1 << 16)),
      fc.constant(new Uint8Array(shared, 1 << 16, 4096)),
      fc
        .array(fc.oneof(fc.constantFrom(0, 1, 8, 64, 4096, 65536), fc.double()), { minLength: 7, maxLength: 7 })
        .map((numbers) => Float64Array.from(numbers)),
    ),
  }),
  fc.record({ name: fc.constant('bpfMapCreate'), argv: fc.constant([4, 'p']) }),
  fc.record({
    name: fc.constantFrom('bpfProgramLoad'),
    argv: fc.tuple(fc.uint8Array({ minLength: 8, maxLength: 64 }), fc.constant('p')),
  }),
);

fc.assert(
  fc.property(fc.oneof({ weight: 5, arbitrary: cases }, { weight: 1, arbitrary: plausible }), ({ name, argv }) =>
    call(name, [...argv]),
  ),
  { seed: Number(process.argv[2]), numRuns: RUNS, endOnFailure: true },
);
(globalThis as { gc?: () => void }).gc?.();
for (const fd of handed) call('closeDescriptor', [fd]);
