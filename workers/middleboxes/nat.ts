/**
 * NAT: many private addresses behind a few public ones.
 *
 *     inside                                          outside
 *     10.0.0.5:4000 ─▶ 198.51.100.7:80      ─▶        203.0.113.1:4000 ─▶ 198.51.100.7:80
 *     10.0.0.5:4000 ◀─ 198.51.100.7:80      ◀─        203.0.113.1:4000 ◀─ 198.51.100.7:80      (here or at another site)
 *
 * The first packet of an internal address and port binds it to an external address and port, for whatever remote
 * (endpoint-independent mapping and filtering: RFC 4787 REQ-1, REQ-8; RFC 5382 REQ-1, REQ-3), at all sites. ICMP queries
 * are bound by their identifier (RFC 5508 REQ-1). A host inside that sends to an external address gets to the host inside
 * that is bound there (hairpinning, RFC 4787 REQ-9).
 *
 * **Timers.** Only packets from inside refresh a binding (RFC 4787 REQ-6 asks for these, and allows the others, by which
 * anyone outside could keep bindings alive). So it does not matter through which site replies come.
 *
 * **TCP** is followed by what the inside sends, which is all that one site is sure to see, per binding, which several
 * connections may share:
 *
 * | from inside               | binding, by rank                  | timer        |
 * | ------------------------- | --------------------------------- | ------------ |
 * | first packet              | becomes NEW                       | transitory   |
 * | ACK without SYN, FIN, RST | NEW becomes ESTABLISHED           | established  |
 * | FIN or RST                | any becomes CLOSING               | transitory   |
 * | SYN, when CLOSING         | begins a new life as NEW          | transitory   |
 * | anything else             | stays                             | of its rank  |
 *
 * A FIN or RST ends one connection, not the binding, which every packet of another connection keeps alive for as long
 * as the transitory timer each time; and a binding that ran out is given its port again if nobody else has it. What comes
 * from outside, RSTs and ICMP errors included, changes nothing: it is easily forged (RFC 5382 REQ-10, RFC 7857 §3).
 */

import {
  BATCH_CAPACITY,
  type Batch,
  defineMiddlebox,
  destinationPort,
  Fragment,
  IcmpType,
  NONE,
  natBinding,
  option,
  Protocol,
  portAndProtocol,
  Rank,
  Refusal,
  rewriteDestination,
  rewriteSource,
  sourcePort,
  TcpFlag,
} from '../api.js';

const { ICMP, TCP, UDP } = Protocol;
const { ACK, FIN, RST, SYN } = TcpFlag;

