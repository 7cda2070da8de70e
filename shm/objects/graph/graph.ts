/**
 * A traffic dispersion graph (Iliofotou et al., "Network monitoring using traffic dispersion graphs
 * (TDGs)", 2007), shared by all instances: which hosts communicate. Nodes are IPv4 addresses, or
 * any 32-bit ids. A directed edge counts packets and bytes. An edge that is not seen for `timeout`
 * seconds is forgotten, and a node is removed with its last edge.
 *
 *     counts    of events
 *     edges     flow slots; key: from, to, origin (member index); value: packets (2 words), bytes (2 words), and how many
 *               packets were replicated: generation, count (2 words)
 *     nodes     with their degrees: graph-nodes.ts
 *     record    from, to, generation, expires, packets (2 words), bytes (2 words)
 *
 * **Convergence.** Each member has its own entry for an edge that it sees, with its own running
 * totals, and a record carries the whole entry. An entry is (generation, totals, expires). The
 * larger generation wins, and within a generation everything only grows. So records may arrive in
 * any order, any number of times, and the last record of an edge replaces all earlier ones. An
 * edge's counts are the sums over its members' entries. If an entry is found again after it
 * expired, a new generation starts from 0.
 *
 * **Expiry** is as in the flow table: an entry is reclaimed locally, without a message and without
 * a tombstone, when it expired longer ago than the clock-skew guard. `add` checks a few slots each
 * time, `sweep` as many as asked. Degrees count edges that are not yet reclaimed, each once even if
 * several members see it. They are derived, not sent.
 *
 * **Concurrent writers.** An entry changes under its slot's lock, in a transaction, as in the flow
 * table. Inserting and reclaiming an entry also requires its home's lock. All members' entries of
 * one edge have the same home. So if several are inserted or reclaimed at once, exactly one is the
 * first and one the last, and degrees are exact. Nodes change under their own locks, in the same
 * transaction. Reads take no lock: table-slots.ts.
 */

import { CLOCK_SKEW_GUARD_S, coarseSeconds, expiryAfter } from '../../clock.js';
import { NONE } from '../../none.js';
import type { Region } from '../../region.js';
import { BYTES_PER_WORD, LINE, struct } from '../../struct.js';
import { ContentDigest } from '../core/content-digest.js';
import type { Journal } from '../core/journal.js';
import { capacityAt, capacityOf, type MergeSource } from '../core/merge-source.js';
import { Applied, merged, type OpenContext, type StateDefinition, type StateObject } from '../core/object.js';
import { recoverTransaction, Transaction, tryAgain } from '../core/transaction.js';
import { CONTENDED, FlowSlots, flowSlotsWords, WINDOW } from '../table/table-slots.js';
import { GraphNodes, graphNodesWords } from './graph-nodes.js';
import { GRAPH_EDGE, increase, isEdge, joinEdge, number53, GRAPH_RECORD as RECORD } from './graph-record.js';
import { GraphReplicated, graphReplicatedBytes } from './graph-replicated.js';

interface GraphOptions {
  /** Maximum number of edges. An edge that several members see counts once for each. */
  readonly edges: number;
  /** Maximum number of nodes. Default: as many as edges. */
  readonly nodes?: number;
  /** An edge that is not seen for this many seconds is forgotten. Default 300. */
  readonly timeout?: number;
  /** Maximum members of the cluster, 1…32. Default 8. */
  readonly members?: number;
}

/** Why `add` returned false. */
export const GraphRefusal = { NONE: 0, EDGES_FULL: 1, NODES_FULL: 2, LOG_FULL: 3, CONTENDED: 4 } as const;
export type GraphRefusal = (typeof GraphRefusal)[keyof typeof GraphRefusal];

