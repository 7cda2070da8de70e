/** The declaration of keyed HyperLogLogs (keyed-hyperloglogs.ts), and their layout in memory. */

import { BYTES_PER_WORD, LINE, struct } from '../../struct.js';
import { MAX_WORDS } from '../core/journal.js';

export interface KeyedHyperLogLogsOptions {
  /** Maximum number of keys, rounded up to a power of two. */
  readonly capacity: number;
  readonly keyWords: number;
  /** Number of sketches of each key. */
  readonly sketches: number;
  /**
   * A sketch has 2^precision registers, 4…6; default 5. The standard error is then 18 %, and less
   * below some ten.
   */
  readonly precision?: number;
  readonly epochSeconds: number;
  /**
   * A key is replicated once more than this many of its registers were raised, 0…24; default 4.
   */
  readonly quiet?: number;
  /** Maximum keys per second that a worker replicates for the first time; default 4096. */
  readonly promotions?: number;
  /** See sketch-hash.ts. */
  readonly seed?: string;
}

/** Number of slots in which a key can be. */
export const WAYS = 8;
/** One bank for the present epoch and one for the last. */
export const BANKS = 2;
export const QUIET_MAX = 24;
export const COUNTS = struct({ refused: LINE, displaced: 1, logFull: 1, malformed: 1, contended: 1, postponed: 1 });

const HASH_BITS = 64;

export function rankMaxOf({ precision }: Shape): number {
  return HASH_BITS - precision + 1;
}

/** Whether each of these words has a valid sketch, register and rank. */
export function areItems(shape: Shape, words: Int32Array, at: number, count: number): boolean {
  const registers = 2 ** shape.precision;
  for (let i = at; i < at + count; i++) {
    const rank = words[i] & 0xff;
    const register = (words[i] >>> 8) & 0xff;
    if (words[i] >>> 16 >= shape.sketches || register >= registers || rank < 1 || rank > rankMaxOf(shape)) return false;
  }
  return true;
}

/** The counters, for `describe`. */
export function figuresOf(words: Int32Array): Record<string, number> {
  const { at } = COUNTS;
  return {
    refused: words[at.refused],
    displaced: words[at.displaced],
    postponed: words[at.postponed],
    log_full: words[at.logFull],
    contended: words[at.contended],
    malformed: words[at.malformed],
  };
}

export interface Shape extends Required<Omit<KeyedHyperLogLogsOptions, 'seed'>> {}

/** Throws a `RangeError` if a declaration is invalid. */
export function check(shape: Shape): void {
  const whole = (name: string, value: number, least: number, most: number): void => {
    if (!Number.isInteger(value) || value < least || value > most)
      throw new RangeError(`keyed HyperLogLogs: ${name} ${value} is not a whole number from ${least} to ${most}`);
  };
  whole('precision', shape.precision, 4, 6);
  whole('key words', shape.keyWords, 1, 10);
  whole('quiet', shape.quiet, 0, QUIET_MAX);
  whole('promotions', shape.promotions, 0, 2 ** 31 - 1);
  whole('epoch seconds', shape.epochSeconds, 1, 2 ** 24);
  // An operation may write a whole bank and the rest of an entry.
  whole('sketches', shape.sketches, 1, Math.floor((MAX_WORDS - shape.keyWords - 10) / (2 ** shape.precision / 4)));
}

/**
 * Layout of a set: its lock, then for each slot tag, epoch of each bank, weight and replicated. It
 * fills three cache lines. The search for a slot for a new key reads all of these words. So they
 * are not in the entries, which lie far apart.
 */
export const SET = struct({ lock: 1, tags: WAYS, epochs: BANKS * WAYS, weights: WAYS, replicated: WAYS, spare: 7 });

export function layoutOf({ capacity, keyWords, sketches, precision }: Shape) {
  const sketchWords = 2 ** precision / BYTES_PER_WORD;
  const bankWords = sketches * sketchWords;
  const entryWords = keyWords + BANKS * bankWords;
  const sets = capacity / WAYS;
  const entriesAt = COUNTS.words + sets * SET.words;
  return { sketchWords, bankWords, entryWords, sets, entriesAt, words: entriesAt + capacity * entryWords };
}
