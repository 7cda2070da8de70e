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
 * **A flood of new bindings** does not put out established ones: NEW ones have a quota (`half_open`), in which older give way to
 * newer, and of these not more than `half_open_records` a second are told to the other sites before they are established
 * (shm/objects/half-open.ts). A UDP or ICMP binding becomes
 * ESTABLISHED with its second packet from inside; its timer stays the same.
 *
 * **Held first packets** (`hold_members`): the packet that makes a binding waits until so many other sites have it, so that the
 * reply, which may come by any of them, is not unsolicited there. Later packets of the binding do not wait. A binding over the
 * budget of `half_open_records` is told to nobody yet, and its packet waits for nothing but the records before it.
 *
 * **ICMP errors** are translated with the packet they quote, so path MTU discovery and traceroute work through the NAT.
 */

import {
  BATCH_CAPACITY,
  type Batch,
  defineMiddlebox,
  destinationPort,
  Fragment,
  HOLD_MS_MAX,
  IcmpType,
  isError,
  NONE,
  natBinding,
  option,
  PORTS_MAX,
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
const { NEW, ESTABLISHED, CLOSING } = Rank;
const { WHOLE } = Fragment;
/** As a constant of this file, which the optimiser folds, but not an import. */
const NOBODY = NONE;

// The sides of the NAT. Numbers that the number of packets from outside grows by.
const INSIDE = 0;
const OUTSIDE = 1;
const NEITHER = -1;

/** Bindings that ran out are looked for this often, each slot once a minute: with the largest table that takes a fifth of a ms. */
const SWEEP_S = 0.1;
const SWEPT_WITHIN_S = 60;

export default defineMiddlebox({
  name: 'nat',
  help: 'Translates between private and public IPv4 addresses and ports.',
  modes: ['route'],

  options: {
    inside: option.port('port on the private side'),
    outside: option.port('port on the public side'),
    external: option.addresses('public IPv4 addresses to translate to, routed to this instance'),
    flows: option.count('bindings held at most', 1 << 18, { min: 64, max: 1 << 24 }),
    half_open: option.count('percent of them that may have shown a single packet: older ones give way to newer', 25, {
      min: 1,
      max: 100,
    }),
    half_open_records: option.count('such bindings told to other sites in a second, at most', 16_384, { min: 0 }),
    hold_members: option.count(
      'other sites that must have a new binding before its first packet leaves; 0: it leaves at once',
      0,
      { min: 0, max: 63 },
    ),
    hold_ms: option.count('milliseconds after which that packet leaves all the same', 100, { max: HOLD_MS_MAX }),
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
    half_open: 'dropped: a new binding beyond the quota of those with a single packet from inside',
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

  state(
    { external, flows, half_open, half_open_records, hold_members, first_port, last_port, allocation },
    { members },
  ) {
    if (hold_members >= members) throw new RangeError(`hold_members: ${hold_members} of ${members - 1} other members`);
    return {
      bindings: natBinding({
        addresses: external,
        flows,
        halfOpen: Math.ceil((flows * half_open) / 100),
        halfOpenRecords: half_open_records,
        portRange: { first: first_port, last: last_port },
        allocation,
      }),
    };
  },

  owns: ({ outside, external }) => [{ port: outside, addresses: external }],

  open({ options, state: { bindings }, batch, rewrites, holds, counters, every, draining }) {
    const { inside, outside, tcp_established, tcp_transitory, udp, icmp, hold_members, hold_ms } = options;
    const { port, egress, version, fragment, protocol, flags, source, destination, ports } = batch;
    // Packets are sorted by direction, and those of one direction looked up together, several times as fast as one by one.
    const from = bindings.outboundLookup(BATCH_CAPACITY);
    const to = bindings.inboundLookup(BATCH_CAPACITY);
    const fromInside = new Int32Array(BATCH_CAPACITY);
    const fromOutside = new Int32Array(BATCH_CAPACITY);
    const errors = new Int32Array(BATCH_CAPACITY);
    let outboundCount = 0;
    let inboundCount = 0;
    let errorCount = 0;
    const sides = new Int32Array(PORTS_MAX).fill(NEITHER);
    sides[outside] = OUTSIDE;
    sides[inside] = INSIDE;
    /** What the ICMP error at hand is about. */
    const quoted = new Quoted();

    /** Sorts the packets of the batch, and drops those that cannot be translated. */
    function sort(): void {
      let outbound = 0;
      let inbound = 0;
      errorCount = 0;
      for (let i = 0; i < batch.count; i++) {
        const side = sides[port[i]];
        if (egress[i] < 0 || side === NEITHER) continue;
        const carried = protocol[i];
        const isPlain = version[i] === 4 && fragment[i] === WHOLE && (carried === TCP || carried === UDP);
        if (!isPlain && !isQuery(i, side)) continue;
        // Put into both lists and kept in one: which, comes as a coin falls, and a branch guessed wrong costs more than this.
        fromInside[outbound] = i;
        from.addresses[outbound] = source[i];
        from.keys[outbound] = portAndProtocol(sourcePort(ports[i]), carried);
        fromOutside[inbound] = i;
        to.addresses[inbound] = destination[i];
        to.keys[inbound] = portAndProtocol(destinationPort(ports[i]), carried);
        outbound += 1 - side;
        inbound += side;
      }
      outboundCount = outbound;
      inboundCount = inbound;
    }

    /** Whether a packet is an ICMP query or its reply. Anything else is an error, to be seen to later, or dropped. */
    function isQuery(i: number, side: number): boolean {
      if (version[i] !== 4) batch.drop(i, counters.ipv6);
      else if (fragment[i] !== WHOLE) batch.drop(i, counters.fragment);
      else if (protocol[i] !== ICMP) batch.drop(i, counters.protocol);
      else if (isError(flags[i])) errors[errorCount++] = i;
      else if (isQueryTo(flags[i], side === INSIDE)) return true;
      else batch.drop(i, counters.icmp_other);
      return false;
    }

    function translateOutbound(now: number): void {
      let sent = 0;
      for (let n = 0; n < outboundCount; n++) {
        const i = fromInside[n];
        if (from.slots[n] !== NOBODY) refresh(i, from.slots[n], now);
        else if (!bind(i, n, now)) continue;
        rewrites.source(i, from.externalAddresses[n], from.externalPorts[n]);
        if (bindings.isExternal(destination[i])) hairpin(i, now);
        else {
          egress[i] = outside;
          sent++;
        }
      }
      batch.countMany(counters.outbound, sent);
    }

    function translateInbound(now: number): void {
      let sent = 0;
      for (let n = 0; n < inboundCount; n++) {
        const i = fromOutside[n];
        if (to.slots[n] === NOBODY && !boundBefore(i, n, now)) {
          batch.drop(i, to.places[n] === NOBODY ? counters.not_external : counters.unsolicited);
          continue;
        }
        rewrites.destination(i, to.internalAddresses[n], sourcePort(to.internalKeys[n]));
        egress[i] = inside;
        sent++;
      }
      batch.countMany(counters.inbound, sent);
    }

    /** Whether a place was bound since the batch was looked up: by a packet before packet `i`, the `n`-th from outside. */
    function boundBefore(i: number, n: number, now: number): boolean {
      const slot = bindings.findInbound(to.places[n], now);
      if (slot === NONE) return false;
      for (let m = 0; m < outboundCount; m++) {
        if (from.slots[m] !== slot) continue;
        if (fromInside[m] > i) return false;
        break;
      }
      to.internalAddresses[n] = bindings.internalAddress(slot);
      to.internalKeys[n] = bindings.internalPort(slot);
      return true;
    }

    function hairpin(i: number, now: number): void {
      const place = bindings.place(destination[i], destinationPort(ports[i]), protocol[i]);
      // Queries are answered by a host that owns an address: none owns the external ones.
      const slot = protocol[i] === ICMP ? NONE : bindings.findInbound(place, now);
      if (slot === NONE) return batch.drop(i, counters.unsolicited);
      rewriteDestination(batch, i, bindings.internalAddress(slot), bindings.internalPort(slot));
      batch.forward(i, inside);
      batch.count1(counters.hairpinned);
    }

    /**
     * An ICMP error passes to whom the packet it is about came from, that packet as the receiver knows it (RFC 5508
     * REQ-4, REQ-5), and leaves the binding as it is (REQ-6).
     */
    function error(i: number, now: number): void {
      const isFromInside = port[i] === inside;
      if (!quoted.find(batch, i)) return batch.drop(i, counters.icmp_error);
      if (isFromInside && !errorFromInside(i, now)) return batch.drop(i, counters.icmp_error);
      const place = bindings.place(quoted.source, sourcePort(quoted.ports), quoted.protocol);
      if (isFromInside && place === NONE) {
        batch.forward(i, outside);
        batch.count1(counters.outbound);
        return;
      }
      // From outside, or about a packet that was turned round (REQ-7).
      const slot = quoted.source === destination[i] ? bindings.findInbound(place, now) : NONE;
      if (slot === NONE) return batch.drop(i, counters.icmp_error);
      quoted.rewriteSource(bindings.internalAddress(slot), bindings.internalPort(slot));
      rewriteDestination(batch, i, bindings.internalAddress(slot), 0);
      batch.forward(i, inside);
      batch.count1(isFromInside ? counters.hairpinned : counters.inbound);
    }

    /** The packet it is about was sent to a binding of ours: it is so again, for the outside. False if there is none. */
    function errorFromInside(i: number, now: number): boolean {
      const key = portAndProtocol(destinationPort(quoted.ports), quoted.protocol);
      const hash = bindings.hash(quoted.destination, key);
      const slot = bindings.findOutbound(hash, quoted.destination, key, now);
      if (slot === NONE) return false;
      quoted.rewriteDestination(bindings.externalAddress(slot), bindings.externalPort(slot));
      rewriteSource(batch, i, bindings.externalAddress(slot), 0);
      return true;
    }

    /** Binds the `n`-th packet from inside. False when there is no binding to be had, and then the packet is dropped. */
    function bind(i: number, n: number, now: number): boolean {
      const slot = boundSlot(i, n, now);
      if (slot === NONE) return false;
      from.slots[n] = slot;
      from.externalAddresses[n] = bindings.externalAddress(slot);
      from.externalPorts[n] = bindings.externalPort(slot);
      return true;
    }

    function boundSlot(i: number, n: number, now: number): number {
      const address = from.addresses[n];
      const key = from.keys[n];
      const hash = from.hashes[n];
      const carried = protocol[i];
      // A packet before may have bound it since.
      const bound = bindings.findOutbound(hash, address, key, now);
      if (bound !== NONE) {
        refresh(i, bound, now);
        return bound;
      }
      if (draining()) batch.drop(i, counters.draining);
      else if (carried === TCP && (flags[i] & RST) !== 0) batch.drop(i, counters.stray);
      else {
        const slot = bindings.add(hash, address, key, now, now + timeoutOf(carried, Rank.NEW));
        if (slot === NONE) batch.drop(i, refused());
        else {
          batch.count1(counters.bound);
          holds.untilAcknowledged(i, hold_members, hold_ms);
        }
        return slot;
      }
      return NONE;
    }

    function refused(): number {
      switch (bindings.refusal) {
        case Refusal.TABLE_FULL:
          return counters.table_full;
        case Refusal.HALF_OPEN:
          return counters.half_open;
        case Refusal.LOG_FULL:
          return counters.log_full;
        case Refusal.CONTENDED:
          return counters.contended;
        default:
          return counters.exhausted;
      }
    }

    /** See the table at the head. */
    function refresh(i: number, slot: number, now: number): void {
      const before = bindings.rank(slot);
      if (protocol[i] !== TCP) {
        bindings.refresh(slot, ESTABLISHED, now, timeoutOf(protocol[i], ESTABLISHED));
        return;
      }
      const shown = flags[i];
      if ((shown & SYN) !== 0 && before >= CLOSING) {
        bindings.renew(slot, now, timeoutOf(TCP, NEW));
        return;
      }
      const rank = (shown & (FIN | RST)) !== 0 ? CLOSING : (shown & (ACK | SYN)) === ACK ? ESTABLISHED : NEW;
      const after = rank > before ? rank : before;
      bindings.refresh(slot, after, now, timeoutOf(TCP, after));
    }

    function timeoutOf(carried: number, rank: number): number {
      if (carried === UDP) return udp;
      if (carried === ICMP) return icmp;
      return rank === ESTABLISHED ? tcp_established : tcp_transitory;
    }

    // Without new bindings nobody else forgets the old.
    const swept = Math.ceil((2 * options.flows * SWEEP_S) / SWEPT_WITHIN_S);
    every(SWEEP_S, (now) => bindings.sweep(now, swept), { on: 'one' });

    return (_batch: Batch, now: number): void => {
      sort();
      from.find(outboundCount, now);
      to.find(inboundCount, now);
      translateOutbound(now);
      translateInbound(now);
      rewrites.apply();
      for (let n = 0; n < errorCount; n++) error(errors[n], now);
    };
  },
});

/** Queries go out and replies come in. */
function isQueryTo(type: number, fromInside: boolean): boolean {
  return fromInside
    ? type === IcmpType.ECHO || type === IcmpType.TIMESTAMP
    : type === IcmpType.ECHO_REPLY || type === IcmpType.TIMESTAMP_REPLY;
}