const COUNTS = struct({
  edgesInserted: LINE,
  edgesReclaimed: 1,
  nodesInserted: 1,
  nodesReclaimed: 1,
  edgesFull: 1,
  nodesFull: 1,
  logFull: 1,
  contended: 1,
  malformed: 1,
});
const KEY = struct({ from: 1, to: 1, origin: 1 });
const VALUE = struct({ packets: 2, bytes: 2 });
/** After the value, the replicated packets: see graph-replicated.ts. */
const REPLICATED = struct({ counts: VALUE.words, generation: 1, packets: 2 });
/** The layout that `FlowSlots.read` writes. */
const ENTRY = struct({ generation: 1, expires: 1, rank: 1, key: KEY.words, value: REPLICATED.words });

const MEMBERS_MAX = 32;
/** No correct record has an expiry further ahead than the timeout plus this (a day). */
const FUTURE_S_MAX = 86_400;
const SWEEP_SLOTS = 4;
const SWEEP_SLOTS_FULL = 512;
/** Outcomes of a try, in addition to `CONTENDED`. */
const DONE = 0;
const UNCHANGED = 1;
const NO_ROOM_FOR_NODES = -3;

export function graph({
  edges,
  nodes = edges,
  timeout = 300,
  members = 8,
}: GraphOptions): StateDefinition<TrafficGraph> {
  if (!Number.isInteger(members) || members < 1 || members > MEMBERS_MAX)
    throw new RangeError(`graph: members ${members} is not a whole number from 1 to ${MEMBERS_MAX}`);
  if (!Number.isInteger(timeout) || timeout < 1)
    throw new RangeError(`graph: timeout ${timeout} is not a positive whole number of seconds`);
  const options = { edges, nodes, timeout, members };
  const words = flowSlotsWords(edgeShape(options)) + graphNodesWords(nodes);
  return {
    kind: 'graph',
    parameters: { timeout, members },
    shape: { edges, nodes },
    bytes: (COUNTS.words + words) * BYTES_PER_WORD,
    withShape: (theirs) =>
      graph({ ...options, edges: capacityOf(theirs, 'edges'), nodes: capacityOf(theirs, 'nodes') }),
    localBytes: graphReplicatedBytes,
    open: (context) => new TrafficGraph(context, options),
  };
}

function edgeShape({ edges }: Pick<GraphOptions, 'edges'>) {
  return { capacity: edges, keyWords: KEY.words, valueWords: REPLICATED.words };
}

export class TrafficGraph implements StateObject {
  readonly id: number;
  readonly delivery = 'any-order';
  /** Why the last `add` returned false. */
  refusal: GraphRefusal = GraphRefusal.NONE;
  /** Counts of the edge that `find` found. */
  packets = 0;
  bytes = 0;

  private readonly options: Required<GraphOptions>;
  private readonly self: number;
  private readonly words: Int32Array;
  private readonly edges: FlowSlots;
  private readonly nodes: GraphNodes;
  private readonly replicated: GraphReplicated;
  private readonly transaction: Transaction | null;
  private sweepCursor = 0;
  /**
   * Scratch of the present operation: the key looked for, an entry that was read, and an edge in
   * the form of a record.
   */
  private readonly key = new Int32Array(KEY.words);
  private readonly entry = new Int32Array(ENTRY.words);
  private readonly state = new Int32Array(RECORD.words);

  constructor(
    { id, region, local, stripes = 1, secret, writer, memberIndex }: OpenContext,
    options: Required<GraphOptions>,
  ) {
    if (memberIndex >= options.members)
      throw new RangeError(`graph: this is member ${memberIndex + 1} of a cluster declared to have ${options.members}`);
    if (local === undefined) throw new Error(`state object ${id}: a graph needs memory of this instance's own`);
    this.id = id;
    this.options = options;
    this.replicated = new GraphReplicated(local, stripes, writer?.log ? writer.id : 1);
    this.self = memberIndex;
    this.words = region.i32();
    this.edges = new FlowSlots(this.words, COUNTS.words, edgeShape(options), secret);
    const nodesAt = COUNTS.words + flowSlotsWords(edgeShape(options));
    this.nodes = new GraphNodes(this.words, nodesAt, options.nodes, secret);
    this.transaction = writer === null ? null : new Transaction(this.words, id, writer);
    if (writer !== null) this.sweepCursor = Math.trunc((this.edges.slots / 8) * writer.id) & (this.edges.slots - 1);
  }

