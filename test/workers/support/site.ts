/**
 * A site without threads: its data plane is stepped by hand, and its log records are carried to other sites by hand.
 */

import { Arena, createArena, layoutArena } from '../../../shm/arena.js';
import { coarseSeconds } from '../../../shm/clock.js';
import { LogConsumer } from '../../../shm/log.js';
import { createJournals, Journal } from '../../../shm/objects/journal.js';
import type { StateObject } from '../../../shm/objects/object.js';
import { createRuleBoard, RuleBoard, RuleReader } from '../../../shm/rule-board.js';
import {
  createLocals,
  type Declaration,
  declareChain,
  type Link,
  openProcesses,
  openState,
} from '../../../workers/chain.js';
import type { SharedState } from '../../../workers/middlebox.js';
import type { RulesCompiler } from '../../../workers/rules.js';
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
  /** What its middleboxes see of the other members; absent: nobody else is there. */
  readonly others?: MemberBoards;
}

/** Puts rules in force, in which nothing is wrong. */
export function publishRules(board: RuleBoard, compile: RulesCompiler, text: string, ports: readonly string[]): void {
  const { words, entries, problems } = compile(text, { ports });
  if (problems !== undefined) throw new Error(problems.map(({ line, message }) => `${line}: ${message}`).join('\n'));
  if (!board.publish(words, new Int32Array(entries.length).fill(-1))) throw new Error('the rules before are in use');
}

export class Site {
  readonly plane: Plane;
  /** As the worker has them, and as the receive thread. */
  readonly objects: readonly StateObject[];
  readonly receiver: readonly StateObject[];
  /** As the send thread has them. */
  private readonly sender: readonly StateObject[];
  readonly member: number;
  readonly others: MemberBoards | undefined;
  /** Rules, in the order they are declared in. */
  readonly boards: readonly RuleBoard[];
  private readonly consumer: LogConsumer;
  private readonly declaration: Declaration;
  private readonly ruleBuffers: SharedArrayBuffer[] = [];

  constructor({ chain, member = 0, members = 1, shared, plane = {}, others }: SiteOptions) {
    this.others = others;
    const declaration = declareChain(chain, shared);
    this.declaration = declaration;
    const arena = new Arena(createArena(layoutArena(declaration.objects)), declaration.objects);
    this.plane = new Plane({ ...plane, metrics: [...declaration.metrics, ...(plane.metrics ?? [])] });
    const journals = createJournals(2);
    const place = { memberIndex: member, memberCount: members };
    const worker = { id: 1, journal: new Journal(journals, 1), log: this.plane.log };
    const locals = createLocals(declaration, 1);
    this.member = member;
    this.objects = openState(declaration, arena, worker, place, locals);
    this.sender = openState(declaration, arena, null, place, locals);
    this.receiver = openState(
      declaration,
      arena,
      { id: 2, journal: new Journal(journals, 2), log: null },
      place,
      locals,
    );
    this.boards = declaration.rules.map(({ source, compile }) => {
      const buffer = createRuleBoard(1);
      const board = new RuleBoard(buffer, 1);
      publishRules(board, compile, source.text, source.ports);
      this.ruleBuffers.push(buffer);
      return board;
    });
    this.restartWorker();
    this.consumer = new LogConsumer(this.plane.logBuffer);
  }

  /** What makes members incompatible if it differs, by object. */
  get parameters(): readonly unknown[] {
    return this.declaration.objects.map(({ parameters }) => parameters);
  }

  /** Opens the middleboxes over the state there is, as a worker does that starts again. */
  restartWorker(): void {
    this.plane.rules = this.ruleBuffers.map((buffer) => new RuleReader(buffer, 1, 0));
    const { others } = this;
    const view = others && { members: (ids: readonly number[]) => others.open(ids, () => this.plane.monotonicMs) };
    this.plane.open(openProcesses(this.declaration, this.objects, { ...this.plane.context, ...view }));
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
  replicateTo(...others: Site[]): number {
    let records = 0;
    const { consumer } = this;
    while (consumer.next()) {
      const { objectId, op, words, at, length } = consumer;
      if (this.sender[objectId].tell?.(op, words, at, length) === false) continue;
      records++;
      for (const { receiver, now } of others) receiver[objectId].apply(op, words, at, length, this.member, now);
    }
    consumer.release();
    return records;
  }
}