export default defineMiddlebox({
  name: 'nat',
  help: 'Translates between private and public IPv4 addresses and ports.',

  options: {
    inside: option.port('port on the private side'),
    outside: option.port('port on the public side'),
    external: option.addresses('public IPv4 addresses to translate to, routed to this instance'),
    flows: option.count('bindings held at most', 1 << 18, { min: 64, max: 1 << 24 }),
    first_port: option.count('lowest external port used', 1, { max: 65_535 }),
    last_port: option.count('highest external port used', 65_535, { max: 65_535 }),
    allocation: option.choice(
      'leased: each instance takes ports from blocks of its own first; shared: from all of them',
      ['leased', 'shared'],
      'leased',
    ),
    tcp_established: option.seconds('idle time of established connections (RFC 5382 REQ-5: 7440 or more)', 7440),
    tcp_transitory: option.seconds('idle time of opening and closing connections (RFC 5382 REQ-5: 240 or more)', 240),
    udp: option.seconds('idle time of UDP bindings (RFC 4787 REQ-5: 120 or more)', 300),
    icmp: option.seconds('idle time of ICMP queries (RFC 5508 REQ-2: 60 or more)', 60),
  },

  counters: {
    outbound: 'packets translated from inside to outside',
    inbound: 'packets translated from outside to inside',
    hairpinned: 'packets translated from inside to inside',
    bound: 'bindings made',
    exhausted: 'dropped: no external port is free',
    table_full: 'dropped: as many bindings as can be held',
    log_full: 'dropped: a new binding could not be logged, the send thread is behind',
    contended: 'dropped: other threads held the binding too long',
    draining: 'dropped: a new binding while the instance is being drained',
    stray: 'dropped: a TCP reset from inside of a connection that has no binding',
    unsolicited: 'dropped: from outside to an external port that nobody inside is bound to',
    not_external: 'dropped: from outside to an address that is not an external one',
    ipv6: 'dropped: IPv6 is not translated',
    fragment: 'dropped: fragments are not translated',
    icmp_other: 'dropped: ICMP other than a query from inside or a reply from outside',
    protocol: 'dropped: neither TCP, UDP nor ICMP',
  },

  state: ({ external, flows, first_port, last_port, allocation }) => ({
    bindings: natBinding({
      addresses: external,
      flows,
      portRange: { first: first_port, last: last_port },
      allocation,
    }),
  }),

  owns: ({ outside, external }) => [{ port: outside, addresses: external }],

  open({ options, state: { bindings }, counters, draining }) {
    const { inside, outside } = options;
    /** By packet, from `look` to `translate`: hash of the internal endpoint, or place of the external one. */
    const hashes = new Int32Array(BATCH_CAPACITY);
    const places = new Int32Array(BATCH_CAPACITY);

    /** Drops what is not translated, and begins to fetch what the rest is bound to. */
    function look(batch: Batch, i: number): void {
      const protocol = batch.protocol[i];
      const fromInside = batch.port[i] === inside;
      if (batch.version[i] !== 4) return batch.drop(i, counters.ipv6);
      if (batch.fragment[i] !== Fragment.WHOLE) return batch.drop(i, counters.fragment);
      if (protocol === ICMP) {
        if (!isQueryTo(batch.flags[i], fromInside)) return batch.drop(i, counters.icmp_other);
      } else if (protocol !== TCP && protocol !== UDP) return batch.drop(i, counters.protocol);
      if (fromInside) {
        hashes[i] = bindings.hash(batch.source[i], portAndProtocol(sourcePort(batch.ports[i]), protocol));
        bindings.touchOutbound(hashes[i]);
      }
      // From inside there is a place, too, when the packet is to be turned round.
      places[i] = bindings.place(batch.destination[i], destinationPort(batch.ports[i]), protocol);
      bindings.touchInbound(places[i]);
    }

    function outbound(batch: Batch, i: number, now: number): void {
      const key = portAndProtocol(sourcePort(batch.ports[i]), batch.protocol[i]);
      let slot = bindings.findOutbound(hashes[i], batch.source[i], key, now);
      if (slot === NONE) {
        slot = bind(batch, i, key, now);
        if (slot === NONE) return;
      } else refresh(batch, i, slot, now);
      rewriteSource(batch, i, bindings.externalAddress(slot), bindings.externalPort(slot));
      if (places[i] !== NONE) return hairpin(batch, i, now);
      batch.forward(i, outside);
      batch.count1(counters.outbound);
    }

    function inbound(batch: Batch, i: number, now: number): void {
      if (places[i] === NONE) return batch.drop(i, counters.not_external);
      const slot = bindings.findInbound(places[i], now);
      if (slot === NONE) return batch.drop(i, counters.unsolicited);
      rewriteDestination(batch, i, bindings.internalAddress(slot), bindings.internalPort(slot));
      batch.forward(i, inside);
      batch.count1(counters.inbound);
    }

    function hairpin(batch: Batch, i: number, now: number): void {
      // Queries are answered by a host that owns an address: none owns the external ones.
      const slot = batch.protocol[i] === ICMP ? NONE : bindings.findInbound(places[i], now);
      if (slot === NONE) return batch.drop(i, counters.unsolicited);
      rewriteDestination(batch, i, bindings.internalAddress(slot), bindings.internalPort(slot));
      batch.forward(i, inside);
      batch.count1(counters.hairpinned);
    }

    /** A new binding's slot, or `NONE` when there is none to be had, and then the packet is dropped. */
    function bind(batch: Batch, i: number, key: number, now: number): number {
      const protocol = batch.protocol[i];
      if (draining()) batch.drop(i, counters.draining);
      else if (protocol === TCP && (batch.flags[i] & RST) !== 0) batch.drop(i, counters.stray);
      else {
        const slot = bindings.add(hashes[i], batch.source[i], key, now, now + timeoutOf(protocol, Rank.NEW));
        if (slot === NONE) batch.drop(i, refused());
        else batch.count1(counters.bound);
        return slot;
      }
      return NONE;
    }

    function refused(): number {
      switch (bindings.refusal) {
        case Refusal.TABLE_FULL:
          return counters.table_full;
        case Refusal.LOG_FULL:
          return counters.log_full;
        case Refusal.CONTENDED:
          return counters.contended;
        default:
          return counters.exhausted;
      }
    }

    /** See the table at the head. */
    function refresh(batch: Batch, i: number, slot: number, now: number): void {
      const protocol = batch.protocol[i];
      const before = bindings.rank(slot);
      if (protocol !== TCP) {
        bindings.refresh(slot, before, now, timeoutOf(protocol, before));
        return;
      }
      const flags = batch.flags[i];
      if ((flags & SYN) !== 0 && before >= Rank.CLOSING) {
        bindings.renew(slot, now, timeoutOf(TCP, Rank.NEW));
        return;
      }
      const shown =
        (flags & (FIN | RST)) !== 0 ? Rank.CLOSING : (flags & (ACK | SYN)) === ACK ? Rank.ESTABLISHED : Rank.NEW;
      const rank = Math.max(shown, before);
      bindings.refresh(slot, rank, now, timeoutOf(TCP, rank));
    }

    function timeoutOf(protocol: number, rank: number): number {
      if (protocol === UDP) return options.udp;
      if (protocol === ICMP) return options.icmp;
      return rank === Rank.ESTABLISHED ? options.tcp_established : options.tcp_transitory;
    }

    return (batch: Batch, now: number): void => {
      // All packets look before any is translated, so that their cache misses overlap.
      for (let i = 0; i < batch.count; i++) if (isMine(batch, i)) look(batch, i);
      for (let i = 0; i < batch.count; i++) if (isMine(batch, i)) bindings.touchOwner(places[i]);
      for (let i = 0; i < batch.count; i++) {
        if (!isMine(batch, i)) continue;
        if (batch.port[i] === inside) outbound(batch, i, now);
        else inbound(batch, i, now);
      }
    };

    function isMine(batch: Batch, i: number): boolean {
      return !batch.skips(i) && (batch.port[i] === inside || batch.port[i] === outside);
    }
  },
});

/** Queries go out and replies come in. */
function isQueryTo(type: number, fromInside: boolean): boolean {
  return fromInside
    ? type === IcmpType.ECHO || type === IcmpType.TIMESTAMP
    : type === IcmpType.ECHO_REPLY || type === IcmpType.TIMESTAMP_REPLY;
}