  // ——— Packet path ———

  /** Starts fetching the words that `add` or `find` will read. */
  touch(from: number, to: number): void {
    this.edges.touch(this.edges.hash2(from, to));
  }

  /**
   * Adds packets and bytes (whole numbers below 2^32) to an edge, and extends its expiry to the
   * timeout from now, with one log record. Returns false for the reason in `refusal`; then nothing
   * was changed.
   */
  add(from: number, to: number, packets: number, bytes: number, now: number): boolean {
    this.refusal = GraphRefusal.NONE;
    for (let tries = 1; ; tries++) {
      const outcome = this.tryAdd(from, to, packets, bytes, now);
      if (outcome !== CONTENDED) return outcome === DONE;
      if (!tryAgain(tries, false)) {
        this.refuse(GraphRefusal.CONTENDED);
        return false;
      }
    }
  }

  /**
   * Whether an edge exists. If so, `packets` and `bytes` are its counts, summed over the members.
   */
  find(from: number, to: number, now: number): boolean {
    return this.sum(this.edges.hash2(from, to), from, to, now);
  }

  /** The number of nodes that a node sends to. Expired edges count until they are reclaimed. */
  outDegree(node: number): number {
    return this.nodes.outDegree(node);
  }

  /** The number of nodes that send to a node. */
  inDegree(node: number): number {
    return this.nodes.inDegree(node);
  }

  get tableSlots(): number {
    return this.edges.slots;
  }

  /**
   * Reclaims expired entries in the next `slots` slots, in turn. Returns the number of entries
   * reclaimed. `add` calls it.
   */
  sweep(now: number, slots: number): number {
    const { edges } = this;
    let reclaimed = 0;
    for (let i = 0; i < slots; i++) {
      this.sweepCursor = (this.sweepCursor + 1) & (edges.slots - 1);
      if (edges.isWaste(this.sweepCursor, now) && this.reclaim(this.sweepCursor, now)) reclaimed++;
    }
    return reclaimed;
  }

  /**
   * Sets `packets` and `bytes` to the sums over the members' live entries. Returns whether there is
   * one.
   */
  private sum(hash: number, from: number, to: number, now: number): boolean {
    const { edges, entry } = this;
    let found = false;
    let packets = 0;
    let bytes = 0;
    for (let i = this.seek(hash, 0, from, to); i !== NONE; i = this.seek(hash, i + 1, from, to)) {
      // Check the keys again: the slot may have been given to another edge meanwhile.
      if (
        !edges.read((hash + i) & (edges.slots - 1), entry, 0) ||
        entry[ENTRY.at.key + KEY.at.from] !== from ||
        entry[ENTRY.at.key + KEY.at.to] !== to ||
        entry[ENTRY.at.expires] <= now
      )
        continue;
      found = true;
      packets += number53(entry, ENTRY.at.value + VALUE.at.packets);
      bytes += number53(entry, ENTRY.at.value + VALUE.at.bytes);
    }
    this.packets = packets;
    this.bytes = bytes;
    return found;
  }

  /**
   * Finds the next entry of an edge, of any member, at offset `i` or later from its home. Returns
   * its offset, or `NONE`.
   */
  private seek(hash: number, i: number, from: number, to: number): number {
    const { edges } = this;
    for (; i < WINDOW; i++) {
      const slot = (hash + i) & (edges.slots - 1);
      if (edges.isUsed(slot)) {
        if (edges.key(slot, KEY.at.from) === from && edges.key(slot, KEY.at.to) === to) return i;
      } else if (edges.endsSearch(slot)) return NONE;
    }
    return NONE;
  }

