/**
 * How state messages are sent and received. The sending and the receiving half run on different
 * threads and share nothing.
 *
 * A transport guarantees nothing: messages may be lost, duplicated, reordered or late. It counts
 * its errors and goes on.
 */

import type { Outlet } from '../replication/sending/outlet.js';

export interface SendTransport extends Outlet {
  /** Datagrams that the network refused so far. */
  readonly errors: number;
  open(): Promise<void>;
  close(): Promise<void>;
}

/**
 * Called for each datagram, with the address it came from. Its memory belongs to the transport and
 * is valid only during the call.
 */
export type OnDatagram = (datagram: Uint8Array, source: string) => void;

export interface ReceiveTransport {
  /** Errors of the sockets so far. */
  readonly errors: number;
  /** The receive buffer that the kernel granted, the smallest over the sockets, in bytes. */
  readonly bufferBytes: number;
  open(onDatagram: OnDatagram): Promise<void>;
  close(): Promise<void>;
}
