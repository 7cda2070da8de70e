/** A violation: a run broke an invariant of the protocol. */

/**
 * Names of the invariants:
 *
 * - `applied-once`: no operation is applied twice;
 * - `applied-in-order`: an object with delivery in order gets operations of an author in order;
 * - `applied-what-was-said`: members send and apply only operations that their author made;
 * - `vector-forward`: a vector never goes back within an incarnation;
 * - `vector-delivered`: a vector claims only what was sent and applied, a sender believes only what
 *   arrived, and nothing is pruned that an attached member lacks;
 * - `unit-cut-once`: a number is always sent in the same unit, except in folded units for one
 *   member;
 * - `round-trip-true`: a measured round trip is the real one;
 * - `memory-bounded`: memory stays within the settings;
 * - `no-spinning`: the send thread does not run or wake without end;
 * - `no-crash`: no thread throws an unplanned error;
 * - `bandwidth-kept`: no member exceeds its bandwidth limit;
 * - `due-sent`: what is due is sent within a second;
 * - `forgery-refused`: damaged and forged messages are refused and change nothing, honest ones are
 *   not refused;
 * - `sealed-once`: no seal counter is used twice, and no sealed datagram is taken twice;
 * - `alarm-expected`: every alarm is one that the plan can cause;
 * - `living-kept`: no incarnation learns that it is dead unless it was evicted;
 * - `kept-for-others`: a member keeps the units that it took while another member may lack them;
 * - `ended-alike`: members that are heard hold the same operations of an ended incarnation;
 * - `converges`: the core converges within the allowed time and stays converged;
 * - `equal-to-model`: after that, each member has what was done;
 * - `equal-to-others`: and all members have the same.
 */
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
