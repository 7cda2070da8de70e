/**
 * Cells of counts: what counters, counter vectors and counting sketches are made of. Every instance
 * adds to every cell at memory speed, and all end with the same sums.
 *
 * **Counts** are doubles, whole numbers up to 2^53 - 1: an aligned 8-byte store is never torn on
 * x86-64, a sum is one addition, and there is no carry to be seen half done. Per origin and cell
 * that is 9 PB, at 10 Gbit/s all in one cell 83 days' bytes; an `add` past it is refused and
 * counted. An up/down cell is two grow-only parts, which is how totals converge.
 *
 * **Two wire forms**, one behaviour:
 *
 * | form         | a record says          | the arena holds, per cell     | delivery    |
 * | ------------ | ---------------------- | ----------------------------- | ----------- |
 * | `totals`     | origin's running total | a total per member, the larger | `any-order` |
 * | `increments` | "+n" since last told   | one sum of the others'        | `in-order`, once (object.ts) |
 *
 * Totals are the default, for what they survive: lost order, duplicates, the death of any thread on
 * either side, a healed partition. What they cost more (`npm run bench -- wire_forms`, Zipf stream
 * over 10 k cells, 2 k adds a round, 2 / 3 / 8 members): nothing on the wire (7.6 / 15 / 53 B an
 * add in both forms, 2.1 times less than a record each); 5 to 15 % in the send thread and 5 / 20 /
 * 50 % in the receive threads, whose totals lie further apart; in memory of 1 M cells and 4 workers
 * 56 / 64 / 104 MB against 48. So increments are for large sketches of large clusters that take
 * snapshots anyway.
 *
 *     arena   totals: f64 [cell][member]; increments: f64 [cell]          one writer: the receive thread
 *     local   head, untold bits, `Told`, and per worker a stripe          in no snapshot
 *     stripe  f64 per cell: what this worker added                        one writer: the worker
 *     record  cell, count (2 words, low first)                            u53
 *
 * **Concurrent writers** never write the same word, so nothing is locked and every access is plain:
 * a reader may see another's stripe late by its store buffer, and never torn. A value is the sum of
 * the members' totals and the stripes.
 *
 * **The log record is only a mark**: "this cell grew". The send thread fills in what the stripes
 * say when it stages it (`tell`), and that includes every add whose mark it read: a worker stores
 * the stripe before it publishes the mark (TSO). So
 *
 * - a cell is marked once in a batch, however often it is counted in it (kept for cells up to
 *   `MARKED_CELLS`);
 * - a worker that dies between mark and stripe store has counted nothing, here or elsewhere; one
 *   that dies after has counted everywhere: there is nothing to recover, and marks may be lost to
 *   nobody and repeated freely;
 * - a full log loses nothing: the cell's *untold* bit is set instead, and the send thread tells it
 *   in its next round.
 *
 * In increments form, what was told already (told.ts) is taken off, so adds are sent once, whatever
 * the marks do. Where a thread of replication dies abruptly, or a member is silent for longer than
 * the logs last, they are not exact: see `Delivery`.
 */

import type { SharedState } from '../../options/middlebox.js';
import type { LogProducer } from '../log.js';
import { NONE } from '../none.js';
import type { Region } from '../region.js';
import { BYTES_PER_LINE, BYTES_PER_WORD, LINE, roundUp, struct } from '../struct.js';
import { ContentDigest } from './content-digest.js';
import type { Journal } from './journal.js';
import {
  type Addends,
  Applied,
  type Delivery,
  type OpenContext,
  type StateDefinition,
  type StateObject,
} from './object.js';
import { Told, toldBytes } from './told.js';

export type WireForm = SharedState['form'];

export interface CounterCellsOptions {
  readonly cells: number;
  /** Default `totals`. */
  readonly form?: WireForm;
  /** Whether cells also count down. */
  readonly upDown?: boolean;
  /** Members the cluster can have at most, for totals; default 8. Costs 8 bytes a cell each. */
  readonly members?: number;
}

