/**
 * One operation on the words of a state object: takes locks, changes words, and is complete at one
 * instant.
 *
 *     begin        claims the log space first, so that an operation that cannot be told to others changes nothing
 *     lock, set    every lock and every old word is noted in the journal before it is taken or changed
 *     commit       the record's `commit` (one plain store) is the instant; then the locks are let go, the journal closed
 *     abort        old words come back in reverse order, locks are let go, the log space is given back
 *
 * A lock is the low byte of a word, 0 or the holder's writer id; the rest of the word is the
 * owner's business and changes only under the lock. Locks are taken with compare-exchange and let
 * go with an atomic store, so a holder sees everything the holder before it did. Nobody waits for
 * ever: `lock` spins a bounded time and says no, and then the whole operation is aborted and tried
 * again a few times. So no order of locks is needed to be free of deadlock.
 */

import type { LogProducer } from '../log.js';
import { NONE } from '../none.js';
import { type Journal, JournalState, MAX_LOCKS } from './journal.js';
import type { Writer } from './object.js';

export const LOCK_MASK = 0xff;

/**
 * Looks at a lock held by another before giving up: some microseconds, far longer than an operation
 * takes.
 */
const SPINS = 200;
/**
 * Tries of a whole operation on the packet path, and in `apply`, where giving up (`BUSY`) has the
 * record sent once more.
 */
const TRIES_PACKET = 6;
const TRIES_APPLY = 250;
/** From this try on the thread sleeps between tries: the holder has been preempted, or has died. */
const TRIES_SPINNING = 3;

/**
 * The objects that the writer of a journal has open, by id, each with its words: to mend what an
 * error left under way.
 */
const objectsOf = new WeakMap<Journal, Map<number, Int32Array>>();

const sleeper = new Int32Array(new SharedArrayBuffer(4));

export class Transaction {
  private readonly log: LogProducer | null;
  private readonly words: Int32Array;
  private readonly writer: number;
  private readonly journal: Journal;
  private readonly objectId: number;
  private logged = false;

  /** `words` is the object's whole region: the journal notes indices into it. */
  constructor(words: Int32Array, objectId: number, writer: Writer) {
    if (writer.id < 1 || writer.id > 254) throw new RangeError(`writer id ${writer.id} is not in 1…254`);
    this.words = words;
    this.objectId = objectId;
    this.writer = writer.id;
    this.journal = writer.journal;
    this.log = writer.log;
    const objects = objectsOf.get(writer.journal) ?? new Map<number, Int32Array>();
    objectsOf.set(writer.journal, objects.set(objectId, words));
  }

  /** Starts an operation that others are not told of: what they told us, or local upkeep. */
  begin(): void {
    if (this.journal.state !== JournalState.EMPTY) this.mend();
    this.logged = false;
    this.journal.open(JournalState.LOCAL, this.objectId, 0);
  }

  /**
   * Starts an operation with a record of `payloadWords`. `NONE` when the log is full: nothing was
   * started.
   */
  beginLogged(op: number, payloadWords: number): number {
    const log = this.log;
    if (log === null)
      throw new Error(`object ${this.objectId}: this thread has no log, its operations cannot be replicated`);
    const at = log.claim(this.objectId, op, payloadWords);
    if (at === NONE) return NONE;
    if (this.journal.state !== JournalState.EMPTY) this.mend();
    this.logged = true;
    this.journal.open(JournalState.LOGGED, this.objectId, log.position);
    return at;
  }

  /** Where a logged operation's record goes, from the index that `beginLogged` returned. */
  get record(): Int32Array {
    return (this.log as LogProducer).words;
  }

  /** Where this thread's log ends once the operation under way is complete. */
  get logEnd(): number {
    const { log } = this;
    if (log === null) return 0;
    return this.logged ? log.claimedPosition : log.position;
  }

  /** Takes the lock at `index` if it is free now, or held by this operation already. */
  tryLock(index: number): boolean {
    const words = this.words;
    const word = words[index];
    const holder = word & LOCK_MASK;
    if (holder !== 0) return holder === this.writer;
    const journal = this.journal;
    if (journal.lockCount === MAX_LOCKS) return false;
    journal.noteLock(index);
    if (Atomics.compareExchange(words, index, word, word | this.writer) === word) return true;
    journal.dropLock();
    return false;
  }

  /** Takes the lock at `index`, spinning a bounded time. */
  lock(index: number): boolean {
    if (this.tryLock(index)) return true;
    for (let i = 0; i < SPINS; i++) {
      // Atomic, for a plain load could be taken out of the loop.
      if ((Atomics.load(this.words, index) & LOCK_MASK) === 0 && this.tryLock(index)) return true;
    }
    return false;
  }

