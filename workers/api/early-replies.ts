/**
 * Early replies, as a middlebox asks for them: a packet whose state is not here yet waits for it.
 * plane/early-replies.ts does it.
 */

/** Most words in a key. */
export const EARLY_KEY_WORDS_MAX = 12;

/**
 * Whether the state with the key at `words[at …]` is present. `now` is in coarse seconds. One
 * lookup without side effects.
 */
export type IsKnown = (words: Int32Array, at: number, now: number) => boolean;

/** What a middlebox waits for, with keys of one kind. */
export interface Expectation {
  /** The key of the current packet. Fill it in before `wait`. */
  readonly key: Int32Array;
  /**
   * Whether packet `i` could wait now. It is cheap: ask it before anything that costs more. A
   * refusal is counted by its reason.
   */
  mayWait(i: number): boolean;
  /**
   * Packet `i` waits until the key is known or its deadline passes, and then returns to this
   * middlebox. The packet must be unchanged since the middlebox received it, and the middlebox must
   * not touch it after this call. If it returns false, the packet does not wait: decide without it.
   */
  wait(i: number): boolean;
}

/** Packets that wait for the state they belong to. */
export interface EarlyReplies {
  /** Whether the member in this slot is heard. */
  isHeard(slot: number): boolean;
  /**
   * Declares what to wait for, with keys of `words` words. Only while the middlebox is being
   * opened. Throws a `RangeError` unless `words` is 1 to `EARLY_KEY_WORDS_MAX`.
   */
  expect(words: number, isKnown: IsKnown): Expectation;
  /**
   * Whether packet `i` has the tuple of a packet that waits here. If so, it waits behind that
   * packet, or is dropped, and the middlebox must not touch it. Ask it for every packet, even if
   * its state is present: the state may have just arrived.
   */
  follows(i: number): boolean;
}
