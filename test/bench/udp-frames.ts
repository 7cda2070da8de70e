/** Frames of the middlebox benchmarks: UDP without a checksum, and its replies. */

import { frame } from '../workers/support/frames.js';
import { FRAME_BYTES } from './flow-driver.js';

/** A frame of 60 bytes between these ends: `ADDRESS:PORT > ADDRESS:PORT`. */
export function udp(ends: string): Uint8Array {
  return frame(`udp ${ends} len ${FRAME_BYTES - 42} nosum`);
}

/**
 * The reply to a packet that was sent: its ends are exchanged, in a frame to the station that
 * `request` was addressed to.
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
