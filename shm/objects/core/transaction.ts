/**
 * One operation on the words of a state object. It takes locks, changes words, and completes at one
 * instant.
 *
 *     begin        claims the log space first, so that an operation that cannot be replicated changes nothing
 *     lock, set    every lock and every old word is noted in the journal before it is taken or changed
 *     commit       the record's `commit` (one plain store) is the instant; then locks are released, the journal closed
 *     abort        old words are restored in reverse order, locks are released, the log space is given back
 *
 * A lock is the low byte of a word: 0 or the holder's writer id. The owner of the word uses the
 * other bytes and changes them only under the lock. Locks are taken with compare-exchange and
 * released with an atomic store, so a holder sees everything that the holder before it did. Waiting
 * is bounded: `lock` spins for a bounded time and then returns false. The whole operation is then
 * aborted and tried again a few times. So deadlock is impossible without an order of locks.
 */

import type { LogProducer } from '../../log.js';
import { NONE } from '../../none.js';
import { type Journal, JournalState, MAX_LOCKS } from './journal.js';
import type { Writer } from './object.js';

export const LOCK_MASK = 0xff;

/**
 * Number of times that `lock` reads a lock of another thread before it gives up: some microseconds,
 * far longer than an operation takes.
 */
const SPINS = 200;
/**
 * Tries of a whole operation on the packet path, and in `apply`. If `apply` gives up (`BUSY`), the
 * record is sent once more.
 */
const TRIES_PACKET = 6;
const TRIES_APPLY = 250;
/**
 * From this try on the thread sleeps between tries, because the holder was preempted or has died.
 */
const TRIES_SPINNING = 3;

/**
 * The words of the objects that the writer of a journal has open, by object id, to recover an
 * operation that an error left under way.
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

  /** `words` is the object's whole region, because the journal notes indices into it. */
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

  /**
   * Starts an operation that is not replicated: a peer's record, a local-only change, or local
   * upkeep.
   */
  begin(): void {
    if (this.journal.state !== JournalState.EMPTY) this.recover();
    this.logged = false;
    this.journal.open(JournalState.LOCAL, this.objectId, 0);
  }

  /**
   * Starts an operation with a record of `payloadWords`. Returns the index of the payload in
   * `record`. `NONE` if the log is full: nothing was started.
   */
  beginLogged(op: number, payloadWords: number): number {
    const log = this.log;
    if (log === null)
      throw new Error(`object ${this.objectId}: this thread has no log, its operations cannot be replicated`);
    const at = log.claim(this.objectId, op, payloadWords);
    if (at === NONE) return NONE;
    if (this.journal.state !== JournalState.EMPTY) this.recover();
    this.logged = true;
    this.journal.open(JournalState.LOGGED, this.objectId, log.position);
    return at;
  }

  /**
   * The words to write a logged operation's record to, from the index that `beginLogged` returned.
   */
  get record(): Int32Array {
    return (this.log as LogProducer).words;
  }

  /** The position of the end of this thread's log once the current operation is complete. */
  get logEnd(): number {
    const { log } = this;
    if (log === null) return 0;
    return this.logged ? log.claimedPosition : log.position;
  }

  /** Takes the lock at `index` if it is free now. Also true if this operation has it already. */
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

  /** Takes the lock at `index`. Spins for a bounded time. */
  lock(index: number): boolean {
    if (this.tryLock(index)) return true;
    for (let i = 0; i < SPINS; i++) {
      // Atomic, because the compiler could move a plain load out of the loop.
      if ((Atomics.load(this.words, index) & LOCK_MASK) === 0 && this.tryLock(index)) return true;
    }
    return false;
  }

  /** Releases the lock that was taken last. Nothing was changed under it. */
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
   * Changes the other bytes of a lock word whose lock this operation has. The low byte of `value`
   * is 0.
   */
  setLocked(index: number, value: number): void {
    this.set(index, value | this.writer);
  }

  /**
   * Like `setLocked`, but final: one store that neither `abort` nor a death undoes. So it must be
   * right whether or not the operation commits.
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
    // Before any lock is released, so that a later recovery does not undo again what another thread
    // has changed since.
    this.journal.forgetWords();
    if (this.logged) (this.log as LogProducer).abort();
    this.release();
  }

  /**
   * An error escaped the previous operation, on any object, and left it under way. This recovers it
   * as after the writer's death. Otherwise its locks would stay taken for ever, because they are
   * forgotten when the journal is opened again.
   */
  private recover(): void {
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
 * Whether to try an operation again that met a lock for the `tries`th time. Sleeps in between. On
 * the packet path all tries take at most some 200 µs, and only if the holder was preempted. In
 * `apply` (`patient`) they take a quarter of a second or more. Within that time a dead holder is
 * recovered, while this thread still shows that it lives. A holder that hangs is ended later than
 * that. Until then the record is `BUSY` and is applied again.
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
 * Recovers what a dead writer left in the words of object `objectId`. An operation whose record was
 * committed stands. Any other is undone. Locks that it had are released. Returns the number of
 * words and locks recovered. It can run again after a crash of its own, because restoring an old
 * word twice has the same result as once.
 *
 * Every lock is in the journal before it is taken and leaves it after its release, so no search of
 * the table is needed.
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
  let recovered = 0;
  const locks = journal.lockCount;
  if (!stands) {
    recovered += journal.wordCount;
    // The count is raised before a change, so a noted word may be unchanged. Then the same value is
    // written again.
    undo(words, journal);
  }
  for (let i = 0; i < locks; i++) {
    const index = journal.lockAt(i);
    if ((Atomics.load(words, index) & LOCK_MASK) !== writerId) continue; // noted, not yet taken: it may be another writer's
    Atomics.store(words, index, words[index] & ~LOCK_MASK);
    recovered++;
  }
  journal.close();
  return recovered;
}
