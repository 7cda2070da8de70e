/**
 * Tests in two sizes: a small one for `npm test`, and the full one for `npm run test:long`, which
 * repeats every `*.test.ts` that imports this module. A `*.long.ts` that runs by itself has the
 * full size, too.
 */

/** Set by the runner (test/run/main.ts) for the long tests. */
export const FULL_SIZE = 'CONSTELLATION_TEST_FULL_SIZE';

export const isFullSize = process.env[FULL_SIZE] === '1' || process.argv.some((word) => word.endsWith('.long.js'));

/** Returns a number of rounds, packets or connections by the size of the run. */
export const scaled = (small: number, full: number): number => (isFullSize ? full : small);
