/**
 * State messages by multicast: one group per state object, one datagram to all members. A message
 * for one member is sent to that member's address and port by unicast, so no other member receives
 * it.
 *
 * A listener is bound to the group's address, so it hears that group alone. Several instances on a
 * host may listen on the same port.
 *
 * Group memberships and the sending interface are tied to an interface's index. If the interface is
 * deleted and created again, the kernel keeps neither for the new one. So both are set again every
 * `REJOIN_MS`, which changes nothing while the interface stays.
 */

import type { Socket } from 'node:dgram';
import { EVERYONE } from '../replication/sending/outlet.js';
import { datagramBytes, type MulticastSettings, type ReplicationSettings } from '../replication/settings.js';
import type { Datagram } from '../replication/wire/message.js';
import { DatagramPool, type PooledDatagram } from './datagram-pool.js';
import { bind, closeSocket, family, receiveBuffer, sendBuffer, udpSocket } from './sockets.js';
import type { OnDatagram, ReceiveTransport, SendTransport } from './transport.js';
import { UnicastReceiver, UnicastSender } from './unicast.js';

const POOL_DATAGRAMS = 256;
const REJOIN_MS = 1000;

/**
 * The address of an object's group: the base address plus the object's id. Throws a `RangeError` if
 * that is no multicast address.
 */
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

/**
 * Joins a group on an interface. Returns false if the socket is already a member, or if the
 * interface does not exist.
 */
function isNew(socket: Socket, group: string, by: string): boolean {
  try {
    socket.addMembership(group, by);
    return true;
  } catch {
    return false;
  }
}

export class MulticastSender implements SendTransport {
  private readonly settings: ReplicationSettings;
  private readonly multicast: MulticastSettings;
  private readonly groups: readonly string[];
  private readonly pool: DatagramPool;
  /** For messages to one member. */
  private readonly unicast: UnicastSender;
  private socket: Socket | null = null;
  private timer: NodeJS.Timeout | undefined;
  private socketErrors = 0;

  /** `members`: the member table; absent: the members in the settings, which never change. */
  constructor(
    settings: ReplicationSettings,
    multicast: MulticastSettings,
    objects: number,
    members?: SharedArrayBuffer,
  ) {
    this.settings = settings;
    this.multicast = multicast;
    this.groups = Array.from({ length: objects }, (_, object) => groupOf(multicast.group, object));
    this.pool = new DatagramPool(POOL_DATAGRAMS, datagramBytes(settings));
    this.unicast = new UnicastSender(settings, members, this.pool);
  }

  /** The unicast sender also counts the errors of the shared pool. */
  get errors(): number {
    return this.unicast.errors + this.socketErrors;
  }

  /** Throws if the interface does not belong to this host. */
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
    try {
      await this.unicast.open();
    } catch (error) {
      await closeSocket(socket);
      throw error;
    }
    this.socket = socket;
    this.timer = setInterval(() => this.chooseInterface(socket), REJOIN_MS).unref();
  }

  private chooseInterface(socket: Socket): void {
    try {
      socket.setMulticastInterface(this.multicast.interface);
    } catch {
      // The interface does not exist now. What is sent meanwhile is counted as errors.
    }
  }

  claim(): Datagram | null {
    return this.pool.claim();
  }

  /** Sends to the object's group, or to one member. */
  send(datagram: Datagram, bytes: number, object: number, member: number, spareLow: number, spareHigh: number): void {
    if (member !== EVERYONE) {
      this.unicast.send(datagram, bytes, object, member, spareLow, spareHigh);
      return;
    }
    const pooled = datagram as PooledDatagram;
    pooled.pending = 1;
    const socket = this.socket as Socket;
    socket.send(pooled.bytes, 0, bytes, this.multicast.port, this.groups[object], pooled.onSent);
  }

  async close(): Promise<void> {
    clearInterval(this.timer);
    await this.unicast.close();
    if (this.socket !== null) await closeSocket(this.socket);
    this.socket = null;
  }
}

export class MulticastReceiver implements ReceiveTransport {
  bufferBytes = 0;
  private groupErrors = 0;
  /** For messages to this member alone. */
  private readonly unicast: UnicastReceiver;
  private readonly settings: ReplicationSettings;
  private readonly multicast: MulticastSettings;
  private readonly groups: readonly string[];
  private sockets: Socket[] = [];
  private timer: NodeJS.Timeout | undefined;
  private isRejoining = false;

  constructor(settings: ReplicationSettings, multicast: MulticastSettings, objects: number) {
    this.settings = settings;
    this.multicast = multicast;
    this.groups = Array.from({ length: objects }, (_, object) => groupOf(multicast.group, object));
    this.unicast = new UnicastReceiver(settings);
  }

  get errors(): number {
    return this.groupErrors + this.unicast.errors;
  }

  /**
   * Throws if a group cannot be joined on the interface, or if this member's address and port
   * cannot be used.
   */
  async open(onDatagram: OnDatagram): Promise<void> {
    try {
      await this.unicast.open(onDatagram);
      this.bufferBytes = this.unicast.bufferBytes;
      for (const group of this.groups) this.sockets.push(await this.listen(group, onDatagram));
    } catch (error) {
      await this.close();
      throw error;
    }
    this.timer = setInterval(() => void this.rejoin(onDatagram), REJOIN_MS).unref();
  }

  /** Opens a socket that hears a group. Throws if the group cannot be joined on the interface. */
  private async listen(group: string, onDatagram: OnDatagram): Promise<Socket> {
    const { multicast } = this;
    const socket = udpSocket(group, true);
    try {
      await bind(socket, group, multicast.port);
      socket.addMembership(group, multicast.interface);
    } catch (error) {
      await closeSocket(socket);
      throw new Error(`cannot join group ${group} port ${multicast.port} on interface ${multicast.interface}`, {
        cause: error,
      });
    }
    const granted = receiveBuffer(socket, this.settings.receiveBufferBytes);
    this.bufferBytes = Math.min(this.bufferBytes, granted);
    socket.on('error', () => {
      this.groupErrors++;
    });
    socket.on('message', (datagram, { address }) => onDatagram(datagram, address));
    return socket;
  }

  private async rejoin(onDatagram: OnDatagram): Promise<void> {
    if (this.isRejoining) return;
    this.isRejoining = true;
    for (const [n, group] of this.groups.entries()) {
      const { sockets } = this;
      if (n >= sockets.length) break; // closed meanwhile
      if (isNew(sockets[n], group, this.multicast.interface)) await this.replace(n, group, onDatagram);
    }
    this.isRejoining = false;
  }

  /**
   * Opens a new socket for a group. The old one keeps its former memberships, of which the kernel
   * allows few.
   */
  private async replace(n: number, group: string, onDatagram: OnDatagram): Promise<void> {
    const { sockets } = this;
    const socket = await this.listen(group, onDatagram).catch(() => null);
    if (socket === null) return; // gone again
    if (this.sockets !== sockets) await closeSocket(socket);
    else {
      const former = sockets[n];
      sockets[n] = socket;
      await closeSocket(former);
    }
  }

  async close(): Promise<void> {
    clearInterval(this.timer);
    await this.unicast.close();
    const sockets = this.sockets;
    this.sockets = [];
    for (const socket of sockets) await closeSocket(socket);
  }
}
