/** A site of three whose only thread is the test. */

import { strict as assert } from 'node:assert';
import { coarseSeconds } from '../../../shm/clock.js';
import { LogConsumer, LogProducer } from '../../../shm/log.js';
import type { CounterVector } from '../../../shm/objects/counting/counters.js';
import type { SharedSet } from '../../../shm/objects/sets/shared-set.js';
import { writerId } from '../../../workers/engine/instance.js';
import { copyState } from '../../../workers/snapshot/fork.js';
import type { SnapshotHead } from '../../../workers/snapshot/head.js';
import { BUSY, BusySite, member } from './busy-site.js';

export const NOW = coarseSeconds(Date.now());
export const MEMBERS = [member(1, 0), member(2, 0), member(3, 0)];

/** A site whose only thread is the test: so a snapshot needs no barrier. */
export class Still {
  readonly site: BusySite;
  readonly totals: CounterVector;
  readonly increments: CounterVector;
  readonly set: SharedSet;
  readonly log: LogProducer;

  constructor(site: BusySite) {
    const { instance } = site;
    this.site = site;
    this.log = new LogProducer(instance.buffers.logs[0]);
    const objects = instance.openObjects({ id: writerId(0), journal: instance.journal(0), log: this.log });
    [this.totals, this.increments, this.set] = objects as unknown as [CounterVector, CounterVector, SharedSet];
  }

  /** `elements`: capacity of the set. */
  static async create(self: number, elements = 4096, cells = 64): Promise<Still> {
    const options = { cells, elements, members: MEMBERS.length };
    const middleboxes = [{ module: BUSY, options }];
    return new Still(await BusySite.create({ self, members: MEMBERS, workers: 1, middleboxes }));
  }

  count(cell: number, n: number): void {
    assert.ok(this.totals.add(cell, n) && this.increments.add(cell, n));
  }

  add(element: number): void {
    const key = Int32Array.of(element);
    assert.ok(this.set.add(this.set.hash(key, 0), key, 0, NOW, NOW + 1000));
  }

  has(element: number): boolean {
    const key = Int32Array.of(element);
    return this.set.has(this.set.hash(key, 0), key, 0, NOW);
  }

  /** What the send thread does with what was logged. */
  tell(): { object: number; words: number[] }[] {
    const { instance, objects } = this.site;
    this.log.publish();
    const consumer = new LogConsumer(instance.buffers.logs[0]);
    const told: { object: number; words: number[] }[] = [];
    while (consumer.next()) {
      const { objectId, op, words, at, length } = consumer;
      if (objects[objectId].fillIn?.(op, words, at, length) !== false)
        told.push({ object: objectId, words: [...words.subarray(at, at + length)] });
    }
    for (const object of objects) object.settle?.(told.length);
    consumer.release();
    return told;
  }

  async snapshotInto(memory: SharedArrayBuffer): Promise<SnapshotHead> {
    const { instance, objects } = this.site;
    const { copy, vectors } = copyState(instance, objects);
    const into = new Uint8Array(memory);
    let at = 0;
    for await (const piece of copy.pieces()) {
      into.set(piece, at);
      at += piece.length;
    }
    return { donor: 0, unixMs: 0, vectors, lacks: [] };
  }
}
