/**
 * A batch: up to `BATCH_CAPACITY` packets, one column per property, made once per worker and
 * reused.
 *
 * Where a packet goes: a driver's `receive` fills the frame columns (`start`, `length`, `port`),
 * `parse` the header columns, the middleboxes decide `egress`, and the driver's `transmit` acts on
 * it.
 *
 * Addresses and ports are *raw*: the packet's bytes read as little-endian words, as they lie in
 * memory. Keys, hashes and checksum updates work on raw words; `packet/ipv4.ts` converts for
 * people.
 *
 * **What runs per packet is made once per data plane**, as closures over the batch:
 * `createParser(batch, …)`, the middleboxes' `open({ batch, … })`. A typed array that is a constant
 * of a function of which there is only one is a constant to V8's optimiser too: an access is a
 * comparison and a load, where of one that is an argument or a field of `this` it loads type,
 * length and address anew each time. A second data plane in a thread works all the same, at two to
 * three times the cost per packet, for both.
 */

import type { PacketMemory } from './packet/memory.js';

export const BATCH_CAPACITY = 64;

/** `egress` of a packet nobody sends on. */
export const DROPPED = -1;
/**
 * `egress` before any middlebox has decided, where no port is opposite to the one a packet came in
 * by.
 */
export const UNDECIDED = 0xffff;

export class Batch {
  count = 0;
  /**
   * Packets that the driver has back already, from the first on: see `transmitBefore` of the
   * driver.
   */
  handed = 0;
  /** Fragments among the packets, as `parse` found them. */
  fragments = 0;
  readonly memory: PacketMemory;

  // Frame columns, written by the driver.
  /** Byte offset of the Ethernet header in packet memory; 2 modulo 4. */
  readonly start = new Int32Array(BATCH_CAPACITY);
  /** Frame length in bytes, without FCS. */
  readonly length = new Int32Array(BATCH_CAPACITY);
  /** Port (index) the frame came in by. */
  readonly port = new Int32Array(BATCH_CAPACITY);

  // The decision, preset by `parse` to the opposite port, written by middleboxes.
  /** Port (index) the frame leaves by, or `DROPPED`; below `DROPPED`: see `bypass`. */
  readonly egress = new Int32Array(BATCH_CAPACITY);

  // Header columns, written by `parse`; meaningless for packets that a middlebox is not to look at
  // (`skips`).
  /** Byte offset of the IP header; 0 modulo 4. */
  readonly l3 = new Int32Array(BATCH_CAPACITY);
  /** Byte offset of the transport header; 0 modulo 4. */
  readonly l4 = new Int32Array(BATCH_CAPACITY);
  /** IP version: 4 or 6. */
  readonly version = new Int32Array(BATCH_CAPACITY);
  /** IP protocol number of the transport header. */
  readonly protocol = new Int32Array(BATCH_CAPACITY);
  /** Fragment state, see `packet/fragment.ts`. */
  readonly fragment = new Int32Array(BATCH_CAPACITY);
  /** Raw IPv4 addresses (IPv6: read them from the header at `l3`). */
  readonly source = new Int32Array(BATCH_CAPACITY);
  readonly destination = new Int32Array(BATCH_CAPACITY);
  /**
   * Raw port pair: source in the low half, destination in the high half. ICMP query: the identifier
   * in both. Of a later fragment those of its first (workers/fragments.ts).
   */
  readonly ports = new Int32Array(BATCH_CAPACITY);
  /**
   * The logical link of a wire that the packet is on: 0 is untagged. One VLAN tag: its id. Two: the
   * outer id times 4096, plus the inner id. More tags, or a PPPoE session: 24 bits mixed from them.
   * Always 0 in route mode, and with `vlans: together`.
   */
  readonly link = new Int32Array(BATCH_CAPACITY);
  /**
   * Byte offset of a length field before the IP header, of 802.3 or PPPoE: it counts the bytes
   * behind itself. 0: there is none.
   */
  readonly lengthAt = new Int32Array(BATCH_CAPACITY);
  /** TCP flags byte, 0 for other protocols and later fragments. ICMP: the type. */
  readonly flags = new Int32Array(BATCH_CAPACITY);

  /** The worker's row of counters. */
  private readonly counters: Float64Array;

  constructor(memory: PacketMemory, counters: Float64Array) {
    this.memory = memory;
    this.counters = counters;
  }

  /**
   * Whether packet `i` is not for a middlebox to look at: it is dropped, or bypasses the
   * middleboxes.
   */
  skips(i: number): boolean {
    return this.egress[i] < 0;
  }

  /** Drops packet `i` and counts why: `reason` is the column of a counter. */
  drop(i: number, reason: number): void {
    this.egress[i] = DROPPED;
    this.counters[reason]++;
  }

  /** Sends packet `i` on by `port`. */
  forward(i: number, port: number): void {
    this.egress[i] = port;
  }

  /**
   * Sends packet `i` on by `port` as it is, unseen by the middleboxes: the data plane's own
   * packets, and what is not IP.
   */
  bypass(i: number, port: number): void {
    this.egress[i] = DROPPED - 1 - port;
  }

  /** Port of a bypassing packet. */
  bypassPort(i: number): number {
    return DROPPED - 1 - this.egress[i];
  }

  /** Counts something that is not a drop. */
  count1(counter: number): void {
    this.counters[counter]++;
  }

  /** The same for several at once. */
  countMany(counter: number, by: number): void {
    this.counters[counter] += by;
  }
}
