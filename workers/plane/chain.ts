/**
 * A chain of middleboxes: what an instance's middleboxes declare together, and how each thread
 * opens it.
 *
 * `declareChain` is pure: the same configuration gives every thread the same result. The result has
 * the state objects in the order of their ids, named `<middlebox>.<object>`, and the metrics, named
 * `<middlebox>_<counter>`. Main lays out shared memory from it. The send and receive threads open
 * its objects. The workers open its objects and its middleboxes.
 */

import type { Arena, ArenaObject } from '../../shm/arena.js';
import type { EventWriter } from '../../shm/events.js';
import { MAX_OBJECT_ID } from '../../shm/log.js';
import type { Metric, MetricCatalogue } from '../../shm/metrics.js';
import type { StateDefinition, StateObject, Writer } from '../../shm/objects/core/object.js';
import type { RecordReader } from '../../shm/record-ring.js';
import { Region } from '../../shm/region.js';
import type { RuleReader } from '../../shm/rule-board.js';
import { BYTES_PER_LINE, roundUp } from '../../shm/struct.js';
import type { EarlyReplies } from '../api/early-replies.js';
import type { Holds } from '../api/holds.js';
import { ALONE, type Members } from '../api/members.js';
import type { Middlebox, Process, SharedState, Sides, TimerOptions } from '../api/middlebox.js';
import { createMiddleboxLog } from '../api/middlebox-log.js';
import type { OnLink } from '../api/on-link.js';
import { type OrderHandler, type OrderKind, takeOrders } from '../api/orders.js';
import { createRecorder, flawOfKind, type RecordChannel, type RecordKind } from '../api/records.js';
import type { Replies } from '../api/replies.js';
import { NO_RULES, type RulesCompiler, type RulesText } from '../api/rules.js';
import type { TimerCallback, Timers } from '../api/timers.js';
import { columnsOf, counterMetrics } from '../base/counters.js';
import { failure } from '../base/failure.js';
import type { Batch } from '../packet/batch.js';
import type { Mode } from '../packet/parse.js';
import { peersOf } from '../packet/ports.js';
import { createRewrites, type Rewrites } from '../packet/rewrite.js';
import { NO_EARLY_REPLIES } from './early-replies.js';
import { sweepTables } from './sweeps.js';

type ResolvedOptions = Readonly<Record<string, unknown>>;

/** One position in the chain. */
export interface Link {
  readonly middlebox: Middlebox;
  /**
   * The resolved options: ports are indices, addresses are raw words. Options with a default may be
   * left out.
   */
  readonly options: Readonly<Record<string, unknown>>;
  /**
   * Prefix of its objects and counters, for a middlebox that is in the chain twice. Default: its
   * name.
   */
  readonly name?: string;
}

export interface DeclaredLink {
  readonly name: string;
  readonly middlebox: Middlebox;
  /** Values of hot options change in place (live-values.ts). */
  readonly options: ResolvedOptions;
  /** Object id by the middlebox's name for the object. */
  readonly objectIds: Readonly<Record<string, number>>;
  /** Index of each kind of record, by the middlebox's name for it. */
  readonly recordKinds: Readonly<Record<string, number>>;
  /** Index of each option of kind `rules`. */
  readonly ruleSets: Readonly<Record<string, number>>;
}

/** A kind of order and its middlebox. */
interface DeclaredOrder extends OrderKind {
  readonly middlebox: string;
  readonly name: string;
}

/** A kind of record and its middlebox. */
export interface DeclaredRecord extends RecordKind {
  readonly middlebox: string;
  readonly name: string;
}

/** Rules, their middlebox, and their compiler. */
export interface DeclaredRules {
  readonly middlebox: string;
  /** Name of the option. */
  readonly name: string;
  readonly source: RulesText;
  readonly compile: RulesCompiler;
}

export interface Declaration {
  readonly links: readonly DeclaredLink[];
  /** For the arena's layout. The index is the object's id. */
  readonly objects: readonly ArenaObject[];
  readonly definitions: readonly StateDefinition[];
  /** Every middlebox's counters. */
  readonly metrics: readonly Metric[];
  /** Every middlebox's kinds of record. */
  readonly records: readonly DeclaredRecord[];
  /** Every middlebox's orders. The index is the order's number in the ring of orders. */
  readonly orders: readonly DeclaredOrder[];
  /** Every option of kind `rules`. */
  readonly rules: readonly DeclaredRules[];
}

/** Valid names of middleboxes and counters. They become parts of metric names. */
export const WORD = /^[a-z][a-z0-9_]*$/;

/** Used if the caller gives none. */
const SHARED: SharedState = { form: 'totals', members: 8, seed: '' };

