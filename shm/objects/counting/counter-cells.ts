/**
 * Cells of counts, from which counters, counter vectors and counting sketches are made. Every
 * instance adds to every cell at memory speed, and all converge to the same sums.
 *
 * **Counts** are doubles, whole numbers up to 2^53 - 1. An aligned 8-byte store is never torn on
 * x86-64, and a sum is one addition without a carry that could be seen half done. The limit per
 * origin and cell is 9 PB, or 83 days of 10 Gbit/s in one cell. An `add` beyond it is refused and
 * counted. An up/down cell is two grow-only parts, so that totals converge.
 *
 * **Two wire forms**, one behaviour:
 *
 * | form         | a record says          | the arena holds, per cell     | delivery    |
 * | ------------ | ---------------------- | ----------------------------- | ----------- |
 * | `totals`     | origin's running total | a total per member, the larger | `any-order` |
 * | `increments` | "+n" since the last record | one sum of the others'    | `in-order`, once (object.ts) |
 *
 * Totals are the default because they survive reordering, duplicates, the death of any thread on
 * either side, and a healed partition. Their extra cost (`npm run bench -- wire_forms`, Zipf stream
 * over 10 k cells, 2 k adds a round, 2 / 3 / 8 members): nothing on the wire (7.6 / 15 / 53 B an
 * add in both forms, 2.1 times less than a record each); 5 to 15 % in the send thread, and 5 / 20 /
 * 50 % in the receive threads, whose totals lie further apart; 56 / 64 / 104 MB of memory for 1 M
 * cells and 4 workers, against 48. So increments are for large sketches of large clusters that take
 * snapshots anyway.
 *
 *     arena   totals: f64 [cell][member]; increments: f64 [cell]          one writer: the receive thread
 *     local   head, unreplicated bits, `ReplicatedAmounts`, and per worker a stripe   in no snapshot
 *     stripe  f64 per cell: what this worker added                        one writer: the worker
 *     record  cell, count (2 words, low first)                            u53
 *
 * **Concurrent writers** never write the same word, so no lock exists and every access is plain. A
 * reader may see another thread's stripe late, by its store buffer, but never torn. A value is the
 * sum of the members' totals and the stripes.
 *
 * **The log record is only a mark**: "this cell grew". The send thread reads the count from the
 * stripes when it stages the record (`fillIn`). That includes every add whose mark it read, because
 * a worker stores the stripe before it publishes the mark (TSO). So
 *
 * - a cell is marked once in a batch, however often it is counted in it (for objects of up to
 *   `MARKED_CELLS` parts);
 * - a worker that dies between mark and stripe store has counted nothing, here or elsewhere; a
 *   worker that dies later has counted everywhere. Nothing has to be recovered, and a superfluous
 *   or repeated mark does no harm;
 * - a full log loses nothing: the cell's *unreplicated* bit is set instead, and
 *   the send thread replicates the cell in its next round.
 *
 * In increments form, the amount already replicated (replicated-amounts.ts) is subtracted, so adds
 * are sent once, whatever the marks do. Increments are not exact if a replication thread dies
 * abruptly, or if a member is silent for longer than the logs last: see `Delivery`.
 */

import type { SharedState } from '../../../options/middlebox.js';
import type { LogProducer } from '../../log.js';
import { NONE } from '../../none.js';
import type { Region } from '../../region.js';
import { BYTES_PER_LINE, BYTES_PER_WORD, LINE, roundUp, struct } from '../../struct.js';
import { ContentDigest } from '../core/content-digest.js';
import type { Journal } from '../core/journal.js';
import {
  type Addends,
  Applied,
  type Delivery,
  type OpenContext,
  type StateDefinition,
  type StateObject,
} from '../core/object.js';
import { ReplicatedAmounts, replicatedBytes } from '../core/replicated-amounts.js';

export type WireForm = SharedState['form'];