  private tryAdd(from: number, to: number, packets: number, bytes: number, now: number): number {
    const { tx, edges, key, state } = this;
    const at = tx.beginLogged(GRAPH_EDGE, RECORD.words);
    if (at === NONE) return this.refuse(GraphRefusal.LOG_FULL);
    const hash = this.name(from, to, this.self);
    let slot = edges.find(hash, key, 0);
    let known = slot !== NONE && tx.lock(edges.lockOf(slot)) && edges.holds(slot, key, 0);
    if (!known) {
      if (slot !== NONE) {
        tx.abort();
        return CONTENDED;
      }
      slot = this.acquire(hash, now);
      if (slot < 0) return slot === NONE ? this.refuse(GraphRefusal.EDGES_FULL) : slot;
      known = edges.holds(slot, key, 0);
    }
    const alive = known && edges.expires(slot) > now;
    if (known) this.load(slot);
    if (!alive) {
      state[RECORD.at.generation] = known ? Math.max(edges.generation(slot) + 1, now) : now;
      state.fill(0, RECORD.at.packets);
    }
    state[RECORD.at.from] = from;
    state[RECORD.at.to] = to;
    const until = expiryAfter(now, this.options.timeout);
    const base = alive ? state[RECORD.at.expires] : state[RECORD.at.generation];
    state[RECORD.at.expires] = Math.max(until, base);
    increase(state, RECORD.at.packets, packets);
    increase(state, RECORD.at.bytes, bytes);
    if (!known) {
      const counted = this.insert(slot, hash);
      if (counted !== DONE) return counted === NO_ROOM_FOR_NODES ? this.refuse(GraphRefusal.NODES_FULL) : counted;
    } else this.store(slot);
    const record = tx.record;
    for (let i = 0; i < RECORD.words; i++) record[at + i] = state[i];
    this.replicated.add(packets);
    tx.commit();
    if (!known) this.sweep(now, SWEEP_SLOTS);
    return DONE;
  }

  // ——— Entries, within a transaction ———

  /**
   * Puts the key of an entry into `key` and returns its hash. Only `from` and `to` are hashed, so
   * that all entries of an edge have the same home.
   */
  private name(from: number, to: number, origin: number): number {
    const { key } = this;
    key[KEY.at.from] = from;
    key[KEY.at.to] = to;
    key[KEY.at.origin] = origin;
    return this.edges.hash2(from, to);
  }

  /**
   * Locks the home of `key`, and the slot that holds it or an empty one. If there is no room,
   * returns `NONE`; if another try is worthwhile, `CONTENDED`. In both cases the transaction has
   * been aborted.
   */
  private acquire(hash: number, now: number): number {
    const { tx, edges, key } = this;
    const slot = edges.acquire(tx, hash, key, 0, now);
    if (slot < 0) {
      tx.abort();
      return slot;
    }
    if (edges.holds(slot, key, 0)) return slot;
    if (edges.isUsed(slot)) {
      // An expired entry must be removed from its nodes first.
      tx.abort();
      this.reclaim(slot, now);
      return CONTENDED;
    }
    if (this.used >= this.options.edges) {
      tx.abort();
      return this.sweep(now, SWEEP_SLOTS_FULL) > 0 ? CONTENDED : NONE;
    }
    return slot;
  }

  /**
   * Inserts the entry of `key` with the content of `state` into an acquired, empty slot. Returns
   * `DONE`; for any other result the transaction has been aborted.
   */
  private insert(slot: number, hash: number): number {
    const { tx, edges, key, state } = this;
    let made = 0;
    if (!this.isSeenByOthers(hash)) {
      const room = this.options.nodes - this.nodesUsed;
      const outcome = this.nodes.connect(tx, key[KEY.at.from], key[KEY.at.to], room);
      if (outcome !== DONE) {
        tx.abort();
        this.nodes.tidy(tx);
        return outcome === NONE ? NO_ROOM_FOR_NODES : outcome;
      }
      made = this.nodes.changed;
    }
    edges.vacate(tx, slot);
    for (let i = 0; i < VALUE.words; i++) tx.set(edges.wordOf(slot, i), state[RECORD.at.packets + i]);
    tx.set(edges.wordOf(slot, REPLICATED.at.generation), 0);
    edges.put(tx, slot, hash, key, 0, state[RECORD.at.generation], 0, state[RECORD.at.expires]);
    this.count(COUNTS.at.edgesInserted);
    if (made > 0) Atomics.add(this.words, COUNTS.at.nodesInserted, made);
    return DONE;
  }

