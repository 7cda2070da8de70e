/** Frames of the middleboxes' benchmarks: UDP without a checksum, and what answers it. */

import { frame } from '../workers/support/frames.js';
import { FRAME_BYTES } from './flow-driver.js';

/** 60 bytes between these ends: `ADDRESS:PORT > ADDRESS:PORT`. */
export function udp(ends: string): Uint8Array {
  return frame(`udp ${ends} len ${FRAME_BYTES - 42} nosum`);
}

/**
 * What answers a packet that came out: its ends exchanged, in a frame to the station that `request`
 * was to.
 */
export function answer(out: Uint8Array, request: Uint8Array): Uint8Array {
  const bytes = Uint8Array.from(out);
  bytes.set(request.subarray(0, 12), 0);
  bytes.set(out.subarray(30, 34), 26);
  bytes.set(out.subarray(26, 30), 30);
  bytes.set(out.subarray(36, 38), 34);
  bytes.set(out.subarray(34, 36), 36);
  return bytes;
}
