/**
 * State messages by unicast: one datagram to each member that the message is for. For clouds and
 * the internet, which do not route multicast.
 *
 * The receiver listens on this member's address and port. The sender uses that address and a port
 * that the kernel chooses, because two threads cannot share one. A message is identified by the
 * sender it names, not by its source address. The members follow the member table. All have
 * addresses of the same family as ours.
 */

import type { Socket } from 'node:dgram';
import { MemberTable } from '../../shm/members.js';
import { EVERYONE } from '../replication/sending/outlet.js';
import {
  datagramBytes,
  memberTableOf,
  ownMember,
  type ReplicationSettings,
  selfIndex,
} from '../replication/settings.js';
import type { Datagram } from '../replication/wire/message.js';
import { DatagramPool, type PooledDatagram } from './datagram-pool.js';
import { bind, closeSocket, receiveBuffer, sendBuffer, udpSocket } from './sockets.js';
import type { OnDatagram, ReceiveTransport, SendTransport } from './transport.js';

const POOL_DATAGRAMS = 256;

/**
 * Binds a socket to this member's address; `port` 0: the kernel chooses the port. If it throws, it
 * has closed the socket.
 */
async function bindOwn(socket: Socket, settings: ReplicationSettings, what: string, port: number): Promise<void> {
  const { address, name } = ownMember(settings);
  try {
    await bind(socket, address, port);
  } catch (error) {
    await closeSocket(socket);
    const why =
      (error as NodeJS.ErrnoException).code === 'EADDRNOTAVAIL'
        ? 'no interface here has this address; see `ip address` and cluster.members'
        : (error as Error).message;
    const where = port === 0 ? address : `${address} port ${port}`;
    throw new Error(`cannot ${what} state messages on ${where}, the address of ${name}: ${why}`, { cause: error });
  }
}

export class UnicastSender implements SendTransport {
  private readonly settings: ReplicationSettings;
  private readonly pool: DatagramPool;
  private readonly self: number;
  private readonly members: MemberTable;
  private socket: Socket | null = null;
  private socketErrors = 0;

  /**
   * `members`: the member table; absent: the members in the settings, which never change. `pool`:
   * the pool that the sent datagrams come from.
   */
  constructor(
    settings: ReplicationSettings,
    members: SharedArrayBuffer = memberTableOf(settings),
    pool: DatagramPool = new DatagramPool(POOL_DATAGRAMS, datagramBytes(settings)),
  ) {
    this.settings = settings;
    this.members = new MemberTable(members);
    this.pool = pool;
    this.self = selfIndex(settings);
  }

  get errors(): number {
    return this.pool.errors + this.socketErrors;
  }

  async open(): Promise<void> {
    const { address } = ownMember(this.settings);
    const socket = udpSocket(address);
    // Send from the address that the peers know: they report refused datagrams by source address.
    await bindOwn(socket, this.settings, 'send', 0);
    sendBuffer(socket, this.settings.sendBufferBytes);
    socket.on('error', () => {
      this.socketErrors++;
    });
    this.socket = socket;
  }

  claim(): Datagram | null {
    return this.pool.claim();
  }

  send(datagram: Datagram, bytes: number, _object: number, member: number, spareLow: number, spareHigh: number): void {
    const pooled = datagram as PooledDatagram;
    const { members } = this;
    members.refresh();
    const first = member === EVERYONE ? 0 : member;
    const last = member === EVERYONE ? members.slots - 1 : member;
    let copies = 0;
    for (let slot = first; slot <= last; slot++) if (this.isFor(slot, spareLow, spareHigh)) copies++;
    pooled.pending = copies;
    if (copies === 0) this.pool.release(pooled);
    else
      for (let slot = first; slot <= last; slot++)
        if (this.isFor(slot, spareLow, spareHigh)) {
          const socket = this.socket as Socket;
          socket.send(pooled.bytes, 0, bytes, members.port(slot), members.address(slot), pooled.onSent);
        }
  }

  private isFor(slot: number, spareLow: number, spareHigh: number): boolean {
    const spare = ((slot < 32 ? spareLow : spareHigh) >>> (slot & 31)) & 1;
    return spare === 0 && slot !== this.self && this.members.isMember(slot);
  }

  async close(): Promise<void> {
    if (this.socket !== null) await closeSocket(this.socket);
    this.socket = null;
  }
}

export class UnicastReceiver implements ReceiveTransport {
  errors = 0;
  bufferBytes = 0;
  private readonly settings: ReplicationSettings;
  private socket: Socket | null = null;

  constructor(settings: ReplicationSettings) {
    this.settings = settings;
  }

  /** Throws if the address does not belong to this host, or if the port is taken. */
  async open(onDatagram: OnDatagram): Promise<void> {
    const { address, port } = ownMember(this.settings);
    const socket = udpSocket(address);
    await bindOwn(socket, this.settings, 'listen for', port);
    this.bufferBytes = receiveBuffer(socket, this.settings.receiveBufferBytes);
    socket.on('error', () => {
      this.errors++;
    });
    socket.on('message', (datagram, { address }) => onDatagram(datagram, address));
    this.socket = socket;
  }

  async close(): Promise<void> {
    if (this.socket !== null) await closeSocket(this.socket);
    this.socket = null;
  }
}