  /**
   * Whether another member has an entry for the edge of `key`, expired or not. Requires the home's
   * lock.
   */
  private isSeenByOthers(hash: number): boolean {
    const { edges, key } = this;
    const from = key[KEY.at.from];
    const to = key[KEY.at.to];
    for (let i = this.seek(hash, 0, from, to); i !== NONE; i = this.seek(hash, i + 1, from, to))
      if (edges.key((hash + i) & (edges.slots - 1), KEY.at.origin) !== key[KEY.at.origin]) return true;
    return false;
  }

  /** Copies a locked slot's generation, expiry and counts to `state`. */
  private load(slot: number): void {
    const { edges, state } = this;
    state[RECORD.at.generation] = edges.generation(slot);
    state[RECORD.at.expires] = edges.expires(slot);
    for (let i = 0; i < VALUE.words; i++) state[RECORD.at.packets + i] = edges.value(slot, i);
  }

  /** Writes `state` back to an existing entry. */
  private store(slot: number): void {
    const { tx, edges, state } = this;
    for (let i = 0; i < VALUE.words; i++) {
      const value = state[RECORD.at.packets + i];
      if (edges.value(slot, i) !== value) tx.set(edges.wordOf(slot, i), value);
    }
    edges.update(tx, slot, state[RECORD.at.generation], 0, state[RECORD.at.expires]);
  }

  private reclaim(slot: number, now: number): boolean {
    const { tx, edges, nodes, key } = this;
    let gone = false;
    if (edges.isUsed(slot)) {
      const hash = this.name(edges.key(slot, KEY.at.from), edges.key(slot, KEY.at.to), edges.key(slot, KEY.at.origin));
      tx.begin();
      gone =
        tx.tryLock(edges.lockOf(hash & (edges.slots - 1))) &&
        tx.tryLock(edges.lockOf(slot)) &&
        edges.holds(slot, key, 0) &&
        edges.isOver(slot, now);
      const last = gone && !this.isSeenByOthers(hash);
      if (last) gone = nodes.disconnect(tx, key[KEY.at.from], key[KEY.at.to]);
      if (gone) {
        // Hidden, not vacated: if the transaction is undone, the entry returns with the degrees.
        // Its home is locked.
        edges.hide(tx, slot);
        this.count(COUNTS.at.edgesReclaimed);
        if (last && nodes.changed > 0) Atomics.add(this.words, COUNTS.at.nodesReclaimed, nodes.changed);
        tx.commit();
        if (last) nodes.tidy(tx);
      } else tx.abort();
    }
    edges.tidy(tx, slot);
    return gone;
  }

  // ——— Replication ———

  apply(op: number, words: Int32Array, at: number, length: number, origin: number, now: number): Applied {
    if (op === GRAPH_EDGE && length === RECORD.words) return this.join(words, at, origin, now);
    this.count(COUNTS.at.malformed);
    return Applied.MALFORMED;
  }

  /** Joins a member's entry, given as a record. */
  private join(words: Int32Array, at: number, origin: number, now: number): Applied {
    const horizon = now + this.options.timeout + FUTURE_S_MAX;
    if (!(origin >= 0 && origin < this.options.members) || !isEdge(words, at, horizon)) {
      this.count(COUNTS.at.malformed);
      return Applied.MALFORMED;
    }
    for (let tries = 1; ; tries++) {
      const outcome = this.tryJoin(words, at, origin, now);
      if (outcome === DONE) return Applied.CHANGED;
      if (outcome === UNCHANGED) return Applied.UNCHANGED;
      if (outcome === CONTENDED && tryAgain(tries, true)) continue;
      if (outcome === CONTENDED) {
        this.count(COUNTS.at.contended);
        return Applied.BUSY;
      }
      this.count(outcome === NONE ? COUNTS.at.edgesFull : COUNTS.at.nodesFull);
      return Applied.FULL;
    }
  }

