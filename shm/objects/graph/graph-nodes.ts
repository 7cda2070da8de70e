/**
 * The nodes of a traffic dispersion graph and their degrees (graph.ts). A node exists while it has
 * an edge. Degrees change in the transaction that inserts or reclaims the edge, under the nodes'
 * own locks.
 *
 *     nodes    flow slots; key: node; value: out-degree, in-degree
 */

import { NONE } from '../../none.js';
import { struct } from '../../struct.js';
import type { Transaction } from '../core/transaction.js';
import { CONTENDED, FlowSlots, flowSlotsWords } from '../table/table-slots.js';

const DEGREE = struct({ out: 1, in: 1 });
const { out: OUT, in: IN } = DEGREE.at;
/** A node exists while it has edges; it does not expire. */
const NEVER = 0x7fff_ffff;
/** An arbitrary generation: nodes have none. */
const GENERATION = 1;

function shapeOf(capacity: number) {
  return { capacity, keyWords: 1, valueWords: DEGREE.words };
}

export function graphNodesWords(capacity: number): number {
  return flowSlotsWords(shapeOf(capacity));
}

export class GraphNodes {
  /**
   * Number of nodes that the last `connect` created or the last `disconnect` removed. Add it to the
   * counts after the transaction is committed.
   */
  changed = 0;
  private readonly slots: FlowSlots;
  private readonly key = new Int32Array(1);
  private fromGone: number = NONE;
  private toGone: number = NONE;

  constructor(words: Int32Array, base: number, capacity: number, secret: Int32Array) {
    this.slots = new FlowSlots(words, base, shapeOf(capacity), secret);
  }

  outDegree(node: number): number {
    return this.degree(node, OUT);
  }

  inDegree(node: number): number {
    return this.degree(node, IN);
  }

  /**
   * Adds an edge: raises both degrees by one and creates missing nodes, at most `room`. Returns 0,
   * `NONE` (no room) or `CONTENDED`. In the last two cases, abort the transaction and then call
   * `tidy`.
   */
  connect(tx: Transaction, from: number, to: number, room: number): number {
    this.changed = 0;
    this.fromGone = NONE;
    this.toGone = NONE;
    const outcome = this.raise(tx, from, OUT, room);
    return outcome === 0 ? this.raise(tx, to, IN, room) : outcome;
  }

  /** Removes an edge. If it returns false, abort the transaction. Call `tidy` after the commit. */
  disconnect(tx: Transaction, from: number, to: number): boolean {
    this.changed = 0;
    this.toGone = NONE;
    this.fromGone = this.lower(tx, from, OUT);
    if (this.fromGone === CONTENDED) return false;
    this.toGone = this.lower(tx, to, IN);
    return this.toGone !== CONTENDED;
  }

  /**
   * Shortens searches across the slots of nodes that the last `disconnect` removed, or that an
   * aborted `connect` did not create.
   */
  tidy(tx: Transaction): void {
    if (this.fromGone !== NONE) this.slots.tidy(tx, this.fromGone);
    if (this.toGone !== NONE) this.slots.tidy(tx, this.toGone);
  }

  forEach(see: (node: number, outDegree: number, inDegree: number) => void): void {
    const { slots } = this;
    for (let slot = 0; slot < slots.slots; slot++)
      if (slots.isUsed(slot)) see(slots.key(slot, 0), slots.value(slot, OUT), slots.value(slot, IN));
  }

  locksHeld(): number {
    return this.slots.locksHeld();
  }

  private degree(node: number, which: number): number {
    const { slots, key } = this;
    key[0] = node;
    const slot = slots.find(slots.hash2(node, 0), key, 0);
    return slot === NONE ? 0 : slots.value(slot, which);
  }

  private raise(tx: Transaction, node: number, which: number, room: number): number {
    const { slots, key } = this;
    key[0] = node;
    const hash = slots.hash2(node, 0);
    const slot = slots.acquire(tx, hash, key, 0, 0);
    if (slot < 0) return slot;
    if (slots.holds(slot, key, 0)) {
      tx.set(slots.wordOf(slot, which), slots.value(slot, which) + 1);
      return 0;
    }
    if (this.changed >= room) return NONE;
    slots.vacate(tx, slot);
    this.fromGone = slot; // if two nodes are created, an abort can leave only the first
    for (let i = 0; i < DEGREE.words; i++) tx.set(slots.wordOf(slot, i), i === which ? 1 : 0);
    slots.put(tx, slot, hash, key, 0, GENERATION, 0, NEVER);
    this.changed++;
    return 0;
  }

  /**
   * Returns the node's slot if it has no other edge, else `NONE`. `CONTENDED`: a lock was not
   * available.
   */
  private lower(tx: Transaction, node: number, which: number): number {
    const { slots, key } = this;
    key[0] = node;
    const hash = slots.hash2(node, 0);
    const home = slots.lockOf(hash & (slots.slots - 1));
    const slot = slots.find(hash, key, 0);
    if (slot === NONE || !tx.lock(home) || !tx.lock(slots.lockOf(slot)) || !slots.holds(slot, key, 0)) return CONTENDED;
    tx.set(slots.wordOf(slot, which), slots.value(slot, which) - 1);
    if (slots.value(slot, OUT) !== 0 || slots.value(slot, IN) !== 0) return NONE;
    // Hidden, not vacated: if the transaction is undone, the node returns with the edge. Its home
    // is locked.
    slots.hide(tx, slot);
    this.changed++;
    return slot;
  }
}
