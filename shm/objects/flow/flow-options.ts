/** Options of a flow table, and the reasons why it refuses an entry. */

import type { HalfOpenOptions } from '../table/half-open.js';
import type { Winner } from './flow-record.js';

/** Key sizes of common flows, in words. */
export const KEY_WORDS_IPV4_ENDPOINT = 2;
export const KEY_WORDS_IPV4_FIVE_TUPLE = 4;
export const KEY_WORDS_IPV6_FIVE_TUPLE = 10;

export interface FlowTableOptions extends HalfOpenOptions {
  /** Maximum number of entries. */
  readonly capacity: number;
  /** See `KEY_WORDS_…`; any number of words is possible. */
  readonly keyWords: number;
  /** May be 0, if the rank says everything. */
  readonly valueWords: number;
  /**
   * Default `largerValue`. It must be the same at every member. Its name is part of the meaning
   * hash.
   */
  readonly winner?: Winner;
}

/** Why `add` returned `NONE`. */
export const FlowRefusal = {
  NONE: 0,
  TABLE_FULL: 1,
  LOG_FULL: 2,
  CONTENDED: 3,
  /** The quota of half-open entries is full, and none could be evicted. */
  HALF_OPEN: 4,
} as const;
export type FlowRefusal = (typeof FlowRefusal)[keyof typeof FlowRefusal];