  private tryJoin(words: Int32Array, at: number, origin: number, now: number): number {
    const { tx, edges, key, state } = this;
    const hash = this.name(words[at + RECORD.at.from], words[at + RECORD.at.to], origin);
    const over = words[at + RECORD.at.expires] + CLOCK_SKEW_GUARD_S <= now;
    // Forgotten before it arrived.
    if (over && edges.find(hash, key, 0) === NONE) return UNCHANGED;
    tx.begin();
    const slot = this.acquire(hash, now);
    if (slot < 0) return slot;
    if (edges.holds(slot, key, 0)) {
      this.load(slot);
      if (!joinEdge(state, 0, words, at)) {
        tx.abort();
        return UNCHANGED;
      }
      this.store(slot);
    } else {
      for (let i = 0; i < RECORD.words; i++) state[i] = words[at + i];
      const outcome = this.insert(slot, hash);
      if (outcome !== DONE) return outcome;
    }
    tx.commit();
    return DONE;
  }

  /** Notes how much of one of our records is new. Does not change the record. */
  fillIn(op: number, words: Int32Array, at: number): boolean {
    if (op !== GRAPH_EDGE) return true;
    const { edges, words: ours } = this;
    const slot = edges.find(this.name(words[at + RECORD.at.from], words[at + RECORD.at.to], this.self), this.key, 0);
    if (slot === NONE) return true; // already forgotten: the bound stays too large
    const generation = words[at + RECORD.at.generation];
    const packets = number53(words, at + RECORD.at.packets);
    const replicatedAt = edges.wordOf(slot, REPLICATED.at.packets);
    const before = edges.value(slot, REPLICATED.at.generation) === generation ? number53(ours, replicatedAt) : 0;
    if (packets <= before) return true;
    ours[replicatedAt] = packets | 0;
    ours[replicatedAt + 1] = (packets / 2 ** 32) | 0;
    ours[edges.wordOf(slot, REPLICATED.at.generation)] = generation;
    this.replicated.advance(packets - before);
    return true;
  }

  settle(sequence: number): void {
    this.replicated.settle(sequence);
  }

  /** The bound is in packets. */
  errorBound(sequence: number): number {
    return this.replicated.errorBound(sequence);
  }

  coalesceKey(_op: number, words: Int32Array, at: number): number {
    return Math.imul(words[at + RECORD.at.from], 0x85ebca6b) ^ words[at + RECORD.at.to];
  }

  coalesce(_op: number, words: Int32Array, earlier: number, later: number): boolean {
    const { from, to } = RECORD.at;
    if (words[earlier + from] !== words[later + from] || words[earlier + to] !== words[later + to]) return false;
    joinEdge(words, earlier, words, later);
    return true;
  }

  /** Skips entries of members that this cluster cannot have, and expired ones. */
  merge(from: Region, now: number, source?: MergeSource): number {
    const theirs = new FlowSlots(
      from.i32(),
      COUNTS.words,
      edgeShape({ edges: capacityAt(source, this.options.edges, 'edges') }),
      new Int32Array(2),
    );
    const entry = new Int32Array(ENTRY.words);
    const record = new Int32Array(RECORD.words);
    let changed = 0;
    for (let slot = 0; slot < theirs.slots; slot++) {
      if (!theirs.isUsed(slot) || theirs.isOver(slot, now) || !theirs.read(slot, entry, 0)) continue;
      record[RECORD.at.from] = entry[ENTRY.at.key + KEY.at.from];
      record[RECORD.at.to] = entry[ENTRY.at.key + KEY.at.to];
      record[RECORD.at.generation] = entry[ENTRY.at.generation];
      record[RECORD.at.expires] = entry[ENTRY.at.expires];
      for (let i = 0; i < VALUE.words; i++) record[RECORD.at.packets + i] = entry[ENTRY.at.value + i];
      changed += merged(this.join(record, 0, entry[ENTRY.at.key + KEY.at.origin], now), this.id, source);
    }
    return changed;
  }

