/**
 * Early replies: a reply that arrives before the record of its request waits here until another
 * site's record arrives.
 *
 *     middlebox finds no state ─ wait ─▶ waiting ─ state arrives, or deadline ─▶ same stage
 *     later packets of the tuple ───────▶ behind it
 *
 * If routes are asymmetric, a request leaves by one site and its reply arrives at another. The
 * reply can be faster than the record of the request. A middlebox that would drop such a packet
 * asks for it to wait instead. It gives a key. When it is opened, it registers a function that
 * looks a key up.
 *
 * **How a packet continues.** It waits as a copy, in the form it had when it reached the stage. It
 * then passes the rest of the chain from that stage on, in the same direction (passage.ts). It is
 * counted as received once. At its deadline it continues in the same way, but `wait` returns false
 * for it. The middlebox then decides as if nothing ever waited: it drops the packet for its own
 * reason, or rejects it.
 *
 * **Order.** A tuple is what packets of one flow and direction have in common: addresses, ports,
 * protocol, link and arrival port. If a tuple waits at a stage, its later packets wait behind its
 * first one, and all continue together, in order (`follows`). A later packet for which there is no
 * room is dropped, since it must not overtake. ICMP errors have no order.
 *
 * **Bounds.** All are fixed at the start. A packet that a bound keeps from waiting is counted. The
 * bounds are: packets and bytes in total, packets of one source, packets to one endpoint, and
 * packets per second that wait in vain. A packet that waits at several stages has one deadline.
 * Nothing waits if no other member is heard.
 *
 * **Cost.** While something waits at a stage, each packet there costs a lookup in a small table.
 * Keys are looked up after the receive thread has applied records. Lookups that fail take some
 * thousandths of the worker's time, or are proportional to those that succeed. A packet that can
 * never be a reply costs a few loads.
 */

import { randomFillSync } from 'node:crypto';
import { coarseSeconds } from '../../shm/clock.js';
import type { MetricCatalogue } from '../../shm/metrics.js';
import { NONE } from '../../shm/none.js';
import { EARLY_KEY_WORDS_MAX, type EarlyReplies, type IsKnown } from '../api/early-replies.js';
import type { Members } from '../api/members.js';
import { columnsOf } from '../base/counters.js';
import { monotonicMs } from '../base/monotonic.js';
import type { PacketDriver } from '../drivers/driver.js';
import { BATCH_CAPACITY, type Batch, DROPPED } from '../packet/batch.js';
import { Protocol } from '../packet/ipv4.js';
import { isError } from '../packet/quoted.js';
import { createEarlyBounds } from './early-bounds.js';
import { createEarlyMembers } from './early-members.js';
import { EARLY_COUNTERS, WAIT_MS, WAITING_REPLIES } from './early-metrics.js';
import { CELL_BYTES, createPacketStore } from './packet-store.js';

const { ICMP, ICMPV6 } = Protocol;

/** Most that a worker stores: packets, and bytes in cells. */
export const WAITING_MAX = 2048;
const WAITING_BYTES_MAX = 2 * 1024 * 1024;
/** Interval between two checks of the other members, in seconds. */
const LOOK_AT_MEMBERS_S = 0.5;
/**
 * Time between two rounds of lookups, per waiting tuple. A lookup takes up to half a microsecond,
 * because none of its data is in a cache. So lookups take some thousandths of the time.
 */
const LOOK_MS_PER_TUPLE = 0.15;
const LOOK_MS_MAX = 4;
/**
 * A round of lookups ends after this many keys that are not known. The limit grows by the second
 * number for each key that was known in this round and in the last one.
 */
const LOOK_MISSES = 64;
const LOOK_MISSES_PER_KNOWN = 8;
/** Tuples whose deadlines are within this time continue together. */
const TOGETHER_MS = 4;

const BUCKETS = 4096;
const MIX = 0x9e3779b1;
/**
 * Counts of waiting tuples by a hash of their ports alone. A first check against it nearly always
 * says that a packet follows none.
 */
const MARKS_SHIFT = 32 - 11;
/** List head: before the oldest tuple and after the newest. */
const ENDS = WAITING_MAX;
/** Shift of the IP version in a tuple's protocol word, above the protocol. */
const VERSION_SHIFT = 8;

/** Where packets continue (passage.ts). */
interface Stop {
  stage: number;
  step: number;
  turns: number;
  isRewritten: boolean;
}

