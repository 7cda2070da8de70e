/**
 * A site with a NAT, without threads: its data plane is stepped by hand, and its log records are carried to other sites
 * by hand.
 */

import { Arena, createArena, layoutArena } from '../../../shm/arena.js';
import { coarseSeconds } from '../../../shm/clock.js';
import { LogConsumer } from '../../../shm/log.js';
import { createJournals, Journal } from '../../../shm/objects/journal.js';
import type { NatBinding } from '../../../shm/objects/nat-binding.js';
import type { StateObject } from '../../../shm/objects/object.js';
import { declareChain, openProcesses, openState } from '../../../workers/chain.js';
import nat from '../../../workers/middleboxes/nat.js';
import { parseIpv4 } from '../../../workers/packet/ipv4.js';
import { Plane, type PlaneOptions } from './plane.js';

export const INSIDE = 0;
export const OUTSIDE = 1;

export interface NatSiteOptions {
  readonly member?: number;
  readonly members?: number;
  readonly options?: Readonly<Record<string, unknown>>;
  readonly plane?: PlaneOptions;
}

export class NatSite {
  readonly plane: Plane;
  readonly bindings: NatBinding;
  readonly receiver: StateObject[];
  private readonly consumer: LogConsumer;

  constructor({ member = 0, members = 1, options = {}, plane = {} }: NatSiteOptions = {}) {
    const declaration = declareChain([
      {
        middlebox: nat as never,
        options: { inside: INSIDE, outside: OUTSIDE, external: [parseIpv4('203.0.113.1')], flows: 1024, ...options },
      },
    ]);
    const layout = layoutArena(declaration.objects);
    const arena = new Arena(createArena(layout), declaration.objects);
    this.plane = new Plane({ ...plane, metrics: [...declaration.metrics, ...(plane.metrics ?? [])] });
    const journals = createJournals(2);
    const place = { memberIndex: member, memberCount: members };
    const worker = { id: 1, journal: new Journal(journals, 1), log: this.plane.log };
    const objects = openState(declaration, arena, worker, place);
    this.bindings = objects[0] as NatBinding;
    this.receiver = openState(declaration, arena, { id: 2, journal: new Journal(journals, 2), log: null }, place);
    this.plane.open(openProcesses(declaration, objects, this.plane.context));
    this.consumer = new LogConsumer(this.plane.logBuffer);
  }

  pass(...packets: { port: number; frame: Uint8Array }[]): string[] {
    return this.plane.pass(...packets);
  }

  later(seconds: number): void {
    this.plane.nowMs += seconds * 1000;
  }

  get now(): number {
    return coarseSeconds(this.plane.nowMs);
  }

  /** Carries what this site has logged since the last time to others. Returns the number of records. */
  replicateTo(...others: NatSite[]): number {
    let records = 0;
    const { consumer } = this;
    while (consumer.next()) {
      records++;
      for (const { receiver, now } of others)
        receiver[consumer.objectId].apply(consumer.op, consumer.words, consumer.at, consumer.length, 0, now);
    }
    consumer.release();
    return records;
  }
}
