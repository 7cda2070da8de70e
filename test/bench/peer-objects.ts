/**
 * The state objects of the replication benchmark: a flow table, and stamps that measure how long a
 * record was in transit.
 */

import type { LogProducer } from '../../shm/log.js';
import { createJournals, Journal } from '../../shm/objects/core/journal.js';
import { Applied, type Delivery, type StateObject } from '../../shm/objects/core/object.js';
import { type FlowTable, flowTable, KEY_WORDS_IPV4_FIVE_TUPLE } from '../../shm/objects/flow/flow-table.js';
import { Region } from '../../shm/region.js';

export const FLOWS = 0;
export const STAMPS = 1;
const VALUE_WORDS = 2;
export const FLOWS_MAX = 1 << 20;
const SAMPLES_MAX = 1 << 17;
const STAMP = 1;
/** Writer ids of the worker and the receive thread. */
const WORKER = 1;
const RECEIVER = 3;
const WRITERS = 3;

const TABLE = flowTable({
  capacity: FLOWS_MAX,
  keyWords: KEY_WORDS_IPV4_FIVE_TUPLE,
  valueWords: VALUE_WORDS,
  // New flows are measured, so each is replicated.
  halfOpen: FLOWS_MAX,
  halfOpenRecords: 1 << 30,
});

/**
 * Microseconds of the clock that all processes of this machine share (CLOCK_MONOTONIC), modulo 4294
 * s, as a 32-bit integer.
 */
export function nowUs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return ((seconds % 4294) * 1e6 + nanoseconds / 1e3) | 0;
}

export interface PeerMemory {
  readonly flows: SharedArrayBuffer;
  readonly samples: SharedArrayBuffer;
  readonly journals: SharedArrayBuffer;
}

export function createPeerMemory(): PeerMemory {
  return {
    flows: new SharedArrayBuffer(TABLE.bytes),
    samples: new SharedArrayBuffer(4 + SAMPLES_MAX * 4),
    journals: createJournals(WRITERS),
  };
}

/**
 * Opens the flows for the worker (`log`), for the receive thread (`null`), or for reading in the
 * send thread (`undefined`).
 */
export function openFlows(memory: PeerMemory, log: LogProducer | null | undefined): FlowTable {
  const id = log === null ? RECEIVER : WORKER;
  return TABLE.open({
    id: FLOWS,
    region: new Region(memory.flows),
    secret: Int32Array.of(1, 2, 3, 4),
    writer: log === undefined ? null : { id, journal: new Journal(memory.journals, id), log },
    memberIndex: 0,
    memberCount: 2,
  });
}

/**
 * Measures how long records took from the worker that made them to this member, in microseconds.
 */
export class Stamps implements StateObject {
  readonly id = STAMPS;
  readonly delivery: Delivery = 'any-order';
  private readonly words: Int32Array;

  constructor(memory: PeerMemory) {
    this.words = new Int32Array(memory.samples);
  }

  static log(log: LogProducer): boolean {
    return log.note(STAMPS, STAMP, 1, nowUs());
  }

  apply(op: number, words: Int32Array, at: number, length: number): Applied {
    if (op !== STAMP || length !== 1) return Applied.MALFORMED;
    const count = this.words[0];
    if (count < SAMPLES_MAX) {
      this.words[1 + count] = (nowUs() - words[at]) | 0;
      this.words[0] = count + 1;
    }
    return Applied.CHANGED;
  }

  /** All samples since the last call, ascending. */
  take(): number[] {
    const samples = [...this.words.subarray(1, 1 + this.words[0])].sort((a, b) => a - b);
    this.words[0] = 0;
    return samples;
  }

  /** Each stamp is a separate sample, so stamps do not coalesce. */
  coalesceKey(_op: number, words: Int32Array, at: number): number {
    return words[at];
  }

  coalesce(): boolean {
    return false;
  }

  digest(): string {
    return '0'.repeat(16);
  }

  recover(): number {
    return 0;
  }

  describe(): Record<string, number> {
    return { samples: this.words[0] };
  }
}
