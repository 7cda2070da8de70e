/**
 * State messages by multicast: one group per state object, one datagram to all.
 *
 * A listener is bound to the group's address, so it hears that group alone; several instances on a host may listen on the
 * same port.
 */

import type { Socket } from 'node:dgram';
import type { Datagram } from '../replication/message.js';
import { datagramBytes, type MulticastSettings, type ReplicationSettings } from '../replication/settings.js';
import { DatagramPool, type PooledDatagram } from './datagram-pool.js';
import { bind, closeSocket, family, receiveBuffer, sendBuffer, udpSocket } from './sockets.js';
import type { OnDatagram, ReceiveTransport, SendTransport } from './transport.js';

const POOL_DATAGRAMS = 256;

/** Address of an object's group: the base address plus the object's id. Throws where that is no multicast address. */
export function groupOf(base: string, object: number): string {
  if (family(base) === 6) {
    const [address, zone] = base.split('%');
    const head = address.slice(0, address.lastIndexOf(':') + 1);
    const last = Number.parseInt(address.slice(head.length) || '0', 16) + object;
    if (!/^ff/i.test(address) || last > 0xffff || address.includes('.'))
      throw new RangeError(`group of object ${object} after ${base}: no IPv6 multicast address`);
    return `${head}${last.toString(16)}${zone === undefined ? '' : `%${zone}`}`;
  }
  const value = base.split('.').reduce((sum, byte) => sum * 256 + Number(byte), 0) + object;
  if (value < 0xe0000000 || value > 0xefffffff)
    throw new RangeError(`group of object ${object} after ${base}: not in 224.0.0.0 – 239.255.255.255`);
  return [24, 16, 8, 0].map((shift) => (value >>> shift) & 0xff).join('.');
}

export class MulticastSender implements SendTransport {
  private readonly settings: ReplicationSettings;
  private readonly multicast: MulticastSettings;
  private readonly groups: readonly string[];
  private readonly pool: DatagramPool;
  private socket: Socket | null = null;
  private socketErrors = 0;

  constructor(settings: ReplicationSettings, multicast: MulticastSettings, objects: number) {
    this.settings = settings;
    this.multicast = multicast;
    this.groups = Array.from({ length: objects }, (_, object) => groupOf(multicast.group, object));
    this.pool = new DatagramPool(POOL_DATAGRAMS, datagramBytes(settings));
  }

  get errors(): number {
    return this.pool.errors + this.socketErrors;
  }

  /** Throws when the interface is not this host's. */
  async open(): Promise<void> {
    const { multicast } = this;
    const socket = udpSocket(multicast.group);
    await bind(socket, undefined, 0);
    try {
      socket.setMulticastInterface(multicast.interface);
    } catch (error) {
      await closeSocket(socket);
      throw new Error(`cannot send multicast on interface ${multicast.interface}: no such address here`, {
        cause: error,
      });
    }
    socket.setMulticastTTL(multicast.ttl);
    socket.setMulticastLoopback(multicast.loopback);
    sendBuffer(socket, this.settings.sendBufferBytes);
    socket.on('error', () => {
      this.socketErrors++;
    });
    this.socket = socket;
  }

  claim(): Datagram | null {
    return this.pool.claim();
  }

  /** Always to the whole group: `member` only says for whom it is meant. */
  send(datagram: Datagram, bytes: number, object: number, _member: number): void {
    const pooled = datagram as PooledDatagram;
    pooled.pending = 1;
    const socket = this.socket as Socket;
    socket.send(pooled.bytes, 0, bytes, this.multicast.port, this.groups[object], pooled.onSent);
  }

  async close(): Promise<void> {
    if (this.socket !== null) await closeSocket(this.socket);
    this.socket = null;
  }
}

export class MulticastReceiver implements ReceiveTransport {
  errors = 0;
  bufferBytes = 0;
  private readonly settings: ReplicationSettings;
  private readonly multicast: MulticastSettings;
  private readonly groups: readonly string[];
  private sockets: Socket[] = [];

  constructor(settings: ReplicationSettings, multicast: MulticastSettings, objects: number) {
    this.settings = settings;
    this.multicast = multicast;
    this.groups = Array.from({ length: objects }, (_, object) => groupOf(multicast.group, object));
  }

  /** Throws when a group cannot be joined on the interface. */
  async open(onDatagram: OnDatagram): Promise<void> {
    const { multicast } = this;
    for (const group of this.groups) {
      const socket = udpSocket(group, true);
      this.sockets.push(socket);
      try {
        await bind(socket, group, multicast.port);
        socket.addMembership(group, multicast.interface);
      } catch (error) {
        await this.close();
        throw new Error(`cannot join group ${group} port ${multicast.port} on interface ${multicast.interface}`, {
          cause: error,
        });
      }
      const granted = receiveBuffer(socket, this.settings.receiveBufferBytes);
      this.bufferBytes = this.bufferBytes === 0 ? granted : Math.min(this.bufferBytes, granted);
      socket.on('error', () => {
        this.errors++;
      });
      socket.on('message', (datagram, { address }) => onDatagram(datagram, address));
    }
  }

  async close(): Promise<void> {
    const sockets = this.sockets;
    this.sockets = [];
    for (const socket of sockets) await closeSocket(socket);
  }
}
