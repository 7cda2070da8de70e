/**
 * Assigns test files to suites, and decides which of them may run at the same time.
 *
 * - `*.test.ts` are the tests of `npm test`, `*.long.ts` those of `npm run test:long`. The long run
 *   also repeats, at full size, the files that have two sizes (test/support/scale.ts).
 * - Files that build networks or use real interfaces run one after the other. So do files that run
 *   clusters of daemons. The two lanes may run at the same time, because they share neither
 *   addresses nor namespaces. All other files run in parallel: they use files, ports and shared
 *   memory of their own, and pass however slow they are.
 */

import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The compiled tests. */
export const TESTS = fileURLToPath(new URL('..', import.meta.url));

export const SUITES = ['quick', 'test', 'long', 'portable'] as const;
export type Suite = (typeof SUITES)[number];

export const LANES = ['network', 'daemons'] as const;
export type Lane = (typeof LANES)[number];

export interface Selection {
  /** The slowest files come first, so that no process is left alone with them at the end. */
  readonly parallel: readonly string[];
  /** The files that run one after the other, by lane. */
  readonly lanes: Readonly<Record<Lane, readonly string[]>>;
}

/** Folders whose tests build networks or use something that exists once per machine. */
const NETWORK_FOLDERS = /^(e2e|demo|systemd)\//;
/** Needs of a test that builds networks (test/support/require.ts). */
const NETWORK_NEEDS = /needs\([^)]*'(netns|af_xdp)'/;
/** Clusters of daemons on loopback, and etcd. */
const DAEMONS_USE = /loopback-cluster\.js'|needs\([^)]*'tool:etcd'/;
/** Other files whose daemons must do something within a certain time. */
const DAEMONS_FILES: readonly string[] = [
  'daemon/hung-files.test.js',
  'daemon/keys.test.js',
  'daemon/own-middlebox.test.js',
  'daemon/membership/resync.test.js',
];

/**
 * Folders whose tests need no network namespaces. .ci/run repeats them on another version of Node.
 */
const PORTABLE_FOLDERS = /^(conf|docs|options|shm|tidy|workers)\//;

/** Folders that `test:quick` leaves out. */
const NOT_QUICK_FOLDERS = /^(daemon|demo|docs|e2e|fuzz|hammer|nft|sim|systemd|testbed)\//;

/**
 * The slowest files, slowest first. They start first, each in a process of its own. `test:quick`
 * leaves them out.
 */
const SLOW: readonly string[] = [
  'hammer/sketch.test.js',
  'sim/sim.test.js',
  'workers/snapshot/stream.test.js',
  'hammer/nat-binding.test.js',
  'sim/planted.test.js',
  'hammer/shared.test.js',
  'workers/snapshot/busy.test.js',
  'daemon/rules/rules.test.js',
  'workers/replication/core.test.js',
  'workers/middleboxes/nat/nat-answers.test.js',
  'workers/replication/agents.test.js',
  'hammer/counter.test.js',
  'workers/replication/detach.test.js',
  'daemon/config/check.test.js',
  'fuzz/packets.test.js',
  'daemon/constellation.test.js',
  'shm/objects/nat/nat-convergence.test.js',
  'conf/robust.test.js',
  'shm/objects/table/half-open.test.js',
  'workers/replication/sealed-agents.test.js',
  'workers/middleboxes/nat/nat-property.test.js',
  'workers/middleboxes/idps/idps-property.test.js',
  'workers/replication/chaos.test.js',
  'workers/replication/joining.test.js',
  'workers/replication/congestion.test.js',
  'workers/middleboxes/nat/nat-filter.test.js',
];

/**
 * Other files that `test:quick` leaves out to stay below a minute. They take 2 s or more of CPU
 * time.
 */
const NOT_QUICK: readonly string[] = [
  'run/run.test.js',
  'shm/barrier.test.js',
  'shm/objects/sketch/count-min.test.js',
  'shm/objects/counting/counter-cells.test.js',
  'shm/objects/sketch/counting-bloom.test.js',
  'shm/objects/nat/nat-recover.test.js',
  'shm/objects/sets/shared-set.test.js',
  'workers/plane/holds-entries.test.js',
  'workers/middleboxes/firewall/chains.test.js',
  'workers/middleboxes/firewall/import-nft.test.js',
  'workers/middleboxes/firewall/opening.test.js',
  'workers/middleboxes/idps/idps-evidence.test.js',
  'workers/middleboxes/idps/idps-silence.test.js',
  'workers/middleboxes/nat/nat-ports.test.js',
  'workers/middleboxes/nat/nat-sources.test.js',
  'workers/middleboxes/timers.test.js',
  'workers/native/fuzz.test.js',
  'workers/packet/encapsulation.test.js',
  'workers/packet/options.test.js',
  'workers/packet/quoted.test.js',
  'workers/plane/passage-property.test.js',
  'workers/replication/versions.test.js',
  'workers/plane/split-headers.test.js',
];

/** Files that have two sizes (test/support/scale.ts) because of a module that they import. */
const TWO_SIZES: readonly string[] = ['e2e/downloads.test.js'];

/** Absolute paths of the compiled test files of a suite. */
export function filesOf(suite: Suite): string[] {
  return readdirSync(TESTS, { recursive: true, encoding: 'utf8' })
    .filter((name) => (suite === 'long' ? isLong(name) : name.endsWith('.test.js')))
    .filter((name) => suite !== 'portable' || PORTABLE_FOLDERS.test(name))
    .map((name) => join(TESTS, name))
    .filter((file) => suite !== 'quick' || isQuick(file));
}

function isLong(name: string): boolean {
  return name.endsWith('.long.js') || (name.endsWith('.test.js') && hasTwoSizes(join(TESTS, name)));
}

/**
 * Whether a file takes its sizes from test/support/scale.ts, directly or through another module.
 */
function hasTwoSizes(file: string): boolean {
  return /support\/scale\.js'/.test(readFileSync(file, 'utf8')) || TWO_SIZES.includes(relative(TESTS, file));
}

function isQuick(file: string): boolean {
  const name = relative(TESTS, file);
  return !NOT_QUICK_FOLDERS.test(name) && !SLOW.includes(name) && !NOT_QUICK.includes(name) && laneOf(file) === null;
}

/** The lane of a file; `null` if it may run in parallel. */
export function laneOf(file: string): Lane | null {
  const name = relative(TESTS, file);
  const text = readFileSync(file, 'utf8');
  if (NETWORK_FOLDERS.test(name) || NETWORK_NEEDS.test(text)) return 'network';
  return DAEMONS_FILES.includes(name) || DAEMONS_USE.test(text) ? 'daemons' : null;
}

/** Sorts files by when they may run. */
export function select(files: readonly string[]): Selection {
  const place = (file: string): number => {
    const at = SLOW.indexOf(relative(TESTS, file));
    return at === -1 ? SLOW.length : at;
  };
  const sorted = [...new Set(files)].sort((a, b) => place(a) - place(b) || (a < b ? -1 : 1));
  const of = (lane: Lane | null): string[] => sorted.filter((file) => laneOf(file) === lane);
  return { parallel: of(null), lanes: { network: of('network'), daemons: of('daemons') } };
}

/**
 * Whether a file has a process of its own. Small files share one, because a start costs half a
 * second.
 */
export function isLarge(file: string): boolean {
  return SLOW.includes(relative(TESTS, file)) || laneOf(file) !== null;
}

/** The files that this module names. */
export function named(): string[] {
  return [...DAEMONS_FILES, ...SLOW, ...NOT_QUICK, ...TWO_SIZES].map((name) => join(TESTS, name));
}
