/**
 * Keys of the connection table: the same for both directions. The smaller end comes first, by raw address, then by port; which
 * of the two a packet comes from is its *side*, 0 or 1.
 */

import type { Batch, Quoted } from '../../api.js';

export interface FlowKeys {
  /** Writes the key of packet `i` into `out[at …]`; returns its side. */
  ipv4(i: number, out: Int32Array, at: number): number;
  ipv6(i: number, out: Int32Array, at: number): number;
}

/** In words. */
const SOURCE = 2;
const DESTINATION = 6;

/** Made once per worker: see the head of batch.ts. */
export function createFlowKeys(batch: Batch): FlowKeys {
  const { l3, source, destination, ports, protocol } = batch;
  const { i32 } = batch.memory;

  function ipv4(i: number, out: Int32Array, at: number): number {
    const from = source[i];
    const to = destination[i];
    const pair = ports[i];
    const side = from > to || (from === to && (pair & 0xffff) > pair >>> 16) ? 1 : 0;
    out[at] = side === 0 ? from : to;
    out[at + 1] = side === 0 ? to : from;
    out[at + 2] = side === 0 ? pair : (pair << 16) | (pair >>> 16);
    out[at + 3] = protocol[i];
    return side;
  }

  function ipv6(i: number, out: Int32Array, at: number): number {
    const header = l3[i] >> 2;
    let n = 0;
    while (n < 3 && i32[header + SOURCE + n] === i32[header + DESTINATION + n]) n++;
    const difference = i32[header + SOURCE + n] - i32[header + DESTINATION + n];
    const pair = ports[i];
    const side = difference > 0 || (difference === 0 && (pair & 0xffff) > pair >>> 16) ? 1 : 0;
    const first = header + (side === 0 ? SOURCE : DESTINATION);
    const second = header + (side === 0 ? DESTINATION : SOURCE);
    for (let word = 0; word < 4; word++) {
      out[at + word] = i32[first + word];
      out[at + 4 + word] = i32[second + word];
    }
    out[at + 8] = side === 0 ? pair : (pair << 16) | (pair >>> 16);
    out[at + 9] = protocol[i];
    return side;
  }

  return { ipv4, ipv6 };
}

/** The key of the connection a quoted packet is of, in the form of the above. `scratch` holds 10 words. */
export function quotedKey(quoted: Quoted, scratch: Int32Array): void {
  const words = quoted.version === 4 ? 1 : 4;
  quoted.key(scratch, 0);
  const pair = scratch[2 * words];
  let n = 0;
  while (n < words - 1 && scratch[n] === scratch[words + n]) n++;
  const difference = scratch[n] - scratch[words + n];
  if (difference > 0 || (difference === 0 && (pair & 0xffff) > pair >>> 16)) quoted.replyKey(scratch, 0);
}
