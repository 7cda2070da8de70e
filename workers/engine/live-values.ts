/**
 * Values of hot options while threads run. Main publishes them together. Each thread applies them
 * between two rounds.
 *
 *     reload (main) ─ publish ─▶ rule board (shm/rule-board.ts) ─ refresh ─▶ every thread,
 *                                                                            some times a second
 *
 * The board holds JSON: its length in bytes, then the bytes. A thread that starts again applies the
 * values that were published last. Options are changed in place, so every reader sees the new
 * values. Values derived from them are recomputed by the middleboxes' handlers (`onOptions`) and by
 * `reconfigure` of state objects.
 */

import type { StateObject } from '../../shm/objects/core/object.js';
import { RuleBoard, RuleReader } from '../../shm/rule-board.js';
import type { SharedState } from '../api/middlebox.js';
import { type Declaration, stateOf } from '../plane/chain.js';
import type { ReplicationSettings } from '../replication/settings.js';
import type { InstancePlan } from './instance.js';

/** The hot options of replication. */
type LiveReplication = Pick<ReplicationSettings, 'ackDelayMs' | 'keepaliveMs' | 'retransmitMsMin' | 'bandwidth'>;

export interface LiveValues {
  /** By middlebox, in the order of the chain: the resolved values of its hot options. */
  readonly middleboxes: readonly Readonly<Record<string, unknown>>[];
  readonly replication: LiveReplication;
  readonly earlyMsMax: number;
}

const BYTES_PER_WORD = 4;
/**
 * Longest time for all threads to apply the values, and main's polling interval, in milliseconds.
 * Threads check some times a second.
 */
const TAKEN_MS = 2_000;
const LOOK_MS = 20;

/** Main's side. */
export class LiveWriter {
  private readonly board: RuleBoard;

  constructor(buffer: SharedArrayBuffer, threads: number) {
    this.board = new RuleBoard(buffer, threads);
  }

  /**
   * Resolves when every running thread has applied the values. Rejects, and publishes nothing, if a
   * thread has not applied the previous values. Also rejects if a thread does not apply these in
   * time; they are then published nevertheless.
   */
  async publish(values: LiveValues): Promise<void> {
    if (!(await this.taken())) throw new Error('some thread has not taken the options of the last reload yet');
    if (!this.board.publish(encode(values), new Int32Array(0)))
      throw new Error('some thread has not taken the options of the last reload yet');
    if (!(await this.taken()))
      throw new Error(
        'the options are published, but some thread has not taken them yet; show threads says which is stuck',
      );
  }

  /** A dead thread need not apply the values. */
  forget(thread: number): void {
    this.board.forget(thread);
  }

  private async taken(): Promise<boolean> {
    for (let waited = 0; !this.board.settle(); waited += LOOK_MS) {
      if (waited >= TAKEN_MS) return false;
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
    return true;
  }
}

/** A thread's side. */
export class LiveReader {
  private readonly reader: RuleReader;

  constructor(buffer: SharedArrayBuffer, threads: number, thread: number) {
    this.reader = new RuleReader(buffer, threads, thread);
    this.isNew = this.reader.version !== 0;
  }

  private isNew: boolean;

  /**
   * Returns the values published last, if they are new to this thread. If not, it costs the load of
   * one word.
   */
  take(): LiveValues | null {
    const { reader } = this;
    if (!reader.refresh() && !this.isNew) return null;
    this.isNew = false;
    return decode(reader.words, reader.base);
  }
}

function encode(values: LiveValues): Int32Array {
  const bytes = Buffer.from(JSON.stringify(values));
  const words = new Int32Array(1 + Math.ceil(bytes.length / BYTES_PER_WORD));
  words[0] = bytes.length;
  new Uint8Array(words.buffer, BYTES_PER_WORD).set(bytes);
  return words;
}

function decode(words: Int32Array, base: number): LiveValues {
  const bytes = new Uint8Array(words.buffer, (base + 1) * BYTES_PER_WORD, words[base]);
  return JSON.parse(Buffer.from(bytes).toString()) as LiveValues;
}

type Writable<T> = { -readonly [Key in keyof T]: T[Key] };

/** What a thread changes: the plan, the declaration, and the objects that it has open. */
interface Reconfigured {
  readonly plan: InstancePlan;
  readonly declaration: Declaration;
  readonly objects: readonly StateObject[];
}

/** Changes the plan, the options and the objects of a thread in place. */
export function applyLive({ plan, declaration, objects }: Reconfigured, values: LiveValues): void {
  Object.assign(plan.replication, values.replication);
  (plan as Writable<InstancePlan>).earlyMsMax = values.earlyMsMax;
  applyOptions(declaration, objects, plan.shared, values.middleboxes);
}

/** Changes the options and the objects of each middlebox in place. */
export function applyOptions(
  { links }: Declaration,
  objects: readonly StateObject[],
  shared: SharedState,
  values: LiveValues['middleboxes'],
): void {
  for (const [i, { middlebox, options, objectIds }] of links.entries()) {
    const changed = values[i] ?? {};
    if (Object.keys(changed).length === 0) continue;
    Object.assign(options, changed);
    for (const [key, definition] of Object.entries(stateOf(middlebox, options, shared)))
      definition.reconfigure?.(objects[objectIds[key]]);
  }
}