/** Declares a chain. If a declaration is wrong, throws an error that names its middlebox. */
export function declareChain(chain: readonly Link[], shared: SharedState = SHARED): Declaration {
  const links: DeclaredLink[] = [];
  const objects: ArenaObject[] = [];
  const definitions: StateDefinition[] = [];
  const metrics: Metric[] = [];
  const records: DeclaredRecord[] = [];
  const orders: DeclaredOrder[] = [];
  const rules: DeclaredRules[] = [];
  for (const { middlebox, options: written, name = middlebox.name } of chain) {
    check(links, name, middlebox);
    const options = complete(name, middlebox, written);
    const objectIds: Record<string, number> = {};
    for (const [key, definition] of Object.entries(declareState(name, middlebox, options, shared))) {
      if (objects.length > MAX_OBJECT_ID)
        throw new Error(`middlebox ${name}: more than ${MAX_OBJECT_ID} state objects`);
      objectIds[key] = objects.length;
      const { kind, parameters, shape, bytes } = definition;
      objects.push({ name: `${name}.${key}`, kind, parameters, ...(shape && { shape }), bytes });
      definitions.push(definition);
    }
    metrics.push(...counterMetrics(middlebox.counters, name));
    for (const [order, { help, parse }] of Object.entries(middlebox.orders ?? {}))
      orders.push({ middlebox: name, name: order, help, parse });
    const recordKinds: Record<string, number> = {};
    for (const [kind, { help, words, render }] of Object.entries(middlebox.records ?? {})) {
      recordKinds[kind] = records.length;
      records.push({ middlebox: name, name: kind, help, words, render });
    }
    const ruleSets: Record<string, number> = {};
    for (const [option, { kind, compile }] of Object.entries(middlebox.options)) {
      if (kind !== 'rules' || compile === undefined) continue;
      ruleSets[option] = rules.length;
      rules.push({ middlebox: name, name: option, source: options[option] as RulesText, compile });
    }
    links.push({ name, middlebox, options, objectIds, recordKinds, ruleSets });
  }
  return { links, objects, definitions, metrics, records, orders, rules };
}

function check(links: readonly DeclaredLink[], name: string, middlebox: Middlebox): void {
  if (!WORD.test(name)) throw new Error(`middlebox name "${name}" is not a lower-case word`);
  if (links.some((link) => link.name === name))
    throw new Error(`middlebox ${name} stands in the chain twice: give each its own name`);
  for (const counter of Object.keys(middlebox.counters))
    if (!WORD.test(counter)) throw new Error(`middlebox ${name}: counter name "${counter}" is not a lower-case word`);
  for (const [kind, record] of Object.entries(middlebox.records ?? {})) {
    const flaw = WORD.test(kind) ? flawOfKind(record) : 'its name is not a lower-case word';
    if (flaw !== null) throw new Error(`middlebox ${name}: record ${kind}: ${flaw}`);
  }
}

/** Options that the operator left out get the middlebox's defaults. */
function complete(name: string, middlebox: Middlebox, options: Readonly<Record<string, unknown>>): ResolvedOptions {
  for (const option of Object.keys(options))
    if (middlebox.options[option] === undefined) throw new Error(`middlebox ${name}: there is no option ${option}`);
  const resolved: Record<string, unknown> = {};
  for (const [option, { kind, default: preset }] of Object.entries(middlebox.options)) {
    resolved[option] = options[option] ?? (kind === 'rules' && preset === '' ? NO_RULES : preset);
    if (resolved[option] === undefined) throw new Error(`middlebox ${name}: option ${option} is missing`);
  }
  return resolved;
}

function declareState(
  name: string,
  middlebox: Middlebox,
  options: ResolvedOptions,
  shared: SharedState,
): Readonly<Record<string, StateDefinition>> {
  try {
    return stateOf(middlebox, options, shared);
  } catch (error) {
    throw failure(`middlebox ${name}`, error);
  }
}

/**
 * Returns a middlebox's state declaration. It calls `state` twice and compares, because every
 * thread calls it again and must get the same. Throws an error if the declaration is wrong.
 */
export function stateOf(
  middlebox: Middlebox,
  options: ResolvedOptions,
  shared: SharedState,
): Readonly<Record<string, StateDefinition>> {
  const declared: unknown = middlebox.state(options as never, shared);
  if (typeof declared !== 'object' || declared === null)
    throw new Error('state() returns no mapping of names to objects');
  for (const [key, definition] of Object.entries(declared)) {
    const { kind, bytes, open } = (definition ?? {}) as Partial<StateDefinition>;
    if (typeof kind !== 'string' || typeof open !== 'function' || !Number.isInteger(bytes))
      throw new Error(`state().${key} is no state object's definition, such as counter() returns`);
  }
  const state = declared as Readonly<Record<string, StateDefinition>>;
  const keys = Object.keys(state);
  for (const [n, key] of keys.entries()) {
    const same = keys.slice(0, n).find((earlier) => state[earlier] === state[key]);
    if (same !== undefined)
      throw new Error(
        `state().${key} is the same object as state().${same}: declare each with a definition of its own`,
      );
  }
  const again = layoutText(middlebox.state(options as never, shared));
  if (layoutText(state) !== again)
    throw new Error(
      `state() declares something else when it is asked again: ${again}; every thread has to get the same`,
    );
  return state;
}

