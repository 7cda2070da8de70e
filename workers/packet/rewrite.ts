/**
 * Changes the endpoints of an IPv4 packet in place: address, port or query identifier, and every
 * checksum over them, incrementally (RFC 1624). A wrong checksum stays wrong, so the receiver still
 * detects damage.
 *
 *     protocol          checksum covers           what changes
 *     TCP, UDP          addresses and ports       address and port
 *     ICMP query        identifier                address and identifier
 *     UDP-Lite, DCCP    addresses and ports       address only; the port is ignored
 *     other             –                         address only; the port is ignored
 *
 * A first fragment is changed like a whole packet, because the checksum covers all fragments. In a
 * later fragment only the IP header changes: its transport header is in the first one.
 *
 * A UDP checksum of 0 means that there is none, and stays 0. If a new checksum is 0, 0xffff is sent
 * (RFC 768). The batch's columns are updated, so the next middlebox sees the current packet.
 */

import { BATCH_CAPACITY, type Batch } from './batch.js';
import { difference, difference16, update } from './checksum.js';
import { Fragment } from './fragment.js';
import { isQuery } from './icmp.js';

// Constants of this file: the optimiser folds those, but not imported ones.
const LATER = Fragment.LATER;
const TCP = 6;
const UDP = 17;
const ICMP = 1;
const DCCP = 33;
const UDP_LITE = 136;
const IP_CHECKSUM = 10;
const IP_SOURCE = 12;
const IP_DESTINATION = 16;
const TCP_CHECKSUM = 16;
const UDP_CHECKSUM = 6;
const ICMP_CHECKSUM = 2;
const ICMP_IDENTIFIER = 4;

// The end of a packet that changes.
const UNCHANGED = -1;
const SOURCE = 0;
const DESTINATION = 1;
/** Word index of the source address in an IPv4 header. The destination address follows it. */
const FIRST_ADDRESS = 3;

/**
 * Collects changes for packets of a batch and applies them in one pass, which costs a third of
 * applying them one by one. A packet can have one collected change. For more changes use
 * `rewriteSource` and `rewriteDestination`, which act at once.
 */
export interface Rewrites {
  /** Gives packet `i` another raw source address, and raw source port or query identifier. */
  source(i: number, address: number, port: number): void;
  /**
   * Gives packet `i` another raw destination address, and raw destination port or query identifier.
   */
  destination(i: number, address: number, port: number): void;
  /** Applies the changes collected since the last call. */
  apply(): void;
}

/** Made once per data plane: see the head of batch.ts. */
export function createRewrites(batch: Batch): Rewrites {
  const { l3, l4, protocol, fragment, source, destination, ports } = batch;
  const { i32, u16 } = batch.memory;
  // By packet: the end that changes, and its new values.
  const ends = new Int32Array(BATCH_CAPACITY).fill(UNCHANGED);
  const addresses = new Int32Array(BATCH_CAPACITY);
  const endPorts = new Int32Array(BATCH_CAPACITY);

  function noteSource(i: number, address: number, port: number): void {
    ends[i] = SOURCE;
    addresses[i] = address;
    endPorts[i] = port;
  }

  function noteDestination(i: number, address: number, port: number): void {
    ends[i] = DESTINATION;
    addresses[i] = address;
    endPorts[i] = port;
  }

  function apply(): void {
    for (let i = 0; i < batch.count; i++) {
      if (ends[i] === UNCHANGED) continue;
      if (protocol[i] === TCP && fragment[i] !== LATER) tcp(i, ends[i]);
      else other(i);
      ends[i] = UNCHANGED;
    }
  }

  /**
   * Does the work of `rewriteSource` or `rewriteDestination` for the most frequent case. Both ends
   * share the same code without a branch, because which end it is cannot be predicted, and a
   * mispredicted branch costs as much as the whole function.
   */
  function tcp(i: number, end: number): void {
    const address = addresses[i];
    const header = l3[i] >> 2;
    const word = header + FIRST_ADDRESS + end;
    const addressChange = difference(i32[word], address);
    i32[word] = address;
    const sum = (header << 1) + (IP_CHECKSUM >> 1);
    u16[sum] = update(u16[sum], addressChange);
    source[i] = i32[header + FIRST_ADDRESS];
    destination[i] = i32[header + FIRST_ADDRESS + 1];

    const shift = end << 4;
    const before = ports[i];
    const after = (before & ~(0xffff << shift)) | (endPorts[i] << shift);
    const transport = l4[i];
    const transportSum = (transport + TCP_CHECKSUM) >> 1;
    u16[transportSum] = update(u16[transportSum], addressChange + difference(before, after));
    i32[transport >> 2] = after;
    ports[i] = after;
  }

  function other(i: number): void {
    if (ends[i] === SOURCE) rewriteSource(batch, i, addresses[i], endPorts[i]);
    else rewriteDestination(batch, i, addresses[i], endPorts[i]);
  }

  return { source: noteSource, destination: noteDestination, apply };
}

