/**
 * A site without threads: its data plane is stepped by hand, and its log records are carried to
 * other sites by hand.
 */

import { Arena, createArena, layoutArena, type Parameters } from '../../../shm/arena.js';
import { coarseSeconds } from '../../../shm/clock.js';
import { createHoldBoard } from '../../../shm/hold-board.js';
import { LogConsumer } from '../../../shm/log.js';
import { createJournals, Journal } from '../../../shm/objects/core/journal.js';
import type { StateObject } from '../../../shm/objects/core/object.js';
import { createRuleBoard, RuleBoard, RuleReader } from '../../../shm/rule-board.js';
import type { SharedState } from '../../../workers/api/middlebox.js';
import type { RulesCompiler } from '../../../workers/api/rules.js';
import { applyOptions } from '../../../workers/engine/live-values.js';
import {
  createLocals,
  type Declaration,
  declareChain,
  type Link,
  openProcesses,
  openState,
} from '../../../workers/plane/chain.js';
import { CLUSTER_SECRET } from '../../shm/objects/replica.js';
import type { MemberBoards } from './member-boards.js';
import { Plane, type PlaneOptions } from './plane.js';

export const INSIDE = 0;
export const OUTSIDE = 1;

export interface SiteOptions {
  readonly chain: readonly Link[];
  readonly member?: number;
  readonly members?: number;
  readonly shared?: SharedState;
  readonly plane?: PlaneOptions;
  /** Data plane workers; default 1. */
  readonly workers?: number;
  /** What its middleboxes see of the other members; absent: nobody else is there. */
  readonly others?: MemberBoards;
  /** What all members share; default: as if the cluster had a key. */
  readonly clusterSecret?: Int32Array;
}

/** Puts rules in force, in which nothing is wrong. */
export function publishRules(board: RuleBoard, compile: RulesCompiler, text: string, ports: readonly string[]): void {
  const { words, entries, problems } = compile(text, { ports });
  if (problems !== undefined) throw new Error(problems.map(({ line, message }) => `${line}: ${message}`).join('\n'));
  if (!board.publish(words, new Int32Array(entries.length).fill(-1))) throw new Error('the rules before are in use');
}

export class Site {
  /** That of the first worker, and those of all. */
  readonly plane: Plane;
  readonly planes: readonly Plane[];
  /** As the first worker has them, and as the receive thread. */
  readonly objects: readonly StateObject[];
  readonly receiver: readonly StateObject[];
  /** As the send thread has them. */
  readonly sender: readonly StateObject[];
  readonly member: number;
  readonly others: MemberBoards | undefined;
  /** Rules, in the order they are declared in. */
  readonly boards: readonly RuleBoard[];
  private readonly consumers: readonly LogConsumer[];
  private readonly workers: readonly (readonly StateObject[])[];
  private readonly declaration: Declaration;
  private readonly arena: Arena;
  private readonly ruleBuffers: SharedArrayBuffer[] = [];
  private readonly shared: SharedState;
  /** What middleboxes want to be run after options changed. */
  private handlers: (() => void)[] = [];

  constructor({
    chain,
    member = 0,
    members = 1,
    shared,
    plane = {},
    workers = 1,
    others,
    clusterSecret = CLUSTER_SECRET,
  }: SiteOptions) {
    this.others = others;
    const declaration = declareChain(chain, shared);
    this.shared = shared ?? { form: 'totals', members: 8, seed: '' };
    this.declaration = declaration;
    const arena = new Arena(createArena(layoutArena(declaration.objects)), declaration.objects);
    this.arena = arena;
    const metrics = [...declaration.metrics, ...(plane.metrics ?? [])];
    const holdBoard = createHoldBoard(workers, 3);
    this.planes = Array.from(
      { length: workers },
      (_, index) => new Plane({ ...plane, metrics, worker: { index, holdBoard } }),
    );
    this.plane = this.planes[0];
    const journals = createJournals(workers + 1);
    const place = { memberIndex: member, memberCount: members, clusterSecret };
    const locals = createLocals(declaration, workers);
    this.member = member;
    this.workers = this.planes.map(({ log }, index) =>
      openState(declaration, arena, { id: index + 1, journal: new Journal(journals, index + 1), log }, place, locals),
    );
    this.objects = this.workers[0];
    this.sender = openState(declaration, arena, null, place, locals);
    this.receiver = openState(
      declaration,
      arena,
      { id: workers + 1, journal: new Journal(journals, workers + 1), log: null },
      place,
      locals,
    );
    this.boards = declaration.rules.map(({ source, compile }) => {
      const buffer = createRuleBoard(workers);
      const board = new RuleBoard(buffer, workers);
      publishRules(board, compile, source.text, source.ports);
      this.ruleBuffers.push(buffer);
      return board;
    });
    this.restartWorker();
    this.consumers = this.planes.map(({ logBuffer }) => new LogConsumer(logBuffer));
  }