/** The one operation in the log. */
export const CELL_COUNT = 1;
/** The largest count of one part of a cell by one worker, and of one origin. */
export const COUNT_MAX = Number.MAX_SAFE_INTEGER;

const RECORD = struct({ cell: 1, low: 1, high: 1 });
const RECORD_WORDS = RECORD.words;
const HEAD = struct({ untold: LINE, telling: 1, refused: LINE, logFull: 1, malformed: 1 });
/** Beside a stripe: part + 1 of an add under way that the log had no room for. */
const STRIPE = struct({ pending: LINE });
const TWO_32 = 2 ** 32;
const HIGH_MAX = 2 ** 21 - 1;
const CELLS_MAX = 2 ** 26;
const MEMBERS_MAX = 255;
/**
 * So many cells have a note of the batch they were last marked in, 8 bytes each: more would not
 * stay in the cache.
 */
const MARKED_CELLS = 4096;

/**
 * Options with their defaults, and what follows from them. `parts`: cells, twice as many with
 * `upDown`.
 */
interface Shape extends Required<CounterCellsOptions> {
  readonly parts: number;
}

function shapeOf({ cells, form = 'totals', upDown = false, members = 8 }: CounterCellsOptions): Shape {
  if (!Number.isInteger(cells) || cells < 1 || cells > CELLS_MAX)
    throw new RangeError(`counter: ${cells} cells, from 1 to ${CELLS_MAX} are possible`);
  if (!Number.isInteger(members) || members < 1 || members > MEMBERS_MAX)
    throw new RangeError(`counter: ${members} members, from 1 to ${MEMBERS_MAX} are possible`);
  return { cells, form, upDown, members, parts: upDown ? 2 * cells : cells };
}

const bitsBytes = (parts: number): number => roundUp(Math.ceil(parts / 32) * BYTES_PER_WORD, BYTES_PER_LINE);
const stripeBytes = (parts: number): number => roundUp(STRIPE.bytes + parts * 8, BYTES_PER_LINE);

/** Cells for an object of its own, or for one built on them: see `counters.ts` for how. */
export function counterCells(options: CounterCellsOptions): StateDefinition<CounterCells> {
  const shape = shapeOf(options);
  const { parts, form, members } = shape;
  return {
    kind: 'counter-cells',
    parameters: { cells: shape.cells, form, up_down: shape.upDown, members: form === 'totals' ? members : 0 },
    bytes: parts * 8 * (form === 'totals' ? members : 1),
    localBytes: (stripes) => HEAD.bytes + bitsBytes(parts) + toldBytes(parts) + stripes * stripeBytes(parts),
    open: (context) => new CounterCells(context, shape),
  };
}

export class CounterCells implements StateObject {
  readonly id: number;
  readonly delivery: Delivery;
  readonly cells: number;
  private readonly shape: Shape;
  private readonly parts: number;
  private readonly upDown: boolean;
  private readonly totals: boolean;
  /** Totals in the arena per part, and the index of this member's among them. */
  private readonly width: number;
  private readonly self: number;
  private readonly arena: Float64Array;
  private readonly head: Int32Array;
  private readonly bits: Int32Array;
  private readonly told: Told;
  /** Where in the local memory `told` and the first stripe's counts begin, in bytes. */
  private readonly toldAt: number;
  private readonly stripesAt: number;
  /** Stripes of all workers, and where each starts. */
  private readonly stripes: Float64Array;
  private readonly stripeCount: number;
  private readonly stripeStride: number;
  private readonly pendings: readonly Int32Array[];
  /** This worker's own. */
  private readonly log: LogProducer | null;
  private readonly stripe: Float64Array;
  private readonly pending: Int32Array;
  /** Batch in which a part was marked last; empty where there are too many. */
  private readonly marked: Float64Array;
  /**
   * Word of the untold bits where the send thread's scan goes on; `NONE` between scans. It starts
   * with one.
   */
  private untoldCursor = 0;
  /** Whether this thread, as the send thread, has mended what its predecessor left. */
  private mended = false;

