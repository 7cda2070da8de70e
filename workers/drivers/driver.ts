/**
 * Packet I/O as the data plane sees it. Each worker has one driver over all of its ports. The ports
 * share one packet memory, so a frame received on one port is sent on another without a copy.
 *
 * A frame belongs to the driver, except between `receive` and `transmit`, when it belongs to the
 * batch. Every received frame is given back by exactly one `transmit`, whether it is sent or
 * dropped.
 */

import type { Batch } from '../packet/batch.js';
import type { PacketMemory } from '../packet/memory.js';

export interface PacketDriver {
  readonly memory: PacketMemory;

  /**
   * Fills an empty batch's frame columns. Returns the number of frames. Takes turns between ports.
   * Never waits.
   */
  receive(batch: Batch): number;

  /**
   * Sends every packet of the batch by its `egress` port, takes back the others, and empties the
   * batch. A packet that cannot be sent (ring full) is taken back and counted. At most one kick per
   * port.
   */
  transmit(batch: Batch): void;

  /**
   * Sends or takes back the packets before packet `end`. `transmit` later handles the rest. Frames
   * given to `send` afterwards leave after these packets.
   */
  transmitBefore(batch: Batch, end: number): void;

  /** Whether the next `frames` calls of `send` on a port will succeed. */
  hasRoom(port: number, frames: number): boolean;

  /**
   * Sends a copy of a frame that is not in a batch, with the next `transmit`: `length` bytes of
   * `frames` from `at` on, at most the room that `memory` has for a frame. Returns false if there
   * is no room now.
   */
  send(port: number, frames: Uint8Array, at: number, length: number): boolean;

  /**
   * Adds a copy of a frame to a batch, as if it had just arrived by `port`: `length` bytes of
   * `frames` from `at` on. The frame must be one that this driver received, and the batch must have
   * room. Returns false if there is no memory now.
   */
  insert(batch: Batch, port: number, frames: Uint8Array, at: number, length: number): boolean;

  /**
   * Blocks the thread until a packet may have arrived, the driver is woken, or `timeoutMs` is over.
   */
  wait(timeoutMs: number): void;

  /** Whether no packet will ever arrive again (a capture file at its end). */
  readonly exhausted: boolean;

  /** Releases everything: sockets, files, links. */
  close(): void;
}
