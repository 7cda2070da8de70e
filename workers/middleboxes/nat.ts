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
 *
 * **ICMP errors** are translated with the packet they quote, so path MTU discovery and traceroute work through the NAT.
 */

import {
  BATCH_CAPACITY,
  type Batch,
  defineMiddlebox,
  destinationPort,
  Fragment,
  IcmpType,
  isError,
  NONE,
  natBinding,
  option,
  Protocol,
  portAndProtocol,
  Quoted,
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
    icmp_other: 'dropped: ICMP other than queries from inside, replies from outside, and errors',
    icmp_error: 'dropped: an ICMP error about a packet of no binding, or that quotes too little of it',
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
    // The packets to translate, in order, and what they are looked up by: gathered first, for the binding looks up whole
    // columns several times as fast as packet by packet.
    const work = new Int32Array(BATCH_CAPACITY);
    /** Where packets go, by their place in `work`: external addresses of ours among them, of packets from outside mostly. */
    const to = bindings.inboundLookup(BATCH_CAPACITY);
    /** Where packets from inside come from, by `turn`. */
    const from = bindings.outboundLookup(BATCH_CAPACITY);
    const turn = new Int32Array(BATCH_CAPACITY);
    /** What the ICMP error at hand is about. */
    const quoted = new Quoted();

    /** Gathers the packets to translate; drops those that cannot be. Looks them up. Returns how many there are. */
    function look(batch: Batch, now: number): number {
      let count = 0;
      let fromInside = 0;
      for (let i = 0; i < batch.count; i++) {
        const port = batch.port[i];
        if (batch.skips(i) || (port !== inside && port !== outside)) continue;
        const refusal = whyNot(batch, i);
        if (refusal !== NONE) {
          batch.drop(i, refusal);
          continue;
        }
        const protocol = batch.protocol[i];
        const ports = batch.ports[i];
        if (port === inside) {
          from.addresses[fromInside] = batch.source[i];
          from.keys[fromInside] = portAndProtocol(sourcePort(ports), protocol);
          turn[count] = fromInside++;
        }
        to.addresses[count] = batch.destination[i];
        to.keys[count] = portAndProtocol(destinationPort(ports), protocol);
        work[count++] = i;
      }
      from.find(fromInside, now);
      to.find(count, now);
      return count;
    }

    /** Why a packet cannot be translated, as a counter, or `NONE`. */
    function whyNot(batch: Batch, i: number): number {
      if (batch.version[i] !== 4) return counters.ipv6;
      if (batch.fragment[i] !== Fragment.WHOLE) return counters.fragment;
      const protocol = batch.protocol[i];
      if (protocol === TCP || protocol === UDP) return NONE;
      if (protocol !== ICMP) return counters.protocol;
      const type = batch.flags[i];
      return isError(type) || isQueryTo(type, batch.port[i] === inside) ? NONE : counters.icmp_other;
    }

    function outbound(batch: Batch, n: number, now: number): void {
      const i = work[n];
      let slot = from.slots[turn[n]];
      if (slot === NONE) {
        slot = bind(batch, i, turn[n], now);
        if (slot === NONE) return;
      } else refresh(batch, i, slot, now);
      rewriteSource(batch, i, bindings.externalAddress(slot), bindings.externalPort(slot));
      if (to.places[n] !== NONE) return hairpin(batch, n, now);
      batch.forward(i, outside);
      batch.count1(counters.outbound);
    }

    function inbound(batch: Batch, n: number, now: number): void {
      const i = work[n];
      if (to.places[n] === NONE) return batch.drop(i, counters.not_external);
      const slot = ownerOf(n, now);
      if (slot === NONE) return batch.drop(i, counters.unsolicited);
      rewriteDestination(batch, i, bindings.internalAddress(slot), bindings.internalPort(slot));
      batch.forward(i, inside);
      batch.count1(counters.inbound);
    }

    function hairpin(batch: Batch, n: number, now: number): void {
      const i = work[n];
      // Queries are answered by a host that owns an address: none owns the external ones.
      const slot = batch.protocol[i] === ICMP ? NONE : ownerOf(n, now);
      if (slot === NONE) return batch.drop(i, counters.unsolicited);
      rewriteDestination(batch, i, bindings.internalAddress(slot), bindings.internalPort(slot));
      batch.forward(i, inside);
      batch.count1(counters.hairpinned);
    }

    /** Whose the external destination is: as looked up, or bound since by a packet before. */
    function ownerOf(n: number, now: number): number {
      return to.slots[n] !== NONE ? to.slots[n] : bindings.findInbound(to.places[n], now);
    }

    /**
     * An ICMP error passes to whom the packet it is about came from, that packet as the receiver knows it (RFC 5508
     * REQ-4, REQ-5), and leaves the binding as it is (REQ-6).
     */
    function error(batch: Batch, i: number, now: number): void {
      const fromInside = batch.port[i] === inside;
      if (!quoted.find(batch, i)) return batch.drop(i, counters.icmp_error);
      if (fromInside && !errorFromInside(batch, i, now)) return batch.drop(i, counters.icmp_error);
      const place = bindings.place(quoted.source, sourcePort(quoted.ports), quoted.protocol);
      if (fromInside && place === NONE) {
        batch.forward(i, outside);
        batch.count1(counters.outbound);
        return;
      }
      // From outside, or about a packet that was turned round (REQ-7).
      const slot = quoted.source === batch.destination[i] ? bindings.findInbound(place, now) : NONE;
      if (slot === NONE) return batch.drop(i, counters.icmp_error);
      quoted.rewriteSource(bindings.internalAddress(slot), bindings.internalPort(slot));
      rewriteDestination(batch, i, bindings.internalAddress(slot), 0);
      batch.forward(i, inside);
      batch.count1(fromInside ? counters.hairpinned : counters.inbound);
    }

    /** The packet it is about was sent to a binding of ours: it is so again, for the outside. False if there is none. */
    function errorFromInside(batch: Batch, i: number, now: number): boolean {
      const key = portAndProtocol(destinationPort(quoted.ports), quoted.protocol);
      const hash = bindings.hash(quoted.destination, key);
      const slot = bindings.findOutbound(hash, quoted.destination, key, now);
      if (slot === NONE) return false;
      quoted.rewriteDestination(bindings.externalAddress(slot), bindings.externalPort(slot));
      rewriteSource(batch, i, bindings.externalAddress(slot), 0);
      return true;
    }

    /** A new binding's slot, or `NONE` when there is none to be had, and then the packet is dropped. */
    function bind(batch: Batch, i: number, n: number, now: number): number {
      const address = from.addresses[n];
      const key = from.keys[n];
      const hash = from.hashes[n];
      const protocol = batch.protocol[i];
      // A packet before may have bound it since.
      const bound = bindings.findOutbound(hash, address, key, now);
      if (bound !== NONE) {
        refresh(batch, i, bound, now);
        return bound;
      }
      if (draining()) batch.drop(i, counters.draining);
      else if (protocol === TCP && (batch.flags[i] & RST) !== 0) batch.drop(i, counters.stray);
      else {
        const slot = bindings.add(hash, address, key, now, now + timeoutOf(protocol, Rank.NEW));
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
      const count = look(batch, now);
      for (let n = 0; n < count; n++) {
        const i = work[n];
        if (batch.protocol[i] === ICMP && isError(batch.flags[i])) error(batch, i, now);
        else if (batch.port[i] === inside) outbound(batch, n, now);
        else inbound(batch, n, now);
      }
    };
  },
});

/** Queries go out and replies come in. */
function isQueryTo(type: number, fromInside: boolean): boolean {
  return fromInside
    ? type === IcmpType.ECHO || type === IcmpType.TIMESTAMP
    : type === IcmpType.ECHO_REPLY || type === IcmpType.TIMESTAMP_REPLY;
}