export interface CounterCellsOptions {
  readonly cells: number;
  /** Default `totals`. */
  readonly form?: WireForm;
  /** Whether cells also count down. */
  readonly upDown?: boolean;
  /** Maximum members of the cluster, for totals; default 8. Each costs 8 bytes a cell. */
  readonly members?: number;
}

/** The only operation in the log. */
export const CELL_COUNT = 1;
/** The largest count of one part of a cell, for one worker and for one origin. */
export const COUNT_MAX = Number.MAX_SAFE_INTEGER;

const RECORD = struct({ cell: 1, low: 1, high: 1 });
const RECORD_WORDS = RECORD.words;
const HEAD = struct({ unreplicated: LINE, sending: 1, refused: LINE, logFull: 1, malformed: 1 });
/** Before each stripe. `pending`: part + 1 of an add in progress for which the log had no room. */
const STRIPE = struct({ pending: LINE });
const TWO_32 = 2 ** 32;
const HIGH_MAX = 2 ** 21 - 1;
const CELLS_MAX = 2 ** 26;
const MEMBERS_MAX = 255;
/**
 * Up to this many parts, an object notes for each the batch in which it was last marked, 8 bytes
 * each. More would not stay in the cache.
 */
const MARKED_CELLS = 4096;

/**
 * Options with their defaults, and what follows from them. `parts`: number of cells, twice as many
 * with `upDown`.
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

/**
 * Cells for an object of its own, or for an object built on them (see `counters.ts`). Throws if an
 * option is out of range.
 */
