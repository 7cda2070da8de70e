/**
 * A batch: up to `BATCH_CAPACITY` packets, one column per property. Each worker makes one and
 * reuses it.
 *
 * The life of a packet: a driver's `receive` fills the frame columns (`start`, `length`, `port`),
 * `parse` fills the header columns, the middleboxes decide `egress`, and the driver's `transmit`
 * acts on it.
 *
 * Addresses and ports are *raw*: the packet's bytes read as little-endian words, as they lie in
 * memory. Keys, hashes and checksum updates work on raw words. `packet/ipv4.ts` converts them to
 * text.
 *
 * **Everything that runs per packet is made once per data plane**, as closures over the batch:
 * `createParser(batch, …)`, the middleboxes' `open({ batch, … })`. If a function has only one
 * instance, V8's optimiser treats a typed array that is constant in it as a constant too. An access
 * is then a comparison and a load. If the array is an argument or a field of `this`, every access
 * loads its type, length and address again. A second data plane in the same thread still works, but
 * both then cost two to three times as much per packet.
 */

import type { PacketMemory } from './memory.js';

export const BATCH_CAPACITY = 64;

/** `egress` of a packet that is not sent. */
export const DROPPED = -1;
/** `egress` before any middlebox has decided, if the arrival port has no opposite port. */
export const UNDECIDED = 0xffff;

export class Batch {
  count = 0;
  /**
   * Number of packets, from the first on, that the driver has already taken back (`transmitBefore`
   * of the driver).
   */
  handed = 0;
  /** Number of fragments among the packets, as `parse` found them. */
  fragments = 0;
  readonly memory: PacketMemory;

  // Frame columns, written by the driver.
  /** Byte offset of the Ethernet header in packet memory; 2 modulo 4. */
  readonly start = new Int32Array(BATCH_CAPACITY);
  /** Frame length in bytes, without FCS. */
  readonly length = new Int32Array(BATCH_CAPACITY);
  /** Port (index) that the frame arrived by. */
  readonly port = new Int32Array(BATCH_CAPACITY);

  // The decision. `parse` presets it to the opposite port, and middleboxes change it.
  /**
   * Port (index) that the frame leaves by, or `DROPPED`. For values below `DROPPED` see `bypass`.
   */
  readonly egress = new Int32Array(BATCH_CAPACITY);

  // Header columns, written by `parse`. They are meaningless for packets that a middlebox must
  // ignore (`skips`).
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
  /** Raw IPv4 addresses. For IPv6, read the addresses from the header at `l3`. */
  readonly source = new Int32Array(BATCH_CAPACITY);
  readonly destination = new Int32Array(BATCH_CAPACITY);
  /**
   * Raw port pair: source in the low half, destination in the high half. ICMP query: the identifier
   * in both halves. A later fragment has the ports of its datagram's first fragment
   * (workers/plane/fragments.ts).
   */
  readonly ports = new Int32Array(BATCH_CAPACITY);
  /**
   * The logical link of a wire that the packet is on. Untagged: 0. One VLAN tag: its id. Two tags:
   * the outer id times 4096, plus the inner id. More tags, or a PPPoE session: 24 bits mixed from
   * them. Always 0 in route mode and with `vlans: together`.
   */
  readonly link = new Int32Array(BATCH_CAPACITY);
  /**
   * Byte offset of a length field before the IP header (802.3 or PPPoE), which counts the bytes
   * after itself. 0: no such field.
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

  /** Whether middleboxes must ignore packet `i`: it is dropped, or bypasses them. */
  skips(i: number): boolean {
    return this.egress[i] < 0;
  }

  /** Drops packet `i` and counts it. `reason` is the column of a counter. */
  drop(i: number, reason: number): void {
    this.egress[i] = DROPPED;
    this.counters[reason]++;
  }

  /** Sends packet `i` by `port`. */
  forward(i: number, port: number): void {
    this.egress[i] = port;
  }

  /**
   * Sends packet `i` by `port` unchanged, hidden from the middleboxes that follow. Used for the
   * data plane's own packets and for frames that are not IP.
   */
  bypass(i: number, port: number): void {
    this.egress[i] = DROPPED - 1 - port;
  }

  /** Port of a packet that bypasses the middleboxes. */
  bypassPort(i: number): number {
    return DROPPED - 1 - this.egress[i];
  }

  /** Counts one event that is not a drop. */
  count1(counter: number): void {
    this.counters[counter]++;
  }

  /** Counts several events that are not drops. */
  countMany(counter: number, by: number): void {
    this.counters[counter] += by;
  }
}