  /** What makes members incompatible if it differs, by object. */
  get parameters(): readonly unknown[] {
    return this.declaration.objects.map(({ parameters }) => parameters);
  }

  /** What may differ between members, by object. */
  get shapes(): readonly Parameters[] {
    return this.declaration.objects.map(({ shape = {} }) => shape);
  }

  /** Learns what the others are configured with, as main does. */
  heed(...others: readonly Site[]): readonly (string | null)[] {
    return this.receiver.map((object) => {
      const shapes = others.map((other) => other.shapes[object.id]);
      return object.heedShapes?.(shapes, this.now) ?? null;
    });
  }

  /**
   * Takes in the state of another site, as a snapshot of another layout brings it. Returns what
   * found no room.
   */
  mergeFrom(donor: Site): number {
    return this.receiver.reduce((full, object) => {
      const source = { shape: donor.shapes[object.id], full: 0 };
      object.merge?.(donor.arena.region(object.id), this.now, source);
      return full + source.full;
    }, 0);
  }

  /** Opens the middleboxes over the state there is, as a worker does that starts again. */
  restartWorker(): void {
    const { others } = this;
    this.handlers = [];
    const onOptions = (handler: () => void) => this.handlers.push(handler);
    const view = others && { members: (ids: readonly number[]) => others.open(ids, () => this.plane.monotonicMs) };
    for (const [index, plane] of this.planes.entries()) {
      plane.rules = this.ruleBuffers.map((buffer) => new RuleReader(buffer, this.planes.length, index));
      plane.open(openProcesses(this.declaration, this.workers[index], { ...plane.context, ...view, onOptions }));
    }
  }

  /** Changes hot options of the first middlebox, as a reload does it in each thread. */
  reload(values: Readonly<Record<string, unknown>>): void {
    const { declaration, shared } = this;
    for (const objects of [...this.workers, this.receiver, this.sender])
      applyOptions(declaration, objects, shared, [values]);
    for (const handler of this.handlers) handler();
  }

  pass(...packets: { port: number; frame: Uint8Array }[]): string[] {
    return this.plane.pass(...packets);
  }

  later(seconds: number): void {
    for (const plane of this.planes) plane.nowMs += seconds * 1000;
  }

  get now(): number {
    return coarseSeconds(this.plane.nowMs);
  }

  /**
   * Carries what this site has logged since the last time to others. Returns the number of records.
   */
  replicateTo(...others: Site[]): number {
    let records = 0;
    this.takeLogged(({ objectId, op, words, at, length }) => {
      if (this.sender[objectId].fillIn?.(op, words, at, length) === false) return;
      records++;
      for (const { receiver, now } of others) receiver[objectId].apply(op, words, at, length, this.member, now);
      for (const { planes } of others) for (const plane of planes) plane.applied++;
    });
    return records;
  }

  /**
   * Takes what this site has logged since the last time: one call for each record, where the
   * consumer stands.
   */
  takeLogged(take: (record: LogConsumer) => void): void {
    for (const consumer of this.consumers) {
      while (consumer.next()) take(consumer);
      consumer.release();
    }
  }
}