export function counterCells(options: CounterCellsOptions): StateDefinition<CounterCells> {
  const shape = shapeOf(options);
  const { parts, form, members } = shape;
  return {
    kind: 'counter-cells',
    parameters: { cells: shape.cells, form, up_down: shape.upDown, members: form === 'totals' ? members : 0 },
    bytes: parts * 8 * (form === 'totals' ? members : 1),
    localBytes: (stripes) => HEAD.bytes + bitsBytes(parts) + replicatedBytes(parts) + stripes * stripeBytes(parts),
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
  /** Totals in the arena per part. `self`: this member's index among them. */
  private readonly width: number;
  private readonly self: number;
  private readonly arena: Float64Array;
  private readonly head: Int32Array;
  private readonly bits: Int32Array;
  private readonly replicated: ReplicatedAmounts;
  /** Byte offsets in the local memory of `replicated` and of the first stripe's counts. */
  private readonly replicatedAt: number;
  private readonly stripesAt: number;
  /** Stripes of all workers. `stripeStride`: from stripe to stripe, in doubles. */
  private readonly stripes: Float64Array;
  private readonly stripeCount: number;
  private readonly stripeStride: number;
  private readonly pendings: readonly Int32Array[];
  /** This worker's own log, stripe and pending word. */
  private readonly log: LogProducer | null;
  private readonly stripe: Float64Array;
  private readonly pending: Int32Array;
  /** By part: the batch in which it was last marked. Empty if there are too many parts. */
  private readonly marked: Float64Array;
  /**
   * Word of the unreplicated bits where the send thread's scan continues; `NONE` between scans. The
   * first scan starts at once.
   */
  private unreplicatedCursor = 0;
  /** Whether this thread, as the send thread, has recovered what its predecessor left. */
  private recovered = false;

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
    this.replicatedAt = HEAD.bytes + bitsBytes(parts);
    this.replicated = new ReplicatedAmounts(local.part(this.replicatedAt, replicatedBytes(parts)), parts);
    const stripesAt = this.replicatedAt + replicatedBytes(parts);
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
   * Counts `n`, a whole number, in a cell; below 0 only with `upDown`. Returns false, and changes
   * nothing but the count of refusals, if the cell does not exist or its count would no longer be
   * exact. A full log is never the reason.
   */
  add(cell: number, n: number): boolean {
    const part = this.upDown ? 2 * cell + (n < 0 ? 1 : 0) : cell;
    const amount = this.upDown && n < 0 ? -n : n;
    const { stripe, marked, log } = this;
    const sum = stripe[part] + amount;
    // `sum` is NaN if the part does not exist.
    if (!(amount >= 0 && sum <= COUNT_MAX) || log === null) return this.refuse();
    if (marked.length === 0 || marked[part] !== log.batch) {
      if (!log.note(this.id, CELL_COUNT, RECORD_WORDS, part)) return this.addUnreplicated(part, sum);
      if (marked.length !== 0) marked[part] = log.batch;
    }
    stripe[part] = sum;
    return true;
  }

  /**
   * Counts `n` for a key of a sketch, in one cell per row: in row r, cell `(first + r * step) &
   * mask` after `r * width`. As `add`, except that if one cell refuses, the others are still
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
      } else this.addUnreplicated(part, sum);
    }
    return counted;
  }

  private addEach(first: number, step: number, mask: number, width: number, rows: number, n: number): boolean {
    let counted = true;
    for (let row = 0; row < rows; row++)
      if (!this.add(row * width + ((first + Math.imul(row, step)) & mask), n)) counted = false;
    return counted;
  }

  /** The count of a cell: ours, and the others' as far as it was replicated to us. */
  value(cell: number): number {
    return this.upDown ? this.sum(2 * cell) - this.sum(2 * cell + 1) : this.sum(cell);
  }

  /**
   * Writes the least of a key's cells, chosen as in `addRows`, to `out[0]`. It stops at the first
   * cell below `enough`. The result is in memory because a returned double is boxed if the call is
   * not inlined.
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

  /** Starts fetching the words that `add` and `value` will read. */
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

  /** The sum of the stripes: what this instance counted since it started. */
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
   * The log is full. The bit is set after the count, so the thread that clears the bit then reads
   * the count. If this thread dies in between, `recover` sets the bit.
   */
  private addUnreplicated(part: number, sum: number): boolean {
    this.pending[STRIPE.at.pending] = part + 1;
    this.stripe[part] = sum;
    this.setUnreplicated(part);
    this.pending[STRIPE.at.pending] = 0;
    Atomics.add(this.head, HEAD.at.logFull, 1);
    return true;
  }

  private setUnreplicated(part: number): void {
    Atomics.or(this.bits, part >>> 5, 1 << (part & 31));
    Atomics.store(this.head, HEAD.at.unreplicated, 1);
  }

  // ——— Send thread ———

  /** Fills in the total of the cell, or what was added since the last record. */
  fillIn(op: number, words: Int32Array, at: number, length: number): boolean {
    if (op !== CELL_COUNT || length !== RECORD.words) return true;
    if (!this.recovered) this.recoverSending();
    const part = words[at + RECORD.at.cell];
    // If the send thread died now, a change without an undo note would be lost. So the cell is
    // replicated after the next cut.
    if (this.replicated.isFull) {
      this.setUnreplicated(part);
      return false;
    }
    const total = this.own(part);
    const increment = this.replicated.advance(part, total);
    putCount(words, at, this.totals ? total : increment);
    return increment !== 0;
  }

  nextUnreplicated(words: Int32Array, at: number): number {
    const { head, bits } = this;
    if (!this.recovered) this.recoverSending();
    if (this.replicated.isFull) return NONE;
    if (this.unreplicatedCursor === NONE) {
      if (head[HEAD.at.unreplicated] === 0) return NONE;
      Atomics.store(head, HEAD.at.unreplicated, 0);
      this.unreplicatedCursor = 0;
    }
    for (; this.unreplicatedCursor < bits.length; this.unreplicatedCursor++) {
      const word = bits[this.unreplicatedCursor];
      if (word === 0) continue;
      const bit = 31 - Math.clz32(word);
      const part = this.unreplicatedCursor * 32 + bit;
      // For a successor, until `fillIn` was called and made an undo note.
      head[HEAD.at.sending] = part + 1;
      Atomics.and(bits, this.unreplicatedCursor, ~(1 << bit));
      words[at + RECORD.at.cell] = part;
      return (RECORD.words << 8) | CELL_COUNT;
    }
    head[HEAD.at.sending] = 0;
    this.unreplicatedCursor = NONE;
    return NONE;
  }

  /** What a dead send thread had in progress must be replicated again. */
  private recoverSending(): void {
    this.recovered = true;
    const sending = this.head[HEAD.at.sending];
    if (sending !== 0) this.setUnreplicated(sending - 1);
    this.replicated.takeBack((part) => this.setUnreplicated(part));
    this.head[HEAD.at.sending] = 0;
  }

  settle(sequence: number): void {
    this.replicated.settle(sequence);
  }

  coalesceKey(_op: number, words: Int32Array, at: number): number {
    return words[at + RECORD.at.cell];
  }

  /** Keeps the later total, which is the larger one. Increments are added. */
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
    // A total of our former incarnation that our snapshot did not contain. The counts of this
    // incarnation are added to it, also at the others, which took our total so far for the whole.
    if (this.totals && origin === this.self) this.setUnreplicated(part);
    return Applied.CHANGED;
  }

  // ——— Rare operations ———

  /**
   * Totals: everything in the stripes. Increments: only what was replicated. A snapshot must
   * contain exactly the increments that have numbers; the others follow.
   */
  get addends(): Addends {
    const { parts, width, self, stripeStride, stripeCount } = this;
    const target = { target: this.totals ? self * 8 : 0, targetStride: width * 8, cells: parts };
    return this.totals
      ? { ...target, source: this.stripesAt, sourceStride: 8, laneStride: stripeStride * 8, lanes: stripeCount }
      : {
          ...target,
          source: this.replicatedAt + ReplicatedAmounts.amountsAt,
          sourceStride: 8,
          laneStride: 0,
          lanes: 1,
        };
  }

  /**
   * Totals: peers have our own totals from a former incarnation, so they count as replicated.
   * Increments: they are part of the others' sum.
   */
  adopt(): void {
    if (!this.totals) return;
    for (let part = 0; part < this.parts; part++) {
      const total = this.arena[part * this.width + this.self];
      if (total !== 0) this.replicated.adjust(part, total);
    }
  }

  /**
   * Totals: takes the larger of each. What the other instance has of us and we do not have, from a
   * former incarnation, counts as replicated. So it runs only at a barrier, or before the send
   * thread runs. Increments cannot show what both have in common, so they can only be taken into an
   * object in which nothing was counted yet. Throws otherwise, and if the region contains no valid
   * counts.
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
        // Adjust the replicated amount first. If the send thread runs in between, it sends one
        // superfluous record. In the other order it could fail to replicate a count.
        if (ours) this.replicated.adjust(part, more);
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
    let unreplicated = 0;
    for (let part = 0; part < this.parts; part++)
      unreplicated += Math.max(0, this.own(part) - this.replicated.amount(part));
    return unreplicated + this.replicated.volume - this.replicated.volumeUpTo(sequence);
  }

  /** This instance's own count: in totals form including what a snapshot put into the arena. */
  private own(part: number): number {
    const base = this.totals ? this.arena[part * this.width + this.self] : 0;
    return Math.min(base + this.counted(part), COUNT_MAX);
  }

  /**
   * Covers every count that is not 0: of each origin in totals form, summed in increments form.
   */
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

  /** Only the bit of an add for which the log had no room has to be recovered. */
  recover(writerId: number, _journal: Journal, _logPosition: number): number {
    const pending = this.pendings[writerId - 1];
    if (pending === undefined || pending[STRIPE.at.pending] === 0) return 0;
    this.setUnreplicated(pending[STRIPE.at.pending] - 1);
    pending[STRIPE.at.pending] = 0;
    return 1;
  }

  describe(): Record<string, number> {
    const { head } = this;
    return {
      cells: this.cells,
      members: this.totals ? this.shape.members : 1,
      replicated: this.replicated.volume,
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