export interface DataPlaneEarlyReplies extends EarlyReplies {
  /** Number of packets that wait. */
  readonly waiting: number;
  /** Number of tuples whose packets may continue. */
  readonly due: number;
  /** Where the packets of the last `refill` continue. */
  readonly stop: Readonly<Stop>;
  /** Runs between batches. Finds the packets that may continue. */
  look(unixMs: () => number): void;
  /**
   * Fills the empty batch with packets that continue at one place. Returns their number. Until
   * `done`, they keep their first arrival time.
   */
  refill(): number;
  /** The batch of the last `refill` has passed. */
  done(): void;
  /** The visible packets of the batch reach a stage. `isOpen`: they may wait there. */
  enter(stage: number, step: number, turns: number, isRewritten: boolean, isOpen: boolean): void;
  /** Drops all waiting packets, because the worker ends. */
  dropAll(): void;
}

interface EarlyRepliesParts {
  readonly batch: Batch;
  readonly driver: PacketDriver;
  readonly members: Members;
  /** A number that changes whenever any records were applied since the last call. */
  progress(): number;
  /** The longest time that a packet waits. Called a few times a second. */
  msMax(): number;
  readonly row: Float64Array;
  readonly catalogue: MetricCatalogue;
  /** `every` of the worker's timers. */
  every(owner: string, seconds: number, callback: () => void): void;
  /** Monotonic milliseconds. Tests pass their own. */
  readonly clock?: () => number;
}