  constructor(context: OpenContext, shape: Shape) {
    const { id, region, local, stripes = 1, writer, memberIndex, memberCount } = context;
    if (local === undefined) throw new Error(`state object ${id}: counts need memory of this instance's own`);
    if (shape.form === 'totals' && memberCount > shape.members)
      throw new RangeError(
        `state object ${id} has room for the totals of ${shape.members} members, not ${memberCount}: raise its members`,
      );
    const { parts } = shape;
    this.id = id;
    this.shape = shape;
    this.cells = shape.cells;
    this.parts = parts;
    this.upDown = shape.upDown;
    this.totals = shape.form === 'totals';
    this.delivery = this.totals ? 'any-order' : 'in-order';
    this.width = this.totals ? shape.members : 1;
    this.self = memberIndex;
    this.arena = region.f64(0, parts * this.width);
    this.head = local.i32(0, HEAD.words);
    this.bits = local.i32(HEAD.bytes, Math.ceil(parts / 32));
    this.toldAt = HEAD.bytes + bitsBytes(parts);
    this.told = new Told(local.part(this.toldAt, toldBytes(parts)), parts);
    const stripesAt = this.toldAt + toldBytes(parts);
    this.stripesAt = stripesAt + STRIPE.bytes;
    const stride = stripeBytes(parts);
    this.stripeCount = stripes;
    this.stripeStride = stride / 8;
    this.stripes = local.f64(stripesAt + STRIPE.bytes, (stripes * stride - STRIPE.bytes) / 8);
    this.pendings = Array.from({ length: stripes }, (_, i) => local.i32(stripesAt + i * stride, STRIPE.words));
    this.log = writer?.log ?? null;
    const mine = this.log === null ? 0 : (writer?.id ?? 0) - 1;
    if (mine >= stripes) throw new RangeError(`state object ${id}: writer ${mine + 1} has no stripe of ${stripes}`);
    this.stripe = this.stripes.subarray(mine * this.stripeStride, mine * this.stripeStride + parts);
    this.pending = this.pendings[mine];
    this.marked = new Float64Array(parts <= MARKED_CELLS ? parts : 0);
  }

  // ——— Packet path ———

  /**
   * Counts `n`, a whole number, in a cell; below 0 only with `upDown`. False, with the refusal
   * counted and nothing changed, when there is no such cell or the count would not be exact any
   * more. Never because the log is full.
   */
  add(cell: number, n: number): boolean {
    const part = this.upDown ? 2 * cell + (n < 0 ? 1 : 0) : cell;
    const amount = this.upDown && n < 0 ? -n : n;
    const { stripe, marked, log } = this;
    const sum = stripe[part] + amount;
    // `sum` is not a number where there is no such part.
    if (!(amount >= 0 && sum <= COUNT_MAX) || log === null) return this.refuse();
    if (marked.length === 0 || marked[part] !== log.batch) {
      if (!log.note(this.id, CELL_COUNT, RECORD_WORDS, part)) return this.addUntold(part, sum);
      if (marked.length !== 0) marked[part] = log.batch;
    }
    stripe[part] = sum;
    return true;
  }

  /**
   * Counts `n` for a key of a sketch, in `rows` cells: in row r, `(first + r * step) & mask` places
   * on from `r * width`. As for `add`, but that where one of them is refused the others are
   * counted.
   */
  addRows(first: number, step: number, mask: number, width: number, rows: number, n: number): boolean {
    if (this.upDown || !(n >= 0) || this.log === null) return this.addEach(first, step, mask, width, rows, n);
    const { id, stripe, marked, log } = this;
    const { batch } = log;
    const isMarked = marked.length !== 0;
    let counted = true;
    let hash = first;
    for (let row = 0, from = 0; row < rows; row++, from += width) {
      const part = from + (hash & mask);
      hash = (hash + step) | 0;
      const sum = stripe[part] + n;
      if (!(sum <= COUNT_MAX)) counted = this.refuse();
      else if (isMarked && marked[part] === batch) stripe[part] = sum;
      else if (log.note(id, CELL_COUNT, RECORD_WORDS, part)) {
        stripe[part] = sum;
        if (isMarked) marked[part] = batch;
      } else this.addUntold(part, sum);
    }
    return counted;
  }

