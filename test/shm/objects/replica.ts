/**
 * One instance of a state object with a log of its own, for tests: what a worker, its log and its
 * arena are together.
 */

import { createLogRing, LogConsumer, LogProducer } from '../../../shm/log.js';
import { createJournals, Journal } from '../../../shm/objects/core/journal.js';
import type { Applied, StateDefinition, StateObject } from '../../../shm/objects/core/object.js';
import { Region } from '../../../shm/region.js';

export const OBJECT_ID = 3;

/** What all members of a cluster with a key share. */
export const CLUSTER_SECRET = Int32Array.of(0x0c0ffee0, 2, 3, 4);

export interface TestRecord {
  readonly op: number;
  readonly words: readonly number[];
}

export class Replica<T extends StateObject> {
  readonly object: T;
  readonly region: Region;
  readonly log: LogProducer;
  private readonly consumer: LogConsumer;

  constructor(
    definition: StateDefinition<T>,
    memberIndex = 0,
    memberCount = 1,
    logWords = 1 << 16,
    clusterSecret = CLUSTER_SECRET,
  ) {
    this.region = new Region(new SharedArrayBuffer(definition.bytes));
    const ring = createLogRing(logWords);
    this.log = new LogProducer(ring);
    this.consumer = new LogConsumer(ring);
    this.object = definition.open({
      id: OBJECT_ID,
      region: this.region,
      secret: Int32Array.of(memberIndex + 1, 2, 3, 4),
      writer: { id: 1, journal: new Journal(createJournals(1), 1), log: this.log },
      memberIndex,
      memberCount,
      clusterSecret,
      local: new Region(new SharedArrayBuffer(definition.localBytes?.(1) ?? 0)),
    });
  }

  /** The records logged since the last call. */
  drain(): TestRecord[] {
    this.log.publish();
    const records: TestRecord[] = [];
    while (this.consumer.next())
      records.push({
        op: this.consumer.op,
        words: [...this.consumer.words.subarray(this.consumer.at, this.consumer.at + this.consumer.length)],
      });
    this.consumer.release();
    return records;
  }

  apply(record: TestRecord, now: number): Applied {
    return this.object.apply(record.op, Int32Array.from(record.words), 0, record.words.length, 9, now);
  }
}

/** Lock bytes still set anywhere in an object: `lockWords` says which words have one. */
export function heldLocks(words: Int32Array, lockWords: Iterable<number>): number {
  let held = 0;
  for (const index of lockWords) if ((words[index] & 0xff) !== 0) held++;
  return held;
}