/** Made once per data plane: see the head of batch.ts. */
export function createEarlyReplies({
  batch,
  driver,
  members,
  row,
  ...parts
}: EarlyRepliesParts): DataPlaneEarlyReplies {
  const { progress, msMax, catalogue, every, clock = monotonicMs } = parts;
  const { egress, length, port, l3, version, protocol, source, destination, ports, link, flags } = batch;
  const { i32 } = batch.memory;
  const columns = columnsOf(catalogue, EARLY_COUNTERS);
  const gauge = catalogue.column(WAITING_REPLIES);
  const waitGauge = catalogue.column(WAIT_MS);
  const store = createPacketStore(batch, driver, WAITING_MAX, WAITING_BYTES_MAX / CELL_BYTES);
  const [seed, seed2] = randomFillSync(new Int32Array(2));

  // ——— Packets, by their cell in the store ———

  const next = new Int32Array(WAITING_MAX);
  const arrived = new Float64Array(WAITING_MAX);
  const groups = new Int32Array(WAITING_MAX);
  const endpoints = new Int32Array(WAITING_MAX);

  // ——— Tuples ———

  const first = new Int32Array(WAITING_MAX);
  const last = new Int32Array(WAITING_MAX);
  const packetsOf = new Int32Array(WAITING_MAX);
  const tupleSource = new Int32Array(WAITING_MAX);
  const tupleDestination = new Int32Array(WAITING_MAX);
  const tuplePorts = new Int32Array(WAITING_MAX);
  const tupleProtocol = new Int32Array(WAITING_MAX);
  const tupleLink = new Int32Array(WAITING_MAX);
  const tuplePort = new Int32Array(WAITING_MAX);
  const stageOf = new Int32Array(WAITING_MAX);
  const stepOf = new Int32Array(WAITING_MAX);
  const turnsOf = new Int32Array(WAITING_MAX);
  const rewrittenOf = new Uint8Array(WAITING_MAX);
  const kindOf = new Int32Array(WAITING_MAX);
  const keys = new Int32Array(WAITING_MAX * EARLY_KEY_WORDS_MAX);
  /** When the first of its packets arrived. */
  const since = new Float64Array(WAITING_MAX);
  // Tuples whose state is awaited, in the order of `since`.
  const older = new Int32Array(WAITING_MAX + 1).fill(ENDS);
  const newer = new Int32Array(WAITING_MAX + 1).fill(ENDS);
  // All tuples that have an order, by hash.
  const buckets = new Int32Array(BUCKETS).fill(NONE);
  const bucketOf = new Int32Array(WAITING_MAX);
  const marks = new Uint16Array(1 << (32 - MARKS_SHIFT));
  const nextInBucket = new Int32Array(WAITING_MAX);
  const free = Int32Array.from({ length: WAITING_MAX }, (_, n) => WAITING_MAX - 1 - n);
  let freeCount = WAITING_MAX;
  let awaited = 0;
  /** Number of ordered tuples by stage, including those that are due. */
  const waitingAt = new Int32Array(256);

  // Tuples that may continue, in order.
  const queue = new Int32Array(WAITING_MAX);
  let queueAt = 0;
  let queued = 0;
  /** The counter for each packet of the tuple: why it continues. */
  const reasons = new Int32Array(WAITING_MAX);

  const bounds = createEarlyBounds(WAITING_MAX, catalogue, clock());
  const others = createEarlyMembers(members, msMax);

  // ——— The round ———

  const knowns: IsKnown[] = [];
  const stop: Stop = { stage: 0, step: 1, turns: 0, isRewritten: false };
  /** The stage that the visible packets are at. */
  const here: Stop = { stage: 0, step: 1, turns: 0, isRewritten: false };
  let isOpen = false;
  /** Arrival times of the packets in the batch, if they waited before. */
  const camePacket = new Float64Array(BATCH_CAPACITY);
  let isRefilled = false;
  let nowMs = 0;
  let isNowRead = false;
  let seen = 0;
  let lookAgainMs = 0;
  /** The next tuple to look up. `ENDS`: the oldest. */
  let nextLook = ENDS;
  /** Tuples that became known in the last round of lookups. */
  let found = 0;

  // Fields of the last packet that was read.
  let from = 0;
  let to = 0;
  let group = 0;
  let endpoint = 0;
  let bucket = 0;

  /** The clock is read at most once in a round. */
  function readNow(): number {
    if (!isNowRead) {
      nowMs = clock();
      isNowRead = true;
    }
    return nowMs;
  }

  function lookAtMembers(): void {
    others.look();
    row[waitGauge] = others.waitMs;
    bounds.earn(clock());
  }

  function mixed(a: number, b: number): number {
    let h = Math.imul(a ^ seed, MIX) ^ Math.imul(b + seed2, 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 15), 0xc2b2ae35);
    return h ^ (h >>> 13);
  }

  function mixedAddress(at: number): number {
    return mixed(mixed(i32[at], i32[at + 1]), mixed(i32[at + 2], i32[at + 3]));
  }

  /** Reads the tuple of packet `i`. IPv6 addresses are hashed to one word. */
  function read(i: number): void {
    if (version[i] === 4) {
      from = source[i];
      to = destination[i];
    } else {
      from = mixedAddress((l3[i] + 8) >> 2);
      to = mixedAddress((l3[i] + 24) >> 2);
    }
    endpoint = mixed(to, (ports[i] >>> 16) | (protocol[i] << 16));
    bucket = (mixed(from, endpoint) ^ ports[i]) & (BUCKETS - 1);
  }

  function markOf(i: number): number {
    return Math.imul(ports[i], MIX) >>> MARKS_SHIFT;
  }

  /**
   * Returns the tuple of packet `i` if it waits at this stage, otherwise `NONE`. `read(i)` must
   * come first.
   */
  function find(i: number): number {
    for (let t = buckets[bucket]; t !== NONE; t = nextInBucket[t]) {
      if (
        tupleSource[t] === from &&
        tupleDestination[t] === to &&
        tuplePorts[t] === ports[i] &&
        tupleProtocol[t] === (protocol[i] | (version[i] << VERSION_SHIFT)) &&
        tupleLink[t] === link[i] &&
        tuplePort[t] === port[i] &&
        stageOf[t] === here.stage &&
        turnsOf[t] === here.turns
      )
        return t;
    }
    return NONE;
  }

  /** Whether there is room for packet `i`. Also reads its tuple. */
  function hasRoom(i: number): boolean {
    // The cheapest check comes first, because in a flood it refuses most packets.
    if (bounds.isSpent(readNow())) return refuse(columns.early_replies_rate);
    if (freeCount === 0) return refuse(columns.early_replies_full);
    if (!hasPlace(i)) return false;
    return !bounds.isSpentBy(group) || refuse(columns.early_replies_rate);
  }

  /**
   * The same check for a packet behind one that waits. Its state may be present, so the bound on
   * waiting in vain does not apply.
   */
  function hasPlace(i: number): boolean {
    if (!store.hasRoom(length[i])) return refuse(columns.early_replies_full);
    read(i);
    group = mixed(from, 0);
    const reason = bounds.refusal(group, endpoint);
    return reason === NONE || refuse(reason);
  }

  function refuse(reason: number): boolean {
    row[reason]++;
    return false;
  }

  function mayWait(i: number): boolean {
    return others.isActive && isOpen && hasRoom(i);
  }

  /** Appends packet `i` to tuple `t`. The caller has checked that there is room. */
  function append(i: number, t: number): void {
    const place = store.put(i);
    next[place] = NONE;
    if (packetsOf[t]++ === 0) first[t] = place;
    else next[last[t]] = place;
    last[t] = place;
    arrived[place] = isRefilled ? camePacket[i] : readNow();
    groups[place] = group;
    endpoints[place] = endpoint;
    bounds.took(group, endpoint);
    egress[i] = DROPPED;
    row[columns.early_replies]++;
    row[gauge] = store.count;
  }

  function hasOrder(i: number): boolean {
    const carried = protocol[i];
    return !((carried === ICMP || carried === ICMPV6) && isError(flags[i], version[i]));
  }

  function begin(i: number, kind: number, key: Int32Array): boolean {
    if (!mayWait(i)) return false;
    const isOrdered = hasOrder(i);
    const known = isOrdered ? find(i) : NONE;
    if (known !== NONE) {
      append(i, known);
      return true;
    }
    const t = free[--freeCount];
    packetsOf[t] = 0;
    tupleSource[t] = from;
    tupleDestination[t] = to;
    tuplePorts[t] = ports[i];
    tupleProtocol[t] = protocol[i] | (version[i] << VERSION_SHIFT);
    tupleLink[t] = link[i];
    tuplePort[t] = port[i];
    stageOf[t] = here.stage;
    stepOf[t] = here.step;
    turnsOf[t] = here.turns;
    rewrittenOf[t] = here.isRewritten ? 1 : 0;
    kindOf[t] = kind;
    const at = t * EARLY_KEY_WORDS_MAX;
    for (let word = 0; word < key.length; word++) keys[at + word] = key[word];
    bucketOf[t] = NONE;
    if (isOrdered) {
      bucketOf[t] = bucket;
      nextInBucket[t] = buckets[bucket];
      buckets[bucket] = t;
      marks[markOf(i)]++;
      waitingAt[here.stage]++;
    }
    append(i, t);
    since[t] = arrived[first[t]];
    lineUp(t);
    return true;
  }

  /**
   * Inserts a tuple into the list of awaited tuples by its age. Its position is nearly always the
   * last.
   */
  function lineUp(t: number): void {
    let before = older[ENDS];
    while (before !== ENDS && since[before] > since[t]) before = older[before];
    const after = newer[before];
    older[t] = before;
    newer[t] = after;
    newer[before] = older[after] = t;
    awaited++;
  }

  /**
   * Packet `i` waits behind the first packet of its tuple, if that waits at this stage. Without
   * room, it is dropped.
   */
  function joins(i: number): boolean {
    read(i);
    const t = find(i);
    if (t === NONE || !hasOrder(i)) return false;
    if (hasPlace(i)) append(i, t);
    else batch.drop(i, columns.early_replies_behind);
    return true;
  }

  function follows(i: number): boolean {
    return isOpen && waitingAt[here.stage] !== 0 && marks[markOf(i)] !== 0 && joins(i);
  }

  function enter(stage: number, step: number, turns: number, isRewritten: boolean, open: boolean): void {
    here.stage = stage;
    here.step = step;
    here.turns = turns;
    here.isRewritten = isRewritten;
    isOpen = open;
    // Otherwise `look` has read the clock in this round.
    if (store.count === 0) isNowRead = false;
  }

  // ——— Continuing ———

  function look(unixMs: () => number): void {
    isNowRead = false;
    if (awaited === 0) return;
    const ms = readNow();
    const over = ms - others.waitMs;
    if (since[newer[ENDS]] <= over)
      while (newer[ENDS] !== ENDS && since[newer[ENDS]] <= over + TOGETHER_MS)
        release(newer[ENDS], columns.early_replies_expired);
    if (ms < lookAgainMs) return;
    const applied = progress();
    if (applied === seen) return;
    seen = applied;
    lookAgainMs = ms + Math.min(LOOK_MS_MAX, awaited * LOOK_MS_PER_TUPLE);
    lookUp(coarseSeconds(unixMs()));
  }

  /**
   * Looks up the keys of tuples, starting where the last round ended. Keys whose records arrive
   * together are nearly always adjacent.
   */
  function lookUp(now: number): void {
    let missesLeft = LOOK_MISSES + LOOK_MISSES_PER_KNOWN * found;
    found = 0;
    let t = nextLook;
    for (let left = awaited; left > 0 && missesLeft > 0; left--) {
      if (t === ENDS) t = newer[ENDS];
      const after = newer[t];
      if (knowns[kindOf[t]](keys, t * EARLY_KEY_WORDS_MAX, now)) {
        release(t, columns.early_replies_known);
        found++;
        missesLeft += LOOK_MISSES_PER_KNOWN;
      } else missesLeft--;
      t = after;
    }
    nextLook = t;
    // The remaining keys may be known already: look again without new records.
    if (missesLeft === 0) seen--;
  }

  function release(t: number, reason: number): void {
    newer[older[t]] = newer[t];
    older[newer[t]] = older[t];
    awaited--;
    if (nextLook === t) nextLook = newer[t];
    reasons[t] = reason;
    queue[(queueAt + queued++) & (WAITING_MAX - 1)] = t;
  }

  function refill(): number {
    batch.count = 0;
    let n = 0;
    while (queued > 0) {
      const t = queue[queueAt];
      if (n === 0) goTo(t);
      else if (n + packetsOf[t] > BATCH_CAPACITY || !goesOn(t)) break;
      n += takeOut(t, n);
      if (packetsOf[t] > 0) break;
      forget(t);
    }
    row[gauge] = store.count;
    isRefilled = n > 0;
    return n;
  }

  /**
   * Adds the packets of a tuple to the batch, from packet `n` on. Returns their number, which is
   * smaller than the tuple's if the driver has no memory.
   */
  function takeOut(t: number, n: number): number {
    let taken = 0;
    const isKnown = reasons[t] === columns.early_replies_known;
    while (packetsOf[t] > 0 && n + taken < BATCH_CAPACITY) {
      const place = first[t];
      if (!store.takeOut(place)) break;
      camePacket[n + taken++] = arrived[place];
      bounds.left(groups[place], endpoints[place], isKnown);
      first[t] = next[place];
      packetsOf[t]--;
      row[reasons[t]]++;
    }
    return taken;
  }

  function goTo(t: number): void {
    stop.stage = stageOf[t];
    stop.step = stepOf[t];
    stop.turns = turnsOf[t];
    stop.isRewritten = rewrittenOf[t] === 1;
  }

  function goesOn(t: number): boolean {
    return (
      stop.stage === stageOf[t] &&
      stop.step === stepOf[t] &&
      stop.turns === turnsOf[t] &&
      stop.isRewritten === (rewrittenOf[t] === 1)
    );
  }

  /** Frees the first tuple in the queue, which has no packets left. */
  function forget(t: number): void {
    queueAt = (queueAt + 1) & (WAITING_MAX - 1);
    queued--;
    free[freeCount++] = t;
    if (bucketOf[t] === NONE) return;
    waitingAt[stageOf[t]]--;
    marks[Math.imul(tuplePorts[t], MIX) >>> MARKS_SHIFT]--;
    let at = buckets[bucketOf[t]];
    if (at === t) {
      buckets[bucketOf[t]] = nextInBucket[t];
      return;
    }
    while (nextInBucket[at] !== t) at = nextInBucket[at];
    nextInBucket[at] = nextInBucket[t];
  }

  function dropAll(): void {
    row[columns.early_replies_lost] += store.count;
    store.clear();
    row[gauge] = 0;
  }

  // Packets that an earlier thread of this slot held when it was killed are lost.
  row[columns.early_replies_lost] += row[gauge];
  row[gauge] = 0;
  lookAtMembers();
  every('early replies', LOOK_AT_MEMBERS_S, lookAtMembers);

  return {
    get waiting() {
      return store.count;
    },
    get due() {
      return queued;
    },
    stop,
    isHeard: others.isHeard,
    expect(words, isKnown) {
      if (!(words >= 1 && words <= EARLY_KEY_WORDS_MAX))
        throw new RangeError(`a key of ${words} words: 1 to ${EARLY_KEY_WORDS_MAX} are possible`);
      const kind = knowns.push(isKnown) - 1;
      const key = new Int32Array(words);
      return { key, mayWait, wait: (i) => begin(i, kind, key) };
    },
    follows,
    look,
    refill,
    done() {
      isRefilled = false;
    },
    enter,
    dropAll,
  };
}

/** For an instance in which nothing waits. */
export const NO_EARLY_REPLIES: DataPlaneEarlyReplies = {
  waiting: 0,
  due: 0,
  stop: { stage: 0, step: 1, turns: 0, isRewritten: false },
  isHeard: () => false,
  expect: (words) => ({ key: new Int32Array(words), mayWait: () => false, wait: () => false }),
  follows: () => false,
  look: () => {},
  refill: () => 0,
  done: () => {},
  enter: () => {},
  dropAll: () => {},
};