  private addEach(first: number, step: number, mask: number, width: number, rows: number, n: number): boolean {
    let counted = true;
    for (let row = 0; row < rows; row++)
      if (!this.add(row * width + ((first + Math.imul(row, step)) & mask), n)) counted = false;
    return counted;
  }

  /** What is counted in a cell, here and by the others as far as they told. */
  value(cell: number): number {
    return this.upDown ? this.sum(2 * cell) - this.sum(2 * cell + 1) : this.sum(cell);
  }

  /**
   * The least of a key's cells, as `addRows` has them, into `out[0]`: in memory, for a double is
   * boxed at each call that is not inlined. Or the first found below `enough`.
   */
  leastOfRows(
    first: number,
    step: number,
    mask: number,
    width: number,
    rows: number,
    enough: number,
    out: Float64Array,
  ): void {
    const { arena, width: members, stripes, stripeStride, stripeCount, upDown } = this;
    let least = Number.POSITIVE_INFINITY;
    let hash = first;
    for (let row = 0, from = 0; row < rows && least >= enough; row++, from += width) {
      const cell = from + (hash & mask);
      hash = (hash + step) | 0;
      let value = 0;
      if (upDown) value = this.sum(2 * cell) - this.sum(2 * cell + 1);
      else {
        for (let i = 0; i < stripeCount; i++) value += stripes[i * stripeStride + cell];
        for (let i = cell * members, end = i + members; i < end; i++) value += arena[i];
      }
      if (value < least) least = value;
    }
    out[0] = least;
  }

  /** Starts fetching what `add` and `value` will read. */
  touch(cell: number): number {
    const part = this.upDown ? 2 * cell : cell;
    return this.stripe[part] + this.arena[part * this.width];
  }

  private sum(part: number): number {
    const { arena, width } = this;
    let sum = this.counted(part);
    for (let i = part * width, end = i + width; i < end; i++) sum += arena[i];
    return sum;
  }

  /** In the stripes: by this instance, since it started. */
  private counted(part: number): number {
    const { stripes, stripeStride, stripeCount } = this;
    let sum = 0;
    for (let i = 0; i < stripeCount; i++) sum += stripes[i * stripeStride + part];
    return sum;
  }

  private refuse(): boolean {
    if (this.log === null) throw new Error(`state object ${this.id}: this thread cannot count`);
    Atomics.add(this.head, HEAD.at.refused, 1);
    return false;
  }

  /**
   * The log is full. The bit after the count: whoever clears it then reads the count. Should the
   * thread die in between, `recover` sets it.
   */
  private addUntold(part: number, sum: number): boolean {
    this.pending[STRIPE.at.pending] = part + 1;
    this.stripe[part] = sum;
    this.setUntold(part);
    this.pending[STRIPE.at.pending] = 0;
    Atomics.add(this.head, HEAD.at.logFull, 1);
    return true;
  }

  private setUntold(part: number): void {
    Atomics.or(this.bits, part >>> 5, 1 << (part & 31));
    Atomics.store(this.head, HEAD.at.untold, 1);
  }

  // ——— Send thread ———

  /** Fills in what the cell has grown to, or by. */
  tell(op: number, words: Int32Array, at: number, length: number): boolean {
    if (op !== CELL_COUNT || length !== RECORD.words) return true;
    if (!this.mended) this.mend();
    const part = words[at + RECORD.at.cell];
    // If the send thread died now, a change without an undo note would be lost. So it is told after
    // the next cut.
    if (this.told.isFull) {
      this.setUntold(part);
      return false;
    }
    const total = this.own(part);
    const increment = this.told.tell(part, total);
    putCount(words, at, this.totals ? total : increment);
    return increment !== 0;
  }

