/**
 * State messages by unicast: one datagram to each member it is for. For clouds and the internet, which route no multicast.
 *
 * We listen on our member's address and port and send from a port of the kernel's choice: two threads cannot share one.
 * A message is known by the sender it names, not by its source address.
 */

import type { Socket } from 'node:dgram';
import type { Datagram } from '../replication/message.js';
import { EVERYONE } from '../replication/send-channel.js';
import { type Member, messageBytes, type ReplicationSettings, selfIndex } from '../replication/settings.js';
import { DatagramPool, type PooledDatagram } from './datagram-pool.js';
import { bind, closeSocket, family, receiveBuffer, sendBuffer, udpSocket } from './sockets.js';
import type { OnDatagram, ReceiveTransport, SendTransport } from './transport.js';

const POOL_DATAGRAMS = 256;

export class UnicastSender implements SendTransport {
  private readonly settings: ReplicationSettings;
  private readonly pool: DatagramPool;
  private readonly self: number;
  private readonly sockets = new Map<4 | 6, Socket>();
  private socketErrors = 0;

  constructor(settings: ReplicationSettings) {
    this.settings = settings;
    this.pool = new DatagramPool(POOL_DATAGRAMS, messageBytes(settings));
    this.self = selfIndex(settings);
  }

  get errors(): number {
    return this.pool.errors + this.socketErrors;
  }

  async open(): Promise<void> {
    for (const member of this.settings.members) {
      const version = family(member.address);
      if (this.sockets.has(version)) continue;
      const socket = udpSocket(member.address);
      await bind(socket, undefined, 0);
      sendBuffer(socket, this.settings.sendBufferBytes);
      socket.on('error', () => {
        this.socketErrors++;
      });
      this.sockets.set(version, socket);
    }
  }

  claim(): Datagram | null {
    return this.pool.claim();
  }

  send(datagram: Datagram, bytes: number, _object: number, member: number): void {
    const pooled = datagram as PooledDatagram;
    const { members } = this.settings;
    if (member !== EVERYONE) {
      pooled.pending = 1;
      this.sendTo(pooled, bytes, members[member]);
      return;
    }
    pooled.pending = members.length - 1;
    for (let i = 0; i < members.length; i++) if (i !== this.self) this.sendTo(pooled, bytes, members[i]);
  }

  async close(): Promise<void> {
    for (const socket of this.sockets.values()) await closeSocket(socket);
    this.sockets.clear();
  }

  private sendTo(datagram: PooledDatagram, bytes: number, member: Member): void {
    const socket = this.sockets.get(family(member.address)) as Socket;
    socket.send(datagram.bytes, 0, bytes, member.port, member.address, datagram.onSent);
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

  /** Throws when the address is not this host's, or the port is taken. */
  async open(onDatagram: OnDatagram): Promise<void> {
    const { address, port, name } = this.settings.members[selfIndex(this.settings)];
    const socket = udpSocket(address);
    try {
      await bind(socket, address, port);
    } catch (error) {
      await closeSocket(socket);
      const why =
        (error as NodeJS.ErrnoException).code === 'EADDRNOTAVAIL'
          ? 'no interface here has this address; see `ip address` and cluster.members'
          : (error as Error).message;
      throw new Error(`cannot listen for state messages on ${address} port ${port}, the address of ${name}: ${why}`, {
        cause: error,
      });
    }
    this.bufferBytes = receiveBuffer(socket, this.settings.receiveBufferBytes);
    socket.on('error', () => {
      this.errors++;
    });
    socket.on('message', onDatagram);
    this.socket = socket;
  }

  async close(): Promise<void> {
    if (this.socket !== null) await closeSocket(this.socket);
    this.socket = null;
  }
}