/** Returns a middlebox's sides, if it declares any. Throws an error if they are wrong. */
export function sidesOf(middlebox: Middlebox, options: ResolvedOptions): Sides | undefined {
  if (middlebox.sides === undefined) return undefined;
  let sides: unknown;
  try {
    sides = middlebox.sides(options as never);
  } catch (error) {
    throw failure('sides()', error);
  }
  const { near, far } = (sides ?? {}) as Partial<Sides>;
  const arePorts = (ports: unknown) => Array.isArray(ports) && ports.every((port) => Number.isInteger(port));
  if (!arePorts(near) || !arePorts(far))
    throw new Error(`sides() gives no { near, far } of lists of ports: ${JSON.stringify(sides)}`);
  return sides as Sides;
}

function layoutText(state: Readonly<Record<string, StateDefinition>>): string {
  return JSON.stringify(
    Object.entries(state).map(([key, { kind, parameters, shape, bytes }]) => [key, kind, parameters, shape, bytes]),
  );
}

/** Byte offset of each object's local memory, and of the end, for `stripes` data plane workers. */
export function layoutLocals({ definitions }: Declaration, stripes: number): number[] {
  const offsets = [0];
  for (const { localBytes } of definitions)
    offsets.push(offsets[offsets.length - 1] + roundUp(localBytes?.(stripes) ?? 0, BYTES_PER_LINE));
  return offsets;
}

/**
 * The memory of this instance alone, which no snapshot contains, and the number of workers that it
 * was made for.
 */
interface Locals {
  readonly buffer: SharedArrayBuffer;
  readonly stripes: number;
}

export function createLocals(declaration: Declaration, stripes: number): Locals {
  const bytes = layoutLocals(declaration, stripes)[declaration.definitions.length];
  return { buffer: new SharedArrayBuffer(bytes), stripes };
}

interface Member {
  /** This instance's index among the members, ordered by id, and the number of members. */
  readonly memberIndex: number;
  readonly memberCount: number;
  /** See `OpenContext`. */
  readonly clusterSecret?: Int32Array;
}

/**
 * Opens every state object for this thread, in the order of ids. If `writer` is null, they are read
 * only.
 */
export function openState(
  declaration: Declaration,
  arena: Arena,
  writer: Writer | null,
  { memberIndex, memberCount, clusterSecret }: Member,
  locals: Locals = createLocals(declaration, 1),
): StateObject[] {
  const { buffer, stripes } = locals;
  const offsets = layoutLocals(declaration, stripes);
  return declaration.definitions.map((definition, id) =>
    definition.open({
      id,
      region: arena.region(id),
      secret: arena.secret,
      writer,
      memberIndex,
      memberCount,
      local: new Region(buffer, offsets[id], offsets[id + 1] - offsets[id]),
      stripes,
      ...(clusterSecret && { clusterSecret }),
    }),
  );
}

export interface ProcessContext {
  /** The worker's batch. */
  readonly batch: Batch;
  readonly replies: Replies;
  readonly holds: Holds;
  /** Absent: nothing waits for its state. */
  readonly early?: EarlyReplies;
  readonly timers: Timers;
  readonly events: EventWriter;
  readonly records: RecordChannel;
  /** Source of orders, for worker 0. May be absent. */
  readonly orders?: RecordReader;
  /** In the order of `Declaration.rules`. May be absent if there are no rules. */
  readonly rules?: readonly RuleReader[];
  /**
   * Registers a middlebox's handler for changed values of hot options. Absent: they never change.
   */
  readonly onOptions?: (handler: () => void) => void;
  /** The worker's slot among the data plane workers, from 0. */
  readonly worker: number;
  /** The worker's row of metrics. */
  readonly row: Float64Array;
  readonly catalogue: MetricCatalogue;
  /** Number of ports. */
  readonly ports: number;
  readonly mode: Mode;
  /** Longest IP packet that each port sends. */
  readonly mtus: Int32Array;
  /** Which sources are plausible on a port. Absent: nothing is known. */
  readonly onLink?: OnLink;
  /** The other members, with respect to these objects. Absent: the instance is alone. */
  readonly members?: (objects: readonly number[]) => Members;
  /**
   * Whether the instance is being drained. The packet path calls it, so it may do no more than read
   * a flag.
   */
  draining(): boolean;
}

/**
 * Rejects async functions. A worker never returns to its event loop, so it never reaches the code
 * after an `await`.
 */