  nextUntold(words: Int32Array, at: number): number {
    const { head, bits } = this;
    if (!this.mended) this.mend();
    if (this.told.isFull) return NONE;
    if (this.untoldCursor === NONE) {
      if (head[HEAD.at.untold] === 0) return NONE;
      Atomics.store(head, HEAD.at.untold, 0);
      this.untoldCursor = 0;
    }
    for (; this.untoldCursor < bits.length; this.untoldCursor++) {
      const word = bits[this.untoldCursor];
      if (word === 0) continue;
      const bit = 31 - Math.clz32(word);
      const part = this.untoldCursor * 32 + bit;
      // Once `tell` was asked it has an undo note; until then this one, for a successor.
      head[HEAD.at.telling] = part + 1;
      Atomics.and(bits, this.untoldCursor, ~(1 << bit));
      words[at + RECORD.at.cell] = part;
      return (RECORD.words << 8) | CELL_COUNT;
    }
    head[HEAD.at.telling] = 0;
    this.untoldCursor = NONE;
    return NONE;
  }

  /** What a dead send thread had under way is to be told again. */
  private mend(): void {
    this.mended = true;
    const telling = this.head[HEAD.at.telling];
    if (telling !== 0) this.setUntold(telling - 1);
    this.told.takeBack((part) => this.setUntold(part));
    this.head[HEAD.at.telling] = 0;
  }

  settle(sequence: number): void {
    this.told.settle(sequence);
  }

  coalesceKey(_op: number, words: Int32Array, at: number): number {
    return words[at + RECORD.at.cell];
  }

  /** The later total is the larger one; increments add up. */
  coalesce(_op: number, words: Int32Array, earlier: number, later: number): boolean {
    if (words[earlier + RECORD.at.cell] !== words[later + RECORD.at.cell]) return false;
    const count = countAt(words, later);
    const sum = this.totals ? Math.max(count, countAt(words, earlier)) : count + countAt(words, earlier);
    if (sum > COUNT_MAX) return false;
    putCount(words, earlier, sum);
    return true;
  }

  // ——— Receive thread ———

  apply(op: number, words: Int32Array, at: number, length: number, origin: number): Applied {
    const part = words[at + RECORD.at.cell];
    const isStranger = this.totals && (origin < 0 || origin >= this.width);
    if (
      op !== CELL_COUNT ||
      length !== RECORD.words ||
      part >>> 0 >= this.parts ||
      words[at + 2] >>> 0 > HIGH_MAX ||
      isStranger
    ) {
      Atomics.add(this.head, HEAD.at.malformed, 1);
      return Applied.MALFORMED;
    }
    const count = countAt(words, at);
    const index = part * this.width + (this.totals ? origin : 0);
    const sum = this.totals ? count : this.arena[index] + count;
    if (sum > COUNT_MAX) {
      Atomics.add(this.head, HEAD.at.refused, 1);
      return Applied.FULL;
    }
    if (sum <= this.arena[index]) return Applied.UNCHANGED;
    this.arena[index] = sum;
    // A total of our former incarnation that our snapshot did not have: what this one counts comes
    // on top, also at the others, who took our total so far for all of it.
    if (this.totals && origin === this.self) this.setUntold(part);
    return Applied.CHANGED;
  }

  // ——— Rare ———

  /**
   * Totals: what the stripes hold, told or not. Increments: what was told, for a snapshot's
   * increments must be those that are numbered, and the rest will come.
   */
  get addends(): Addends {
    const { parts, width, self, stripeStride, stripeCount } = this;
    const target = { target: this.totals ? self * 8 : 0, targetStride: width * 8, cells: parts };
    return this.totals
      ? { ...target, source: this.stripesAt, sourceStride: 8, laneStride: stripeStride * 8, lanes: stripeCount }
      : { ...target, source: this.toldAt + Told.amountsAt, sourceStride: 8, laneStride: 0, lanes: 1 };
  }

