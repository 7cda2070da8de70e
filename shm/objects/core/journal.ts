/**
 * The journal: a note of the operation that a thread has in progress in shared state, so that it
 * can be undone or completed after the thread's death.
 *
 * A worker thread can be ended between any two statements. It then leaves locks held and words half
 * written, and no other thread may repair them before it knows what they were. So each writer has a
 * journal of one operation, in shared memory outside the arena (a snapshot is taken between
 * operations, when journals are empty):
 *
 *     state, object id, log position, lock count, word count
 *     locks    word index of every lock the operation takes, noted *before* it is taken
 *     words    (word index, old value) of every word it changes, noted *before* it is changed
 *
 * | state  | the operation              | after the writer's death                                           |
 * | ------ | -------------------------- | ------------------------------------------------------------------ |
 * | EMPTY  | none                       | nothing to do                                                      |
 * | LOGGED | is decided by its log record | completed if the log's committed position has moved, else undone |
 * | LOCAL  | has no log record          | undone                                                             |
 * | DONE   | is complete                | completed: only its locks are released                             |
 *
 * A journal has one writer and plain words. Others read them only after the writer's thread has
 * ended, which orders all its earlier stores. What matters is the program order of the writer's own
 * stores. x86-64 keeps it (TSO), and V8 does not change it: it neither reorders nor drops stores to
 * typed arrays.
 */

import { Region } from '../../region.js';
import { roundUp, struct, WORDS_PER_LINE } from '../../struct.js';

/**
 * Maximum locks of one operation: home slot, entry slot, two for an external port, and room for a
 * user's object.
 */
export const MAX_LOCKS = 8;
/**
 * Maximum words that one operation changes: the largest flow entry as a whole (60 key and value
 * words), and some more.
 */
export const MAX_WORDS = 72;

const JOURNAL = struct({
  state: 1,
  object: 1,
  position: 1,
  lockCount: 1,
  wordCount: 1,
  locks: MAX_LOCKS,
  words: 2 * MAX_WORDS,
});
const { state: STATE, object: OBJECT, position: POSITION, lockCount: LOCK_COUNT, wordCount: WORD_COUNT } = JOURNAL.at;
const { locks: LOCKS, words: WORDS } = JOURNAL.at;
/** A journal fills whole cache lines, so that two writers never share one. */
const STRIDE = roundUp(JOURNAL.words, WORDS_PER_LINE);

export const JournalState = { EMPTY: 0, LOGGED: 1, LOCAL: 2, DONE: 3 } as const;
export type JournalState = (typeof JournalState)[keyof typeof JournalState];

/** Shared memory for the journals of writers 1…`writers`. */
export function createJournals(writers: number): SharedArrayBuffer {
  return new SharedArrayBuffer(writers * STRIDE * 4);
}

export class Journal {
  private readonly words: Int32Array;

  /** The journal of writer `writerId`, 1…n. Throws if there is none. */
  constructor(buffer: SharedArrayBuffer, writerId: number) {
    const writers = Math.trunc(buffer.byteLength / (STRIDE * 4));
    if (!Number.isInteger(writerId) || writerId < 1 || writerId > writers)
      throw new RangeError(`writer ${writerId}: the journals are for writers 1 to ${writers}`);
    this.words = new Region(buffer).i32((writerId - 1) * STRIDE * 4, STRIDE);
  }

  get state(): JournalState {
    return this.words[STATE] as JournalState;
  }

  get objectId(): number {
    return this.words[OBJECT];
  }

  get position(): number {
    return this.words[POSITION];
  }

  get lockCount(): number {
    return this.words[LOCK_COUNT];
  }

  get wordCount(): number {
    return this.words[WORD_COUNT];
  }

  /** Starts a note. `state` is written last; until then the journal is empty. */
  open(state: JournalState, objectId: number, position: number): void {
    const words = this.words;
    words[OBJECT] = objectId;
    words[POSITION] = position;
    words[LOCK_COUNT] = 0;
    words[WORD_COUNT] = 0;
    words[STATE] = state;
  }

  noteLock(index: number): void {
    const words = this.words;
    const count = words[LOCK_COUNT];
    words[LOCKS + count] = index;
    words[LOCK_COUNT] = count + 1;
  }

  /** The lock noted last was not taken, or has been released. */
  dropLock(): void {
    this.words[LOCK_COUNT]--;
  }

  lockAt(i: number): number {
    return this.words[LOCKS + i];
  }

  noteWord(index: number, old: number): void {
    const words = this.words;
    const count = words[WORD_COUNT];
    words[WORDS + 2 * count] = index;
    words[WORDS + 2 * count + 1] = old;
    words[WORD_COUNT] = count + 1;
  }

  wordAt(i: number): number {
    return this.words[WORDS + 2 * i];
  }

  oldAt(i: number): number {
    return this.words[WORDS + 2 * i + 1];
  }

  /** The old words are restored: from here on others may change them. */
  forgetWords(): void {
    this.words[WORD_COUNT] = 0;
  }

  /** Marks an operation without a log record as complete. */
  done(): void {
    this.words[STATE] = JournalState.DONE;
  }

  close(): void {
    this.words[STATE] = JournalState.EMPTY;
  }
}
