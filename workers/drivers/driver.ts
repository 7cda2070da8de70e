/**
 * Packet I/O as the data plane sees it: one driver per worker, over all of the worker's ports,
 * which share one packet memory, so that a frame received on one port is sent on another without a
 * copy.
 *
 * A frame belongs to the driver, except between `receive` and `transmit`, when it belongs to the
 * batch. Every frame received is given back by exactly one `transmit`, sent or dropped.
 */

import type { Batch } from '../batch.js';
import type { PacketMemory } from '../packet/memory.js';

export interface PacketDriver {
  readonly memory: PacketMemory;

  /**
   * Fills an empty batch's frame columns; returns how many came. Takes turns between ports. Never
   * waits.
   */
  receive(batch: Batch): number;

  /**
   * Sends every packet of the batch by its `egress` port and takes back the rest; empties the
   * batch. What cannot be sent (ring full) is taken back and counted. One kick per port at most.
   */
  transmit(batch: Batch): void;

  /**
   * Sends or takes back the packets before packet `end`, ahead of `transmit`, which sees to the
   * rest. What `send` sends afterwards leaves behind them.
   */
  transmitBefore(batch: Batch, end: number): void;

  /** Whether `send` on a port succeeds this many times from now on. */
  hasRoom(port: number, frames: number): boolean;

  /**
   * Sends a copy of a frame that is not one of a batch, with the next `transmit`: `length` bytes of
   * `frames` from `at` on, as many as a chunk of the memory has at most. Returns false where there
   * is no room for it just now.
   */
  send(port: number, frames: Uint8Array, at: number, length: number): boolean;

  /**
   * Adds a copy of a frame to a batch, as if it had just come by `port`: `length` bytes of `frames`
   * from `at` on, of a frame that this driver received. The batch has room for it. Returns false
   * where there is no memory for it just now.
   */
  insert(batch: Batch, port: number, frames: Uint8Array, at: number, length: number): boolean;

  /**
   * Waits until a packet may have come, the driver is woken, or `timeoutMs` is over. Blocks the
   * thread.
   */
  wait(timeoutMs: number): void;

  /** Whether no packet will ever come again (a capture file at its end). */
  readonly exhausted: boolean;

  /** Gives back everything: sockets, files, links. */
  close(): void;
}
