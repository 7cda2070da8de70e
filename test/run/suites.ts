/**
 * Which test files belong to which suite, and which of them may run at the same time.
 *
 * - `*.test.ts` are the tests of `npm test`, `*.long.ts` those of `npm run test:long`.
 * - Files that build networks, need real interfaces or run whole clusters of daemons run one after
 *   the other. All others run beside them, in parallel and at a lower priority: they use files,
 *   ports and shared memory of their own, and pass however slow they are.
 */

import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The compiled tests. */
export const TESTS = fileURLToPath(new URL('..', import.meta.url));

export const SUITES = ['quick', 'test', 'long', 'portable'] as const;
export type Suite = (typeof SUITES)[number];

export interface Selection {
  /** Those that take longest come first, so that no process is left alone with them at the end. */
  readonly parallel: readonly string[];
  /** Those that run one after the other. */
  readonly serial: readonly string[];
}

/** Folders whose tests build networks or share what the machine has once. */
const SERIAL_FOLDERS = /^(e2e|demo|systemd)\//;
/** What makes a file serial: needs (test/support/require.ts), or a cluster of daemons. */
const SERIAL_USES = /needs\([^)]*'(netns|af_xdp|tool:etcd)'|loopback-cluster\.js'/;
/** Files that run serially for another reason: daemons that are given a time to do something. */
const SERIAL_FILES: readonly string[] = [
  'daemon/hung-files.test.js',
  'daemon/keys.test.js',
  'daemon/own-middlebox.test.js',
  'daemon/membership/resync.test.js',
];

/**
 * Folders whose tests need no network namespaces; .ci/run repeats them on another version of Node.
 */
const PORTABLE_FOLDERS = /^(conf|docs|shm|tidy|workers)\//;

/** Folders that `test:quick` leaves out. */
const NOT_QUICK_FOLDERS = /^(daemon|demo|docs|e2e|fuzz|hammer|nft|sim|systemd|testbed)\//;

/** Files that take longest, longest first: they start first. `test:quick` leaves them out. */
const SLOW: readonly string[] = [
  'daemon/membership/join.test.js',
  'daemon/membership/commands.test.js',
  'hammer/sketch.test.js',
  'daemon/own-middlebox.test.js',
  'sim/sim.test.js',
  'daemon/keys.test.js',
  'workers/snapshot/stream.test.js',
  'daemon/membership/refusals.test.js',
  'hammer/nat-binding.test.js',
  'sim/planted.test.js',
  'hammer/shared.test.js',
  'workers/snapshot/busy.test.js',
  'daemon/rules.test.js',
  'workers/replication/core.test.js',
  'workers/middleboxes/nat-answers.test.js',
  'workers/replication/agents.test.js',
  'hammer/counter.test.js',
  'workers/replication/detach.test.js',
  'daemon/check.test.js',
  'fuzz/packets.test.js',
  'daemon/constellation.test.js',
  'shm/objects/nat-convergence.test.js',
  'conf/robust.test.js',
  'daemon/membership/resync.test.js',
  'daemon/hung-files.test.js',
  'daemon/keys.test.js',
  'shm/objects/half-open.test.js',
  'workers/replication/sealed-agents.test.js',
  'workers/middleboxes/nat-property.test.js',
  'workers/middleboxes/idps-property.test.js',
  'workers/replication/chaos.test.js',
  'workers/replication/joining.test.js',
  'workers/replication/congestion.test.js',
  'workers/middleboxes/nat-filter.test.js',
];

/** Absolute paths of the compiled test files of a suite. */
export function filesOf(suite: Suite): string[] {
  const ending = suite === 'long' ? '.long.js' : '.test.js';
  return readdirSync(TESTS, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith(ending))
    .filter((name) => suite !== 'portable' || PORTABLE_FOLDERS.test(name))
    .map((name) => join(TESTS, name))
    .filter((file) => suite !== 'quick' || isQuick(file));
}

function isQuick(file: string): boolean {
  const name = relative(TESTS, file);
  return !NOT_QUICK_FOLDERS.test(name) && !SLOW.includes(name) && !isSerial(file);
}

export function isSerial(file: string): boolean {
  const name = relative(TESTS, file);
  return SERIAL_FOLDERS.test(name) || SERIAL_FILES.includes(name) || SERIAL_USES.test(readFileSync(file, 'utf8'));
}

/** Sorts files into those that may run in parallel and those that run one after the other. */
export function select(files: readonly string[]): Selection {
  const place = (file: string): number => {
    const at = SLOW.indexOf(relative(TESTS, file));
    return at === -1 ? SLOW.length : at;
  };
  const sorted = [...new Set(files)].sort((a, b) => place(a) - place(b) || (a < b ? -1 : 1));
  return {
    parallel: sorted.filter((file) => !isSerial(file)),
    serial: sorted.filter((file) => isSerial(file)),
  };
}

/**
 * Whether a file has a process of its own; small ones share one, since starting it costs half a
 * second.
 */
export function isLarge(file: string): boolean {
  return SLOW.includes(relative(TESTS, file)) || isSerial(file);
}

/** The files that this module names. */
export function named(): string[] {
  return [...SERIAL_FILES, ...SLOW].map((name) => join(TESTS, name));
}
