/**
 * How packets pass the chain of middleboxes.
 *
 * If no middlebox rewrites addresses, every packet passes all of them in the order of the
 * configuration. If one does, and declares which ports are on which side of it, the chain has two
 * ends. A packet enters it at the end of its arrival port (service function chain symmetry, RFC
 * 7665 §2.2). So every middlebox sees both directions of a connection with the same addresses:
 *
 *     near ─▶ firewall ─▶ NAT ─▶ IDPS ─▶ far    private addresses left of the NAT,
 *     near ◀─ firewall ◀─ NAT ◀─ IDPS ◀─ far    public ones right of it, in both directions
 *
 * **A packet that turns round within the chain** goes back through the middleboxes it has passed,
 * because its addresses are known there. There are three cases:
 *
 * - A packet that leaves an address-rewriting middlebox by its arrival port (hairpinning, RFC 4787
 *   REQ-9): it goes back to its new receiver.
 * - A packet that became a reply (replies.ts) behind a middlebox that rewrites addresses: it goes
 *   back as if it had arrived by the port it was to leave by. Its columns are parsed again. At the
 *   end it bypasses the router, to the station that the original packet came from.
 * - A packet that the router turned into an ICMP error after the whole chain: the same (`goBack`).
 *
 * **Early replies** (early-replies.ts) leave the chain at a stage. Later they pass the rest of it
 * from that stage on (`resume`). Our own replies never wait.
 *
 * **Implementation.** A middlebox skips packets that are dropped. So packets that must not pass a
 * middlebox now are hidden: they are marked as dropped, and get their egress back after it.
 */

import type { Metric, MetricCatalogue } from '../../shm/metrics.js';
import { columnsOf, counterMetrics } from '../base/counters.js';
import { failure } from '../base/failure.js';
import { BATCH_CAPACITY, type Batch, DROPPED } from '../packet/batch.js';
import { PORTS_MAX } from '../packet/ports.js';
import type { Stage } from './chain.js';
import type { DataPlaneEarlyReplies } from './early-replies.js';

const COUNTERS = {
  chain_turns: 'dropped: turned round within the chain of middleboxes more often than any right packet does',
} as const;

export const PASSAGE_METRICS: Metric[] = counterMetrics(COUNTERS);

/** A reply to a hairpinned packet, if it is hairpinned back, turns three times. */
const TURNS_MAX = 3;

const FORTH = 1;
const BACK = -1;

/** How a packet turned at a stage. */
const NONE = 0;
const HAIRPIN = 1;
const REPLY = 2;

/** One traversal of the chain, or of a part of it on the way back. */
class Leg {
  /** Packets on this leg. */
  readonly going = new Int32Array(BATCH_CAPACITY);
  count = 0;
  step = FORTH;
  /**
   * Whether their addresses were rewritten since they arrived. If so, replies to them must go back.
   */
  isRewritten = false;
  /** Whether they are replies. */
  isReplies = false;
  /** Packets that turned here. They wait until the others have passed. */
  readonly aside = new Int32Array(BATCH_CAPACITY);
  asideCount = 0;
  /**
   * By packet: `towards` is its egress before the current stage. `cameBy` is the arrival port of a
   * packet that became a reply.
   */
  readonly towards = new Int32Array(BATCH_CAPACITY);
  readonly cameBy = new Int32Array(BATCH_CAPACITY);
}

interface PassageParts {
  readonly batch: Batch;
  /** The chain, in the order of the configuration. */
  readonly stages: readonly Stage[];
  readonly early: DataPlaneEarlyReplies;
  /**
   * Parses packet `i` again. Its egress becomes the opposite port; a malformed packet is dropped.
   */
  reparse(i: number): void;
  readonly catalogue: MetricCatalogue;
}

export interface Passage {
  /**
   * Takes the packets of the batch through the chain. If a middlebox throws, throws an error with
   * its name.
   */
  pass(now: number): void;
  /**
   * Takes early replies in the batch through the rest of the chain, from the stage where they
   * waited (`stop` of early-replies.ts).
   */
  resume(now: number): void;
  /**
   * Packet `i` passed the chain, was to leave by port `towards`, and became a reply. If the chain
   * rewrites addresses, the reply passes it alone, as if it had arrived by that port.
   */
  goBack(i: number, towards: number, now: number): void;
}