  recover(writerId: number, journal: Journal, logPosition: number): number {
    return recoverTransaction(this.words, this.id, writerId, journal, logPosition);
  }

  // ——— Inspection ———

  /**
   * Calls `see` once with every edge that has not expired, and its counts summed over the members.
   */
  forEachEdge(now: number, see: (from: number, to: number, packets: number, bytes: number) => void): void {
    const { edges } = this;
    for (let slot = 0; slot < edges.slots; slot++) {
      if (!edges.isUsed(slot) || edges.expires(slot) <= now) continue;
      const from = edges.key(slot, KEY.at.from);
      const to = edges.key(slot, KEY.at.to);
      const hash = edges.hash2(from, to);
      if (this.isFirst(hash, from, to, edges.key(slot, KEY.at.origin), now) && this.sum(hash, from, to, now))
        see(from, to, this.packets, this.bytes);
    }
  }

  /** Whether no member with a lower index than `origin` has a live entry for an edge. */
  private isFirst(hash: number, from: number, to: number, origin: number, now: number): boolean {
    const { edges } = this;
    for (let i = this.seek(hash, 0, from, to); i !== NONE; i = this.seek(hash, i + 1, from, to)) {
      const slot = (hash + i) & (edges.slots - 1);
      if (edges.key(slot, KEY.at.origin) < origin && edges.expires(slot) > now) return false;
    }
    return true;
  }

  /** Calls `see` with every node that has an edge not yet reclaimed. */
  forEachNode(see: (node: number, outDegree: number, inDegree: number) => void): void {
    this.nodes.forEach(see);
  }

  /** Covers every entry that has not expired by `now`, as in the flow table. */
  digest(now = coarseSeconds(Date.now())): string {
    const { edges, entry } = this;
    const digest = new ContentDigest();
    const shared = entry.subarray(0, ENTRY.at.value + VALUE.words);
    for (let slot = 0; slot < edges.slots; slot++)
      if (edges.isUsed(slot) && edges.read(slot, entry, 0) && entry[ENTRY.at.expires] > now) digest.add(shared);
    return digest.toString();
  }

  describe(_now: number): Record<string, number> {
    const { words } = this;
    return {
      edges_capacity: this.options.edges,
      edges_used: this.used,
      nodes_capacity: this.options.nodes,
      nodes_used: this.nodesUsed,
      reclaimed: words[COUNTS.at.edgesReclaimed],
      edges_full: words[COUNTS.at.edgesFull],
      nodes_full: words[COUNTS.at.nodesFull],
      log_full: words[COUNTS.at.logFull],
      contended: words[COUNTS.at.contended],
      malformed: words[COUNTS.at.malformed],
    };
  }

  /**
   * Number of locks held at present; 0 if no operation is in progress. Scans everything: for tests
   * and diagnosis.
   */
  locksHeld(): number {
    return this.edges.locksHeld() + this.nodes.locksHeld();
  }

  /** Number of entries, including those not yet reclaimed. */
  private get used(): number {
    return (this.words[COUNTS.at.edgesInserted] - this.words[COUNTS.at.edgesReclaimed]) | 0;
  }

  private get nodesUsed(): number {
    return (this.words[COUNTS.at.nodesInserted] - this.words[COUNTS.at.nodesReclaimed]) | 0;
  }

  private get tx(): Transaction {
    if (this.transaction === null) throw new Error(`state object ${this.id} is open to read only in this thread`);
    return this.transaction;
  }

  private refuse(reason: GraphRefusal): typeof NONE {
    this.refusal = reason;
    if (reason === GraphRefusal.EDGES_FULL) this.count(COUNTS.at.edgesFull);
    else if (reason === GraphRefusal.NODES_FULL) this.count(COUNTS.at.nodesFull);
    else if (reason === GraphRefusal.LOG_FULL) this.count(COUNTS.at.logFull);
    else if (reason === GraphRefusal.CONTENDED) this.count(COUNTS.at.contended);
    return NONE;
  }

  private count(counter: number): void {
    Atomics.add(this.words, counter, 1);
  }
}