/** Gives packet `i` another raw source address, and raw source port or query identifier. */
export function rewriteSource(batch: Batch, i: number, address: number, port: number): void {
  const change = difference(batch.source[i], address);
  batch.source[i] = address;
  rewriteAddress(batch, i, IP_SOURCE, address, change);
  const before = batch.ports[i];
  rewriteTransport(batch, i, change, before, (before & ~0xffff) | port, port);
}

/**
 * Gives packet `i` another raw destination address, and raw destination port or query identifier.
 */
export function rewriteDestination(batch: Batch, i: number, address: number, port: number): void {
  const change = difference(batch.destination[i], address);
  batch.destination[i] = address;
  rewriteAddress(batch, i, IP_DESTINATION, address, change);
  const before = batch.ports[i];
  rewriteTransport(batch, i, change, before, (before & 0xffff) | (port << 16), port);
}

function rewriteAddress(batch: Batch, i: number, at: number, address: number, change: number): void {
  const { i32, u16 } = batch.memory;
  const l3 = batch.l3[i];
  i32[(l3 + at) >> 2] = address;
  const sum = (l3 + IP_CHECKSUM) >> 1;
  u16[sum] = update(u16[sum], change);
}

function rewriteTransport(
  batch: Batch,
  i: number,
  addressChange: number,
  before: number,
  after: number,
  identifier: number,
): void {
  const { i32, u16 } = batch.memory;
  const l4 = batch.l4[i];
  const protocol = batch.protocol[i];
  if (batch.fragment[i] === LATER) {
    if (protocol === TCP || protocol === UDP) batch.ports[i] = after;
    else if (protocol === ICMP && isQuery(batch.flags[i])) batch.ports[i] = identifier | (identifier << 16);
    return;
  }
  if (protocol === TCP) {
    const sum = (l4 + TCP_CHECKSUM) >> 1;
    u16[sum] = update(u16[sum], addressChange + difference(before, after));
  } else if (protocol === UDP) {
    const sum = (l4 + UDP_CHECKSUM) >> 1;
    if (u16[sum] !== 0) {
      const updated = update(u16[sum], addressChange + difference(before, after));
      u16[sum] = updated === 0 ? 0xffff : updated;
    }
  } else {
    if (protocol === ICMP && isQuery(batch.flags[i])) rewriteIdentifier(batch, i, identifier);
    else if (protocol === UDP_LITE || protocol === DCCP) rewriteSum(batch, i, addressChange);
    return;
  }
  i32[l4 >> 2] = after;
  batch.ports[i] = after;
}

/**
 * The checksums of UDP-Lite and DCCP are where UDP's is, and cover the same pseudo header (RFC 3828
 * §3.1, RFC 4340 §9.1).
 */
function rewriteSum(batch: Batch, i: number, addressChange: number): void {
  const { u16 } = batch.memory;
  const sum = (batch.l4[i] + UDP_CHECKSUM) >> 1;
  const updated = update(u16[sum], addressChange);
  u16[sum] = updated === 0 && batch.protocol[i] === UDP_LITE ? 0xffff : updated;
}

/** ICMP checksums cover no addresses (RFC 792). */
function rewriteIdentifier(batch: Batch, i: number, identifier: number): void {
  const { u16 } = batch.memory;
  const l4 = batch.l4[i];
  const sum = (l4 + ICMP_CHECKSUM) >> 1;
  u16[sum] = update(u16[sum], difference16(batch.ports[i], identifier));
  u16[(l4 + ICMP_IDENTIFIER) >> 1] = identifier;
  batch.ports[i] = identifier | (identifier << 16);
}