/** Made once per data plane: see the head of batch.ts. */
export function createPassage({ batch, stages, early, reparse, catalogue }: PassageParts): Passage {
  const { egress, port } = batch;
  const processes = stages.map(({ process }) => process);
  const count = processes.length;
  const columns = columnsOf(catalogue, COUNTERS);
  const rewrites = Uint8Array.from(stages, ({ sides }) => Number(sides !== undefined));
  const isFar = new Uint8Array(PORTS_MAX);
  for (const { sides } of stages) for (const far of sides?.far ?? []) isFar[far] = 1;
  const isRewriting = rewrites.includes(1);
  const hasEnds = count > 1 && isRewriting;

  /** By how many times its packets have turned. */
  const legs = Array.from({ length: TURNS_MAX + 1 }, () => new Leg());
  const near = new Int32Array(BATCH_CAPACITY);
  const far = new Int32Array(BATCH_CAPACITY);
  /** By packet: the real egress while the packet is hidden. */
  const hidden = new Int32Array(BATCH_CAPACITY);
  const others = new Int32Array(BATCH_CAPACITY);
  let running = 0;
  /** Whether packets may wait at the next stage. False for packets that have just waited there. */
  let mayWait = true;
  let isReply = false;

  function pass(now: number): void {
    try {
      if (hasEnds) passFromBothEnds(now);
      else runFrom(0, now);
    } catch (error) {
      throw failed(error);
    }
  }

  function failed(error: unknown): Error {
    return failure(`middlebox ${stages[running].name} failed on a batch of ${batch.count} packets`, error);
  }

  function resume(now: number): void {
    const { stage, step, turns, isRewritten } = early.stop;
    mayWait = false;
    try {
      if (hasEnds) {
        const leg = legs[turns];
        for (let n = 0; n < batch.count; n++) leg.going[n] = n;
        leg.count = batch.count;
        leg.step = step;
        leg.isRewritten = isRewritten;
        leg.isReplies = false;
        travel(turns, stage, now);
      } else runFrom(stage, now);
    } catch (error) {
      throw failed(error);
    }
  }

  function runFrom(first: number, now: number): void {
    for (let s = first; s < count; s++) run(s, FORTH, 0, false, !isReply, now);
  }

  function run(s: number, step: number, turns: number, isRewritten: boolean, isOpen: boolean, now: number): void {
    running = s;
    early.enter(s, step, turns, isRewritten, isOpen && mayWait);
    mayWait = true;
    processes[s](now);
  }

  function passFromBothEnds(now: number): void {
    let nears = 0;
    let fars = 0;
    for (let i = 0; i < batch.count; i++) {
      if (egress[i] < 0) continue;
      if (isFar[port[i]] === 1) far[fars++] = i;
      else near[nears++] = i;
    }
    if (nears > 0) {
      hide(far, fars);
      passFrom(near, nears, 0, FORTH, now);
      show(far, fars);
    }
    if (fars > 0) {
      hide(near, nears);
      passFrom(far, fars, count - 1, BACK, now);
      show(near, nears);
    }
  }

  function hide(packets: Int32Array, many: number): void {
    for (let n = 0; n < many; n++) {
      hidden[packets[n]] = egress[packets[n]];
      egress[packets[n]] = DROPPED;
    }
  }

  function show(packets: Int32Array, many: number): void {
    for (let n = 0; n < many; n++) egress[packets[n]] = hidden[packets[n]];
  }

  function passFrom(packets: Int32Array, many: number, first: number, step: number, now: number): void {
    const leg = legs[0];
    for (let n = 0; n < many; n++) leg.going[n] = packets[n];
    leg.count = many;
    leg.step = step;
    leg.isRewritten = false;
    leg.isReplies = false;
    travel(0, first, now);
  }

  /** Takes the packets of a leg through the chain from stage `first` on. Only they are visible. */
  function travel(turns: number, first: number, now: number): void {
    const leg = legs[turns];
    const { going, towards } = leg;
    leg.asideCount = 0;
    for (let s = first; s >= 0 && s < count; s += leg.step) {
      for (let n = 0; n < leg.count; n++) towards[going[n]] = egress[going[n]];
      run(s, leg.step, turns, leg.isRewritten, !leg.isReplies && !isReply, now);
      if (rewrites[s] === 0 && !leg.isRewritten) continue;
      turnSome(turns, s, now);
      if (rewrites[s] === 1) leg.isRewritten = true;
      if (leg.count === 0) break;
    }
    show(leg.aside, leg.asideCount);
  }

  /** Sends back those packets of a leg that stage `s` turned. */
  function turnSome(turns: number, s: number, now: number): void {
    const leg = legs[turns];
    let hairpins = 0;
    let replies = 0;
    for (let n = 0; n < leg.count; n++) {
      const turn = turnOf(leg, leg.going[n], s);
      if (turn === HAIRPIN) hairpins++;
      else if (turn === REPLY) replies++;
    }
    if (hairpins > 0) goBack(turns, HAIRPIN, s, now);
    if (replies > 0) goBack(turns, REPLY, s, now);
  }

  function turnOf(leg: Leg, i: number, s: number): number {
    const by = egress[i];
    const before = leg.towards[i];
    if (before < 0) return NONE; // dropped, or a reply, before this stage
    if (by < DROPPED) return leg.isRewritten && batch.bypassPort(i) === port[i] ? REPLY : NONE;
    return rewrites[s] === 1 && by === port[i] && before !== by ? HAIRPIN : NONE;
  }

  /** Sends back the packets of a leg that stage `s` turned in this way, while the others wait. */
  function goBack(turns: number, turn: number, s: number, now: number): void {
    const leg = legs[turns];
    if (turns === TURNS_MAX || (turn === REPLY && leg.isReplies)) return dropTurned(leg, turn, s);
    const next = legs[turns + 1];
    next.step = -leg.step;
    next.isRewritten = turn === HAIRPIN;
    next.isReplies = turn === REPLY || leg.isReplies;
    takeTurned(leg, next, turn, s);
    const first = leg.asideCount;
    for (let n = 0; n < next.count; n++) {
      leg.aside[leg.asideCount++] = next.going[n];
      if (turn === REPLY) comeBack(leg, next.going[n]);
    }
    hide(leg.going, leg.count);
    travel(turns + 1, s - leg.step, now);
    show(leg.going, leg.count);
    for (let n = first; n < leg.asideCount; n++) {
      if (turn === REPLY) leave(leg, leg.aside[n]);
      hidden[leg.aside[n]] = egress[leg.aside[n]];
      egress[leg.aside[n]] = DROPPED;
    }
  }

  function dropTurned(leg: Leg, turn: number, s: number): void {
    for (let n = 0; n < leg.count; n++)
      if (turnOf(leg, leg.going[n], s) === turn) batch.drop(leg.going[n], columns.chain_turns);
  }

  function takeTurned(leg: Leg, next: Leg, turn: number, s: number): void {
    const { going } = leg;
    let kept = 0;
    next.count = 0;
    for (let n = 0; n < leg.count; n++) {
      const i = going[n];
      if (turnOf(leg, i, s) === turn) next.going[next.count++] = i;
      else going[kept++] = i;
    }
    leg.count = kept;
  }

  /** A reply goes back as if it came from where its packet was to go. */
  function comeBack(leg: Leg, i: number): void {
    leg.cameBy[i] = port[i];
    port[i] = leg.towards[i];
    reparse(i);
  }

  /**
   * A reply has passed the chain. It goes to the station that its packet came from. Its frame
   * already has that station's link-layer address.
   */
  function leave(leg: Leg, i: number): void {
    port[i] = leg.cameBy[i];
    if (egress[i] === port[i]) batch.bypass(i, port[i]);
  }

  function goBackAlone(i: number, towards: number, now: number): void {
    if (!isRewriting) return;
    let many = 0;
    for (let n = 0; n < batch.count; n++) if (n !== i) others[many++] = n;
    hide(others, many);
    const cameBy = port[i];
    port[i] = towards;
    reparse(i);
    isReply = true;
    pass(now);
    isReply = false;
    port[i] = cameBy;
    if (egress[i] === cameBy) batch.bypass(i, cameBy);
    show(others, many);
  }

  return { pass, resume, goBack: goBackAlone };
}
