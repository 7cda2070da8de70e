/**
 * The simulator's own state object. It remembers every applied operation, so an operation that is
 * duplicated, lost, invented or misplaced shows at once. It is deliberately not idempotent.
 *
 *     NOTE [author, number]              never coalesced; numbers of one author count from 1
 *     ADD  [author, key, count, check]   coalesces by summing; `check` sums a hash of each addition
 *
 * An *author* is one incarnation of a member, numbered through the whole run (model.ts).
 */

import type { LogProducer } from '../../shm/log.js';
import { NONE } from '../../shm/none.js';
import { Applied, type Delivery, type StateObject } from '../../shm/objects/core/object.js';
import type { Model, Work } from './model.js';
import { demand } from './violation.js';

const NOTE = 1;
const ADD = 2;

/** An applied record, and the version of the vector at that time. */
interface Applying {
  readonly key: string;
  readonly author: number;
  readonly version: number;
  /** For a note, its number. For an addition, `add` has its key, count and check. */
  readonly note: number;
  readonly add: readonly [key: number, count: number, check: number] | null;
}

export interface LedgerCopy {
  readonly received: ReadonlyMap<number, Received>;
  readonly repeatable: ReadonlyMap<string, Applying>;
  readonly merged: ReadonlySet<string>;
  readonly torn: ReadonlySet<number>;
  readonly mayLack: boolean;
}

/** What was applied from one author. */
export class Received {
  readonly notes = new Set<number>();
  lastNote = 0;
  readonly adds = new Map<number, { count: number; check: number }>();

  copy(): Received {
    const copy = new Received();
    for (const note of this.notes) copy.notes.add(note);
    copy.lastNote = this.lastNote;
    for (const [key, sum] of this.adds) copy.adds.set(key, { ...sum });
    return copy;
  }
}

export class SimLedger implements StateObject {
  readonly id: number;
  readonly delivery: Delivery;
  /** By author. */
  readonly received = new Map<number, Received>();
  /** Whether notes may be skipped in order, because their author could not keep them. */
  mayLack = false;
  /**
   * Records that a receive thread had applied, but not noted in the vector, when it died. Each may
   * be applied once more.
   */
  private readonly repeatable = new Map<string, Applying>();
  private underWay: Applying[] = [];
  /**
   * Notes that were merged from a snapshot. Our vectors do not claim them, so their units may still
   * arrive.
   */
  private readonly merged = new Set<string>();
  /**
   * Authors that died when we had taken only a part of a folded backlog. Repairs may repeat that
   * part.
   */
  private readonly torn = new Set<number>();
  private fails = false;
  private readonly model: Model;
  private readonly place: string;

  constructor(id: number, delivery: Delivery, model: Model, place: string) {
    this.id = id;
    this.delivery = delivery;
    this.model = model;
    this.place = place;
  }

  of(author: number): Received {
    let received = this.received.get(author);
    if (received === undefined) {
      received = new Received();
      this.received.set(author, received);
    }
    return received;
  }

  /** For the worker: logs the operation and applies it here. Returns false if the log is full. */
  write(log: LogProducer, author: number, work: Work): boolean {
    const at = log.claim(this.id, work.kind === 'note' ? NOTE : ADD, work.kind === 'note' ? 2 : 4);
    if (at === NONE) return false;
    const own = this.of(author);
    log.words[at] = author;
    if (work.kind === 'note') {
      log.words[at + 1] = work.number;
      own.notes.add(work.number);
      own.lastNote = work.number;
    } else {
      log.words[at + 1] = work.key;
      log.words[at + 2] = 1;
      log.words[at + 3] = work.check;
      addTo(own.adds, work.key, 1, work.check);
    }
    log.commit();
    return true;
  }

  tear(author: number): void {
    this.torn.add(author);
  }

  isTorn(author: number): boolean {
    return this.torn.has(author);
  }

  /** A message is about to be received. */
  beginMessage(): void {
    this.underWay = [];
  }

  /**
   * The receive thread died within a message. What it had applied may come again. In order, that is
   * what was not noted in the vector, whose version is now `version`. In any order, it is the whole
   * message.
   */
  died(version: number): void {
    for (const entry of this.underWay)
      if (this.delivery === 'any-order' || entry.version === version) this.repeatable.set(entry.key, entry);
    this.underWay = [];
  }

  /** The vector's version while records are applied. The instance sets it. */
  vectorVersion: () => number = () => 0;
  /** Whether the present message may skip notes. The instance sets it. */
  skips: () => boolean = () => false;

  apply(op: number, words: Int32Array, at: number, length: number, origin: number): Applied {
    const author = words[at];
    const life = this.model.life(author);
    demand(
      life !== undefined && life.member === origin,
      'applied-what-was-said',
      () => `${this.place} was given a record of author ${author} in the name of member ${origin}`,
    );
    const received = this.of(author);
    if (op === NOTE && length === 2) this.note(received, author, words[at + 1]);
    else if (op === ADD && length === 4) this.add(received, author, words[at + 1], words[at + 2], words[at + 3]);
    else return Applied.MALFORMED;
    return Applied.CHANGED;
  }

  private note(received: Received, author: number, number: number): void {
    const key = `n${author}.${number}`;
    demand(
      number >= 1 && number <= this.model.issued(author, this.id).notes,
      'applied-what-was-said',
      () => `${this.place} was given note ${number} of author ${author}, who has not written it`,
    );
    if (this.torn.has(author)) {
      received.notes.add(number);
      return;
    }
    this.underWay.push({ key, author, version: this.vectorVersion(), note: number, add: null });
    if (received.notes.has(number)) {
      demand(
        this.repeatable.delete(key) || this.merged.delete(key),
        'applied-once',
        () => `${this.place} applied note ${number} of author ${author} twice`,
      );
      return;
    }
    if (this.delivery === 'in-order') {
      const next = received.lastNote + 1;
      demand(
        number === next || (number > next && (this.mayLack || this.skips())),
        'applied-in-order',
        () => `${this.place} applied note ${number} of author ${author} when ${next} was next`,
      );
    }
    received.notes.add(number);
    received.lastNote = Math.max(received.lastNote, number);
  }

