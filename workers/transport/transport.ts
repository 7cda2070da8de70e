/**
 * How state messages travel. The sending and the receiving half live on different threads and share
 * nothing.
 *
 * A transport gives no promise: messages may be lost, doubled, reordered or late. It counts its
 * errors and goes on.
 */

import type { Outlet } from '../replication/channel.js';

export interface SendTransport extends Outlet {
  /** Datagrams the network refused, so far. */
  readonly errors: number;
  open(): Promise<void>;
  close(): Promise<void>;
}

/**
 * Called for each datagram, with the address it came from; its memory is the transport's, only good
 * during the call.
 */
export type OnDatagram = (datagram: Uint8Array, source: string) => void;

export interface ReceiveTransport {
  /** Errors of the sockets, so far. */
  readonly errors: number;
  /** Receive buffer the kernel granted, the smallest over the sockets, in bytes. */
  readonly bufferBytes: number;
  open(onDatagram: OnDatagram): Promise<void>;
  close(): Promise<void>;
}
