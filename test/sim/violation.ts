/** A promise of the protocol that a life broke. */

/** Names of what is checked; each is explained where it is checked. */
export type Invariant =
  | 'applied-once'
  | 'applied-in-order'
  | 'applied-what-was-said'
  | 'vector-forward'
  | 'vector-delivered'
  | 'unit-cut-once'
  | 'round-trip-true'
  | 'memory-bounded'
  | 'no-spinning'
  | 'no-crash'
  | 'bandwidth-kept'
  | 'due-sent'
  | 'forgery-refused'
  | 'sealed-once'
  | 'alarm-expected'
  | 'living-kept'
  | 'kept-for-others'
  | 'ended-alike'
  | 'converges'
  | 'equal-to-model'
  | 'equal-to-others';

/** What a life broke, as plain data. */
export interface Broken {
  readonly invariant: Invariant;
  readonly message: string;
}

export class Violation extends Error implements Broken {
  readonly invariant: Invariant;

  constructor(invariant: Invariant, message: string) {
    super(message);
    this.invariant = invariant;
  }
}

export function demand(condition: boolean, invariant: Invariant, message: () => string): asserts condition {
  if (!condition) throw new Violation(invariant, message());
}