function refuseAsync(what: string, run: unknown): void {
  if (run instanceof AsyncFunction) throw new Error(`${what} is an async function: a worker never waits`);
}

const NOTHING_KNOWN: OnLink = { knows: () => false, has: () => false };

const AsyncFunction = (async () => {}).constructor as new () => unknown;

/** One middlebox of the chain, opened in a worker. */
export interface Stage {
  readonly name: string;
  readonly process: Process;
  /** Only for a middlebox that rewrites addresses. */
  readonly sides?: Sides;
}

/**
 * Opens every middlebox over the opened state. Returns the functions that packets pass, in order.
 */
export function openProcesses(
  declaration: Declaration,
  objects: readonly StateObject[],
  context: ProcessContext,
): Stage[] {
  const rewrites = createRewrites(context.batch);
  const ipv6 = context.mode === 'wire' || takesIpv6(declaration);
  const handlers = new Map<number, OrderHandler>();
  const stages = declaration.links.map((link) => {
    const onOrder = (order: string, handler: OrderHandler): void => {
      const kind = declaration.orders.findIndex(({ middlebox, name }) => middlebox === link.name && name === order);
      if (kind < 0) throw new Error(`takes an order ${order}, which it does not declare`);
      handlers.set(kind, handler);
    };
    return openLink(link, objects, context, rewrites, ipv6, onOrder);
  });
  if (context.worker === 0) {
    sweepTables(objects, context.timers);
    if (context.orders !== undefined) takeOrders(context.orders, handlers, context.timers);
  }
  return stages;
}

/** Whether a router with this chain takes IPv6 from the kernel. */
export function takesIpv6({ links }: Declaration): boolean {
  return links.some(({ middlebox }) => middlebox.ipv6 === true);
}

function openLink(
  { name, middlebox, options, objectIds, recordKinds, ruleSets }: DeclaredLink,
  objects: readonly StateObject[],
  {
    batch,
    replies,
    holds,
    early = NO_EARLY_REPLIES,
    timers,
    events,
    records,
    rules = [],
    onOptions: takeHandler = () => {},
    worker,
    row,
    catalogue,
    ports,
    mode,
    mtus,
    onLink = NOTHING_KNOWN,
    members = () => ALONE,
    draining,
  }: ProcessContext,
  rewrites: Rewrites,
  ipv6: boolean,
  takeOrder: (order: string, handler: OrderHandler) => void,
): Stage {
  const owner = `middlebox ${name}`;
  const state = Object.fromEntries(Object.entries(objectIds).map(([key, id]) => [key, objects[id]]));
  const recorders = Object.fromEntries(
    Object.entries(recordKinds).map(([kind, index]) => [
      kind,
      createRecorder(records, index, middlebox.records?.[kind].words ?? 0),
    ]),
  );
  const peers = peersOf(ports);
  const otherPort = (port: number): number => {
    if (ports !== 2 || peers[port] === undefined)
      throw new Error(`asks for the port opposite to ${port}, of ${ports} ports`);
    return peers[port];
  };
  let opening = true;
  const every = (seconds: number, callback: TimerCallback, { on = 'every' }: TimerOptions = {}): void => {
    if (!opening) throw new Error('timers are made while the middlebox is being opened');
    refuseAsync('a timer', callback);
    if (on === 'every' || worker === 0) timers.every(owner, seconds, callback);
  };
  const onOrder = (order: string, handler: OrderHandler): void => {
    if (!opening) throw new Error('who takes orders is said while the middlebox is being opened');
    refuseAsync('what an order does', handler);
    takeOrder(order, handler);
  };
  const onOptions = (handler: () => void): void => {
    if (!opening) throw new Error('what follows changed options is said while the middlebox is being opened');
    refuseAsync('what follows changed options', handler);
    takeHandler(handler);
  };
  try {
    const process = middlebox.open({
      options: options as never,
      state: state as never,
      batch,
      rewrites,
      replies,
      holds,
      early,
      counters: columnsOf(catalogue, middlebox.counters, name),
      every,
      onOptions,
      onOrder,
      log: createMiddleboxLog(name, events, row, catalogue),
      records: recorders as never,
      rules: Object.fromEntries(Object.entries(ruleSets).map(([option, index]) => [option, rules[index]])) as never,
      members: members(Object.values(objectIds)),
      mode,
      mtus,
      onLink,
      ipv6,
      otherPort,
      draining,
    });
    if (typeof process !== 'function') throw new Error(`open returned ${typeof process}, not a function over batches`);
    refuseAsync('what open returned', process);
    const sides = sidesOf(middlebox, options);
    return { name, process, ...(sides !== undefined && { sides }) };
  } catch (error) {
    throw failure(`${owner} could not be opened`, error);
  } finally {
    opening = false;
  }
}