  private add(received: Received, author: number, key: number, count: number, check: number): void {
    if (this.torn.has(author)) {
      addTo(received.adds, key, count, check);
      return;
    }
    const entry = `a${author}.${key}.${count}.${check}`;
    this.underWay.push({ key: entry, author, version: this.vectorVersion(), note: 0, add: [key, count, check] });
    // A repeated record is left out, or the sums would stay wrong.
    if (this.repeatable.delete(entry)) return;
    addTo(received.adds, key, count, check);
    const issued = this.model.issued(author, this.id).adds.get(key);
    demand(
      issued !== undefined && (received.adds.get(key)?.count ?? 0) <= issued.count,
      'applied-once',
      () => `${this.place} applied more additions to key ${key} of author ${author} than there are`,
    );
  }

  coalesceKey(op: number, words: Int32Array, at: number, _length: number): number {
    return op === NOTE ? ~words[at + 1] : words[at + 1];
  }

  /** The next call of `coalesce` throws an error. */
  failToCoalesce(): void {
    this.fails = true;
  }

  coalesce(op: number, words: Int32Array, earlier: number, later: number, _length: number): boolean {
    if (this.fails) {
      this.fails = false;
      throw new Error('a planned error');
    }
    if (op !== ADD || words[earlier] !== words[later] || words[earlier + 1] !== words[later + 1]) return false;
    words[earlier + 2] += words[later + 2];
    words[earlier + 3] = (words[earlier + 3] + words[later + 3]) | 0;
    return true;
  }

  /**
   * The content of one author in a form that can be compared. It leaves out records that a receive
   * thread had applied but not noted when it died, and that did not come again: the vector does not
   * claim them.
   */
  content(author: number): string {
    const received = this.received.get(author);
    if (received === undefined) return '';
    const notes = new Set(received.notes);
    const sums = new Map([...received.adds].map(([key, sum]) => [key, { ...sum }]));
    for (const { author: of, note, add } of this.repeatable.values()) {
      if (of !== author) continue;
      if (add === null) notes.delete(note);
      else addTo(sums, add[0], -add[1], -add[2]);
    }
    const adds = [...sums]
      .filter(([, { count }]) => count !== 0)
      .sort(([a], [b]) => a - b)
      .map(([key, { count, check }]) => `${key}:${count}:${check}`);
    if (notes.size + adds.length === 0) return '';
    return `notes ${ranges([...notes].sort((a, b) => a - b))}; sums ${adds.join(' ')}`;
  }

  /** The notes of all authors, without the sums. */
  notesDigest(): string {
    return this.contents((content) => content.replace(/; sums.*/, ''));
  }

  digest(): string {
    return this.contents((content) => content);
  }

  private contents(shown: (content: string) => string): string {
    return [...this.received.keys()]
      .sort((a, b) => a - b)
      .map((author) => ({ author, content: this.content(author) }))
      .filter(({ content }) => content !== '')
      .map(({ author, content }) => `${author} {${shown(content)}}`)
      .join(' ');
  }

  copyOut(): LedgerCopy {
    return {
      received: new Map([...this.received].map(([author, received]) => [author, received.copy()])),
      repeatable: new Map(this.repeatable),
      merged: new Set(this.merged),
      torn: new Set(this.torn),
      mayLack: this.mayLack,
    };
  }

  copyIn({ received, repeatable, merged, torn, mayLack }: LedgerCopy): void {
    if (mayLack) this.mayLack = true;
    this.received.clear();
    this.repeatable.clear();
    this.merged.clear();
    for (const key of merged) this.merged.add(key);
    this.torn.clear();
    for (const author of torn) this.torn.add(author);
    for (const [author, one] of received) this.received.set(author, one.copy());
    for (const [key, applying] of repeatable) this.repeatable.set(key, applying);
  }

  /**
   * Merges the notes of another member's copy with ours. Sums cannot be merged, and neither can
   * notes that are applied in order.
   */
  joinNotes({ received, repeatable }: LedgerCopy): void {
    if (this.delivery === 'in-order') return;
    for (const [author, { notes }] of received)
      for (const number of notes) {
        const key = `n${author}.${number}`;
        const own = this.of(author);
        // Records that the other's vectors do not claim come again there, and not every member has
        // them.
        if (repeatable.has(key) || own.notes.has(number)) continue;
        own.notes.add(number);
        this.merged.add(key);
      }
  }

  recover(): number {
    return 0;
  }

  describe(): Record<string, number> {
    return { authors: this.received.size };
  }
}

function addTo(adds: Received['adds'], key: number, count: number, check: number): void {
  const sum = adds.get(key);
  if (sum === undefined) adds.set(key, { count, check });
  else {
    sum.count += count;
    sum.check = (sum.check + check) | 0;
  }
}

/** `1-4 7 9-10`. */
export function ranges(numbers: readonly number[]): string {
  const out: string[] = [];
  for (let i = 0; i < numbers.length; ) {
    let end = i;
    while (end + 1 < numbers.length && numbers[end + 1] === numbers[end] + 1) end++;
    out.push(end === i ? `${numbers[i]}` : `${numbers[i]}-${numbers[end]}`);
    i = end + 1;
  }
  return out.join(' ');
}
