/**
 * Stateful firewall. Rules decide about the first packet of a connection. Its other packets pass by
 * the connection table, in both directions and at all sites. docs/firewall.md is the manual, with
 * the grammar of rules.
 *
 *     packet ─▶ connection table ─ found ─▶ follow (tcp.ts) ─▶ passes
 *                     │ not found
 *                     ▼
 *               state: new · related · invalid ─▶ rules (judge.ts) ─▶ accept, drop, reject
 *
 * A connection is one entry for both directions (flow-keys.ts). Sites merge the ranks of its state
 * by taking the larger one, so each site may see one direction only. The entry's value records
 * which side began the connection, and what is known of its handshake (opening.ts). Ranks of TCP
 * are in tcp.ts. UDP, ICMP queries and other protocols are NEW until a packet comes the other way,
 * then ESTABLISHED. NEW connections have a quota, and newer ones evict older ones
 * (shm/objects/table/half-open.ts). Others are never evicted.
 *
 * **A FIN or RST** outside its receiver's window ends nothing, and such an RST is dropped. The
 * window is known only as far as the receiver's segments pass this site
 * (shm/objects/flow/tcp-flow-table.ts). If the receiver's last segment was a SYN, an RST that
 * refuses it passes and ends nothing.
 *
 * **Related** packets are ICMP errors about a connection, found by the packet they quote.
 * **Invalid** packets belong to no connection and cannot begin one: TCP without SYN (unless
 * `pickup: loose`), replies without a request, errors about no connection.
 *
 * **Established** packets pass without consulting the rules, even after other rules were loaded.
 * With `recheck`, the rules in force must accept the connection (recheck.ts).
 */

import {
  BATCH_CAPACITY,
  createMssClamp,
  createTcpWindow,
  defineMiddlebox,
  FlowRefusal,
  Fragment,
  HOLD_MS_MAX,
  idleExpiry,
  KEY_WORDS_IPV4_FIVE_TUPLE,
  KEY_WORDS_IPV6_FIVE_TUPLE,
  NONE,
  Plausible,
  Protocol,
  Quoted,
  Rank,
  recordKind,
  type StateDefinition,
  shown,
  TcpFlag,
  type TcpFlowTable,
  tcpFlowTable,
} from '../../api/api.js';
import { createFirewallEarlyReplies } from './early.js';
import { createFlowKeys, sidesByPort } from './flow-keys.js';
import { classOf, IcmpClass, isReply } from './icmp.js';
import { createJudge } from './judge.js';
import { LOGGED_WORDS, renderLogged, writeLogged } from './logged.js';
import { createOpenings, type Openings, REQUESTED, RUN_S } from './opening.js';
import { COUNTERS, OPTIONS } from './options.js';
import { PACKET, REJECT_SHIFT, RULE } from './program.js';
import { createRecheck, type Recheck } from './recheck.js';
import { RejectWith, Verdict } from './rule.js';
import { shownConnection } from './shown.js';
import { isReopening, LEGAL_FLAGS, rankAfter } from './tcp.js';
import { State } from './vocabulary.js';

// Constants of this file. The optimiser folds them, but not imports.
const { TCP, UDP, ICMP, ICMPV6 } = Protocol;
const { ACK, FIN, RST, SYN } = TcpFlag;
const { NEW, ESTABLISHED } = Rank;
const LATER = Fragment.LATER;
const NOBODY = NONE;

/** Kinds of protocol with timers of their own. Each is a row of four ranks in `timers`. */
const TCP_TIMERS = 0;
const UDP_TIMERS = 4;
const ICMP_TIMERS = 8;
const OTHER_TIMERS = 12;
const TIMERS = 16;

/** Limit on the records that a worker logs in a second. */
const LOGGED_PER_SECOND = 1000;