  /**
   * Totals: our own were told by a former life. In the increments' sum they are among the others'.
   */
  adopt(): void {
    if (!this.totals) return;
    for (let part = 0; part < this.parts; part++) {
      const total = this.arena[part * this.width + this.self];
      if (total !== 0) this.told.adjust(part, total);
    }
  }

  /**
   * Totals: the larger of each. What the other knows of us and we do not, from a former life, is
   * counted as told: only at a barrier, or before the send thread runs. Increments cannot tell what
   * both have: they are taken over into an object in which nothing was counted yet, and not
   * otherwise.
   */
  merge(from: Region): number {
    const theirs = from.f64(0, this.arena.length);
    for (let i = 0; i < theirs.length; i++)
      if (!(theirs[i] >= 0 && theirs[i] <= COUNT_MAX) || theirs[i] % 1 !== 0)
        throw new RangeError(`state object ${this.id}: the region holds no counts at ${i}`);
    if (!this.totals && !this.isEmpty())
      throw new Error(`state object ${this.id} counts by increments, which cannot be merged: take a snapshot instead`);
    let changed = 0;
    for (let part = 0; part < this.parts; part++)
      for (let member = 0; member < this.width; member++) {
        const i = part * this.width + member;
        const ours = this.totals && member === this.self;
        const more = theirs[i] - this.arena[i] - (ours ? this.counted(part) : 0);
        if (more <= 0) continue;
        // First told, then there: the send thread, in between, tells too much once; the other way
        // round it could keep a count to itself.
        if (ours) this.told.adjust(part, more);
        this.arena[i] += more;
        changed++;
      }
    return changed;
  }

  private isEmpty(): boolean {
    for (let part = 0; part < this.parts; part++) if (this.sum(part) !== 0) return false;
    return true;
  }

  errorBound(sequence: number): number {
    let untold = 0;
    for (let part = 0; part < this.parts; part++) untold += Math.max(0, this.own(part) - this.told.amount(part));
    return untold + this.told.volume - this.told.volumeUpTo(sequence);
  }

  /** This instance's own: in totals form with what a snapshot put in the arena. */
  private own(part: number): number {
    const base = this.totals ? this.arena[part * this.width + this.self] : 0;
    return Math.min(base + this.counted(part), COUNT_MAX);
  }

  /** Over every count that is not 0: of each origin in totals form, summed in increments form. */
  digest(): string {
    const digest = new ContentDigest();
    const entry = new Int32Array(RECORD.words + 1);
    for (let part = 0; part < this.parts; part++)
      for (let member = 0; member < this.width; member++) {
        const mine = !this.totals || member === this.self;
        const count = this.arena[part * this.width + member] + (mine ? this.counted(part) : 0);
        if (count === 0) continue;
        entry[RECORD.at.cell] = part;
        putCount(entry, 0, count);
        entry[RECORD.words] = member;
        digest.add(entry);
      }
    return digest.toString();
  }

  /** There is nothing to mend but the bit of an add that the log had no room for. */
  recover(writerId: number, _journal: Journal, _logPosition: number): number {
    const pending = this.pendings[writerId - 1];
    if (pending === undefined || pending[STRIPE.at.pending] === 0) return 0;
    this.setUntold(pending[STRIPE.at.pending] - 1);
    pending[STRIPE.at.pending] = 0;
    return 1;
  }

  describe(): Record<string, number> {
    const { head } = this;
    return {
      cells: this.cells,
      members: this.totals ? this.shape.members : 1,
      told: this.told.volume,
      log_full: head[HEAD.at.logFull],
      refused: head[HEAD.at.refused],
      malformed: head[HEAD.at.malformed],
    };
  }
}

function countAt(words: Int32Array, at: number): number {
  return (words[at + RECORD.at.high] >>> 0) * TWO_32 + (words[at + RECORD.at.low] >>> 0);
}

function putCount(words: Int32Array, at: number, count: number): void {
  words[at + RECORD.at.low] = count | 0;
  words[at + RECORD.at.high] = (count / TWO_32) | 0;
}
