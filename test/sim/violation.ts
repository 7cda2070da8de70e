/** A violation: a run broke an invariant of the protocol. */

/** Names of the invariants. Each is explained where it is checked. */
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

/** A broken invariant as plain data. */
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