  /** Lets go of the lock taken last, under which nothing was changed. */
  unlockLast(): void {
    const journal = this.journal;
    const index = journal.lockAt(journal.lockCount - 1);
    Atomics.store(this.words, index, this.words[index] & ~LOCK_MASK);
    journal.dropLock();
  }

  /** Changes a word, under its lock. */
  set(index: number, value: number): void {
    const words = this.words;
    this.journal.noteWord(index, words[index]);
    words[index] = value;
  }

  /**
   * Changes what a lock word says beside the lock, which this operation holds. The low byte of
   * `value` is 0.
   */
  setLocked(index: number, value: number): void {
    this.set(index, value | this.writer);
  }

  /**
   * Changes what a lock word says, beside the lock, for good: one store, which neither `abort` nor
   * a death undoes. So it must be right whatever becomes of the operation.
   */
  setForGood(index: number, value: number): void {
    this.words[index] = value | this.writer;
  }

  commit(): void {
    if (this.logged) (this.log as LogProducer).commit();
    else this.journal.done();
    this.release();
  }

  abort(): void {
    undo(this.words, this.journal);
    // Before any lock is let go: a recovery after that must not undo again what another thread has
    // changed since.
    this.journal.forgetWords();
    if (this.logged) (this.log as LogProducer).abort();
    this.release();
  }

  /**
   * An error escaped the operation before this one, of whichever object, and left it under way: it
   * is mended as after the writer's death. Else its locks would be held for ever, and nobody would
   * know, once the journal is opened anew.
   */
  private mend(): void {
    const { journal, log } = this;
    const words = objectsOf.get(journal)?.get(journal.objectId);
    if (words === undefined)
      throw new Error(
        `object ${this.objectId}: an operation on object ${journal.objectId} is under way in this thread, which does not mend it`,
      );
    recoverTransaction(words, journal.objectId, this.writer, journal, log === null ? 0 : log.position);
  }

  private release(): void {
    const journal = this.journal;
    for (let i = journal.lockCount - 1; i >= 0; i--) {
      const index = journal.lockAt(i);
      Atomics.store(this.words, index, this.words[index] & ~LOCK_MASK);
    }
    journal.close();
  }
}

/**
 * Whether an operation that met a lock for the `tries`th time is to be tried again; rests in
 * between. On the packet path that is at most some 200 µs, and only where the holder was preempted;
 * in `apply` a quarter of a second and more, within which a dead holder is recovered, while the
 * thread still shows that it lives. A holder that hangs is ended later than that: until then the
 * record is `BUSY`, and comes again.
 */
export function tryAgain(tries: number, patient: boolean): boolean {
  if (tries >= (patient ? TRIES_APPLY : TRIES_PACKET)) return false;
  if (tries >= TRIES_SPINNING) Atomics.wait(sleeper, 0, 0, patient ? 1 : 0.05);
  return true;
}

function undo(words: Int32Array, journal: Journal): void {
  for (let i = journal.wordCount - 1; i >= 0; i--) words[journal.wordAt(i)] = journal.oldAt(i);
}

/**
 * Mends what a dead writer left in the words of object `objectId`: an operation whose record was
 * committed stands, any other is undone; locks it held are let go. Returns the number of words and
 * locks mended. Can be run again after a crash of its own: putting an old word back twice is no
 * different from once.
 *
 * Every lock is in the journal before it is taken and leaves it after it was let go, so no search
 * of the table is needed.
 */
export function recoverTransaction(
  words: Int32Array,
  objectId: number,
  writerId: number,
  journal: Journal,
  logPosition: number,
): number {
  const state = journal.state;
  if (state === JournalState.EMPTY || journal.objectId !== objectId) return 0;
  const stands = state === JournalState.DONE || (state === JournalState.LOGGED && logPosition !== journal.position);
  let mended = 0;
  const locks = journal.lockCount;
  if (!stands) {
    mended += journal.wordCount;
    // The count is raised before a change, so a noted word may be unchanged: the same value is put
    // back.
    undo(words, journal);
  }
  for (let i = 0; i < locks; i++) {
    const index = journal.lockAt(i);
    if ((Atomics.load(words, index) & LOCK_MASK) !== writerId) continue; // noted, not yet taken: perhaps another's
    Atomics.store(words, index, words[index] & ~LOCK_MASK);
    mended++;
  }
  journal.close();
  return mended;
}
