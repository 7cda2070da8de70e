/**
 * What the hammer of sets and registers and its threads agree on: few keys, so that everything
 * collides.
 */

import type { LogProducer } from '../../shm/log.js';
import { Journal } from '../../shm/objects/core/journal.js';
import type { StateDefinition, StateObject } from '../../shm/objects/core/object.js';
import { lastWriter } from '../../shm/objects/sets/register.js';
import { removeSet } from '../../shm/objects/sets/shared-set.js';
import { Region } from '../../shm/region.js';

export const NOW = 70_000_000;
export const KEYS = 40;
export const VALUE_WORDS = 4;
export const hammeredSet = removeSet({ capacity: 64, keyWords: 2, members: 2 });
export const hammeredRegisters = lastWriter({ length: 4, valueWords: VALUE_WORDS });

export interface SharedWork {
  readonly id: number;
  readonly set: SharedArrayBuffer;
  readonly registers: SharedArrayBuffer;
  readonly journals: SharedArrayBuffer;
  /** Word 0: not 0 when the threads are to end. */
  readonly control: SharedArrayBuffer;
  /** Null for the receiver. */
  readonly ring: SharedArrayBuffer | null;
}

export interface SharedEnd {
  readonly done: number;
  readonly torn: number;
}

export function openShared<T extends StateObject>(
  definition: StateDefinition<T>,
  id: number,
  region: SharedArrayBuffer,
  { journals, id: writer }: Pick<SharedWork, 'journals' | 'id'>,
  log: LogProducer | null,
  memberIndex = 0,
): T {
  return definition.open({
    id,
    region: new Region(region),
    secret: Int32Array.of(memberIndex, 2, 3, 4),
    writer: { id: writer, journal: new Journal(journals, writer), log },
    memberIndex,
    memberCount: 2,
  });
}

/** Four words that belong together. */
export function fitting(n: number, out: Int32Array): Int32Array {
  out[0] = n;
  out[1] = ~n;
  out[2] = n ^ 0x5555;
  out[3] = Math.imul(n, 31);
  return out;
}

export function fits([a, b, c, d]: Int32Array): boolean {
  return b === ~a && c === (a ^ 0x5555) && d === Math.imul(a, 31);
}