export default defineMiddlebox({
  name: 'firewall',
  help: 'Stateful firewall: zones, ordered rules that read like those of nftables, connections shared by all sites.',
  ipv6: true,
  addresses: 'watches',
  options: OPTIONS,
  counters: COUNTERS,
  records: { firewall: recordKind('packets that rules of the firewall log', LOGGED_WORDS, renderLogged) },

  state({ rules, bind_ports, connections, connections_ipv6, half_open, half_open_records }) {
    // If port names differ, sites would confuse the two sides of a connection, so they are
    // incompatible.
    const sides = bind_ports ? rules.ports.toSorted().join() : '';
    const bound = <T extends StateDefinition>(table: T): T => ({
      ...table,
      parameters: { ...table.parameters, sides },
    });
    const shared = { valueWords: 1, halfOpenRecords: half_open_records };
    const quota = (capacity: number): number => Math.ceil((capacity * half_open) / 100);
    return {
      ipv4: bound(
        tcpFlowTable({
          capacity: connections,
          keyWords: KEY_WORDS_IPV4_FIVE_TUPLE,
          halfOpen: quota(connections),
          ...shared,
        }),
      ),
      ipv6: bound(
        tcpFlowTable({
          capacity: connections_ipv6,
          keyWords: KEY_WORDS_IPV6_FIVE_TUPLE,
          halfOpen: quota(connections_ipv6),
          ...shared,
        }),
      ),
    };
  },

  flows: ({ ipv4, ipv6 }, now) => ({
    ipv4: () => shown(ipv4.entries(now), (entry) => shownConnection(entry, 1)),
    ipv6: () => shown(ipv6.entries(now), (entry) => shownConnection(entry, 4)),
  }),

  open({
    options,
    state,
    batch,
    replies,
    holds,
    early,
    counters,
    rules: { rules },
    records,
    every,
    onOptions,
    draining,
    mtus,
  }) {
    const { egress, version, fragment, protocol, flags, length } = batch;
    let isLoose = options.pickup === 'loose';
    const judge = createJudge({ batch, rules });
    const keys = createFlowKeys(batch, sidesByPort(options.rules.ports, options.bind_ports));
    const quoted = new Quoted();
    let clampMss = createMssClamp({ batch, mtus, setting: options.clamp_mss });
    const window = createTcpWindow(batch);
    const known = state.ipv4.lookup(BATCH_CAPACITY);
    /** Packets to look up in `known`, and their sides. */
    const looked = new Int32Array(BATCH_CAPACITY);
    const sides = new Int32Array(BATCH_CAPACITY);
    const key = new Int32Array(KEY_WORDS_IPV6_FIVE_TUPLE);
    const value = new Int32Array(1);
    const timers = new Int32Array(TIMERS);
    setTimers();
    onOptions(() => {
      setTimers();
      isLoose = options.pickup === 'loose';
      clampMss = createMssClamp({ batch, mtus, setting: options.clamp_mss });
    });
    const opening4 = createOpenings({ batch, table: state.ipv4, window, timeouts: timers });
    const opening6 = createOpenings({ batch, table: state.ipv6, window, timeouts: timers });
    const rechecks = (table: TcpFlowTable): Recheck | null =>
      options.recheck ? createRecheck({ batch, table, judge, rules }) : null;
    const recheck4 = rechecks(state.ipv4);
    const recheck6 = rechecks(state.ipv6);
    const { follows } = early;
    const { ipv4: table4, ipv6: table6 } = state;
    const earlyReplies = createFirewallEarlyReplies({ batch, early, judge, ipv4: table4, ipv6: table6 });
    let loggedIn = 0;
    let loggedCount = 0;
    if (rules.version === 0) throw new Error('there are no rules');

    function setTimers(): void {
      const { tcp_new, tcp_established, tcp_closing, tcp_closed, udp_new, udp, icmp, other } = options;
      timers.set([tcp_new, tcp_established, tcp_closing, tcp_closed], TCP_TIMERS);
      timers.set([udp_new, udp, udp, udp], UDP_TIMERS);
      timers.fill(icmp, ICMP_TIMERS, OTHER_TIMERS).fill(other, OTHER_TIMERS);
    }

    function timersOf(carried: number): number {
      if (carried === TCP) return TCP_TIMERS;
      if (carried === UDP) return UDP_TIMERS;
      return carried === ICMP || carried === ICMPV6 ? ICMP_TIMERS : OTHER_TIMERS;
    }

    // ——— Packets of connections ———

    function openingsOf(table: TcpFlowTable): Openings {
      return table === state.ipv4 ? opening4 : opening6;
    }

    function recheckOf(table: TcpFlowTable): Recheck | null {
      return table === state.ipv4 ? recheck4 : recheck6;
    }

    /**
     * Handles packet `i` from side `side` of the connection in `slot`. `known` is the entry's
     * value.
     */
    function follow(i: number, table: TcpFlowTable, slot: number, known: number, side: number, now: number): void {
      const carried = protocol[i];
      const began = known & 1;
      const rank = table.rank(slot);
      // Earlier packets may wait for this connection, whose record has just arrived. Then packet
      // `i` waits behind them.
      if (follows(i)) return;
      let after = rank;
      if (carried !== TCP) {
        if (side !== began && rank < ESTABLISHED) after = ESTABLISHED;
      } else if (fragment[i] !== LATER) {
        const shown = flags[i];
        if (LEGAL_FLAGS[shown] === 0) return invalid(i, counters.tcp_flags);
        if (isReopening(rank, shown)) return begin(i, table, slot, side, now);
        // A retransmitted SYN. Its answer may have come through a site without room for the
        // connection.
        if (rank === NEW && (shown & (SYN | ACK)) === SYN) table.replicateAgain(slot, now, options.tcp_new);
        if ((shown & (FIN | RST)) !== 0 && window.expects(i, table, slot, 1 - side, now) === Plausible.NO) {
          if ((shown & RST) !== 0) {
            if (!window.refusesSyn(i, table, slot, 1 - side)) return invalid(i, counters.reset_window);
            // The RST refuses a SYN that reuses the endpoints. It says nothing about the connection
            // that is still open here.
            batch.count1(counters.passed);
            return;
          }
        } else if (rank === NEW) after = openingsOf(table).rankAfter(i, slot, known, side, now);
        else after = rankAfter(rank, shown);
        // A SYN in the middle of a connection is not noted. Otherwise a forged SYN could make a
        // forged reset plausible.
        window.note(i, table, slot, side, rank === NEW, now);
      }
      const recheck = recheckOf(table);
      if (recheck !== null && !recheck.passes(i, slot, side !== began)) return batch.drop(i, counters.rechecked);
      if (side === began && table.held.isUsed) holds.withEntry(i, table.held, slot, now);
      table.refresh(slot, after, now, timers[timersOf(carried) + after]);
      batch.count1(counters.passed);
    }

    // ——— Packets of none ———

    /**
     * Handles packet `i`, whose key is in `key`. It belongs to no connection, or begins the one in
     * `slot` again.
     */
    function begin(i: number, table: TcpFlowTable, slot: number, side: number, now: number): void {
      const carried = protocol[i];
      if (slot === NOBODY && follows(i)) return;
      if (fragment[i] === LATER) return batch.drop(i, counters.fragment);
      if (carried === TCP) {
        const shown = flags[i];
        if (LEGAL_FLAGS[shown] === 0) return invalid(i, counters.tcp_flags);
        if ((shown & (SYN | ACK | RST)) !== SYN)
          return isLoose && (shown & RST) === 0 ? pickUp(i, table, side, now) : unlessEarly(i);
      } else if ((carried === ICMP || carried === ICMPV6) && isReply(flags[i], carried)) return unlessEarly(i);
      judge.fill(i, false);
      let place = judge.foresee(State.NEW, version[i]);
      let isAsked = judge.hasLimits();
      if (slot === NOBODY && judge.verdict(place) !== Verdict.ACCEPT && earlyReplies.mayWait(i)) {
        if (earlyReplies.newWaits(i, key)) return;
        judge.fill(i, false);
        isAsked = true;
      }
      // `foresee` answers like `decide`, but uses up no limits. Ask again if there are limits, or
      // if the question about the request overwrote the judge's answer.
      if (isAsked) place = judge.decide(State.NEW, version[i]);
      if (settle(i, place)) open(i, table, slot, side, side, place, now);
    }

    /**
     * Handles TCP in the middle of a connection that this site does not know. Its first packet may
     * have gone either way. If the rules would accept it in this direction, or else in the other,
     * the connection continues.
     */
    function pickUp(i: number, table: TcpFlowTable, side: number, now: number): void {
      const isReply = (flags[i] & SYN) !== 0; // SYN and ACK: it answers a request
      judge.fill(i, isReply);
      judge.packet[PACKET.flags] = SYN;
      let began = isReply ? 1 - side : side;
      let place = judge.decide(State.NEW, version[i]);
      if (!isReply && judge.verdict(place) !== Verdict.ACCEPT) {
        judge.fill(i, true);
        judge.packet[PACKET.flags] = SYN;
        const other = judge.decide(State.NEW, version[i]);
        if (judge.verdict(other) === Verdict.ACCEPT) {
          place = other;
          began = 1 - side;
        }
      }
      if (!settle(i, place)) return;
      open(i, table, NOBODY, began, side, place, now);
      if (egress[i] >= 0) batch.count1(counters.picked_up);
    }

    /** Handles ICMP that no connection tracks. */
    function noQuery(i: number, now: number): void {
      const kind = classOf(flags[i], protocol[i], version[i]);
      if (kind === IcmpClass.ERROR) error(i, now);
      else if (kind === IcmpClass.INVALID) invalid(i, counters.invalid);
      else untracked(i, kind === IcmpClass.UNTRACKED ? State.UNTRACKED : State.NEW);
    }

    /** Applies the rules to a packet that no connection tracks. */
    function untracked(i: number, state: number): void {
      if (fragment[i] === LATER) return batch.drop(i, counters.fragment);
      judge.fill(i, false);
      if (settle(i, judge.decide(state, version[i]))) batch.count1(counters.untracked);
    }

    /**
     * Treats packet `i`, whose key is in `key`, as invalid, unless it may wait for its connection's
     * record.
     */
    function unlessEarly(i: number): void {
      if (!earlyReplies.invalidWaits(i, key)) invalid(i, counters.invalid);
    }

    /** Drops the packet for this reason, unless a rule decides about it. */
    function invalid(i: number, reason: number): void {
      if (judge.speaksOf(State.INVALID)) {
        judge.fill(i, false);
        const place = judge.decide(State.INVALID, version[i]);
        if (place >= 0) {
          settle(i, place);
          return;
        }
        judge.count(place, length[i]);
      }
      batch.drop(i, reason);
    }

    /**
     * Handles an ICMP error. It is related if it is about a connection and goes to the sender of
     * the quoted packet.
     */
    function error(i: number, now: number): void {
      if (!quoted.find(batch, i) || !goesBack(i)) return invalid(i, counters.invalid);
      const table = quoted.version === 4 ? state.ipv4 : state.ipv6;
      keys.quoted(i, quoted, key);
      if (table.find(table.hash(key, 0), key, 0, now) === NONE) {
        if (!earlyReplies.errorWaits(i, key)) invalid(i, counters.invalid);
        return;
      }
      if (judge.speaksOf(State.RELATED)) {
        judge.fill(i, false);
        const place = judge.decide(State.RELATED, version[i]);
        if (place >= 0) {
          if (settle(i, place)) batch.count1(counters.related);
          return;
        }
        judge.count(place, length[i]);
      }
      batch.count1(counters.related);
    }

    const address = new Int32Array(KEY_WORDS_IPV6_FIVE_TUPLE);
    function goesBack(i: number): boolean {
      if (quoted.version === 4) return quoted.source === batch.destination[i];
      quoted.key(address, 0);
      const to = (batch.l3[i] >> 2) + 6;
      const { i32 } = batch.memory;
      for (let n = 0; n < 4; n++) if (address[n] !== i32[to + n]) return false;
      return true;
    }

    // ——— What rules say ———

    /** Applies the rule at `place`. Returns true if the packet passes. */
    function settle(i: number, place: number): boolean {
      const logs = judge.count(place, length[i]);
      for (let n = 0; n < logs; n++) log(i, judge.logged[n]);
      const verdict = judge.verdict(place);
      if (verdict === Verdict.ACCEPT) return true;
      if (verdict === Verdict.DROP) batch.drop(i, counters.denied);
      else if (reject(i, place)) batch.count1(counters.rejected);
      else batch.drop(i, counters.reject_silent);
      return false;
    }

    function reject(i: number, place: number): boolean {
      const how = (judge.word(place, RULE.what) >>> REJECT_SHIFT) & 3;
      if (how !== RejectWith.ICMP && protocol[i] === TCP) return replies.reset(i);
      return replies.unreachable(i, judge.word(place, RULE.code));
    }

    function log(i: number, place: number): void {
      if (loggedCount++ < LOGGED_PER_SECOND) {
        if (writeLogged(records.firewall, rules.words, rules.base, place, judge.packet, version[i])) return;
      }
      batch.count1(counters.unlogged);
    }

    /**
     * Adds or renews the entry of the connection that packet `i`, from side `side`, begins. Side
     * `began` is the initiator. The key is in `key`.
     */
    function open(
      i: number,
      table: TcpFlowTable,
      slot: number,
      began: number,
      side: number,
      place: number,
      now: number,
    ): void {
      if (draining()) return batch.drop(i, counters.draining);
      value[0] = side === began ? began | REQUESTED : openingsOf(table).valueOf(i, began);
      const timeout = timers[timersOf(protocol[i]) + NEW];
      const hold = judge.word(place, RULE.hold);
      holds.holdNext(table.held, hold >>> 16, Math.min(hold & 0xffff, HOLD_MS_MAX));
      let made = slot;
      if (slot !== NOBODY) {
        if (!table.renew(slot, value, 0, NEW, now, timeout)) return batch.drop(i, counters.contended);
      } else {
        made = table.add(table.hash(key, 0), key, 0, value, 0, NEW, now, idleExpiry(now, timeout));
        if (made === NONE) return batch.drop(i, refused(table));
      }
      recheckOf(table)?.accepted(made);
      batch.count1(counters.opened);
      if (protocol[i] === TCP) window.note(i, table, made, side, true, now);
      if (hold !== 0) holds.withEntry(i, table.held, made, now);
    }

    function refused(table: TcpFlowTable): number {
      switch (table.refusal) {
        case FlowRefusal.HALF_OPEN:
          return counters.half_open;
        case FlowRefusal.LOG_FULL:
          return counters.log_full;
        case FlowRefusal.CONTENDED:
          return counters.contended;
        default:
          return counters.table_full;
      }
    }

    // ——— Batches ———

    function ipv4(now: number): void {
      let count = 0;
      for (let i = 0; i < batch.count; i++) {
        if (egress[i] < 0 || version[i] !== 4 || !keys.isTracked(i)) continue;
        looked[count] = i;
        sides[count] = keys.ipv4(i, known.keys, 4 * count);
        count++;
      }
      if (count === 0) return;
      known.find(count, now);
      state.ipv4.touchExpected(known.slots, count);
      for (let n = 0; n < count; n++) {
        const slot = known.slots[n];
        if (slot !== NOBODY) {
          copyKey(n);
          follow(looked[n], state.ipv4, slot, known.values[n], sides[n], now);
        } else missed(n, now);
      }
    }

    function copyKey(n: number): void {
      for (let word = 0; word < 4; word++) key[word] = known.keys[4 * n + word];
    }

    /**
     * The connection was not in the table when the batch was looked up. An earlier packet of the
     * batch may have begun it since.
     */
    function missed(n: number, now: number): void {
      copyKey(n);
      find(looked[n], state.ipv4, sides[n], now);
    }

    function find(i: number, table: TcpFlowTable, side: number, now: number): void {
      const slot = table.find(table.hash(key, 0), key, 0, now);
      if (slot === NONE) begin(i, table, NOBODY, side, now);
      else follow(i, table, slot, table.value(slot, 0), side, now);
    }

    function ipv6AndUntracked(now: number): void {
      for (let i = 0; i < batch.count; i++) {
        if (egress[i] < 0) continue;
        if (!keys.isTracked(i)) {
          const isIcmp = protocol[i] === ICMP || protocol[i] === ICMPV6;
          if (isIcmp && fragment[i] !== LATER) noQuery(i, now);
          else untracked(i, State.NEW);
        } else if (version[i] === 6) find(i, state.ipv6, keys.ipv6(i, key, 0), now);
      }
    }

    function clampAll(clamp: (i: number) => boolean): void {
      for (let i = 0; i < batch.count; i++) if (egress[i] >= 0 && clamp(i)) batch.count1(counters.mss_clamped);
    }

    every(RUN_S, (now) => {
      opening4.run(now);
      opening6.run(now);
    });

    return (now: number): void => {
      rules.refresh();
      if (now !== loggedIn) {
        loggedIn = now;
        loggedCount = 0;
      }
      ipv4(now);
      ipv6AndUntracked(now);
      if (clampMss !== null) clampAll(clampMss);
    };
  },
});
