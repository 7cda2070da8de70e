/**
 * Interfaces and addresses from the kernel, by rtnetlink (man 7 rtnetlink). It reports that
 * something changed, and lists this host's addresses. The list includes interfaces that are down,
 * which Node's `networkInterfaces` leaves out.
 */

import type { RawAddress } from '../../shm/next-hops.js';
import {
  closeDescriptor,
  isNativeError,
  netlinkOpen,
  netlinkReceive,
  netlinkSend,
} from '../../workers/native/index.js';

/** linux/rtnetlink.h, linux/netlink.h. */
const Group = { LINK: 0x1, IPV4_ADDRESSES: 0x10, IPV6_ADDRESSES: 0x100 } as const;
const Type = { ERROR: 2, DONE: 3, DELLINK: 17, NEWADDR: 20, GETADDR: 22 } as const;
const Flag = { REQUEST: 1, DUMP: 0x300, DUMP_INTERRUPTED: 0x10 } as const;
const Attribute = { ADDRESS: 1, LOCAL: 2 } as const;
const AF_INET = 2;
const AF_INET6 = 10;

/** struct nlmsghdr. */
const HEADER = { length: 0, type: 4, flags: 6, bytes: 16 } as const;
/** struct ifinfomsg and struct ifaddrmsg, after the header. */
const LINK = { family: 16, index: 20, bytes: 32 } as const;
const ADDRESS = { family: 16, prefix: 17, index: 20, bytes: 24 } as const;
const ATTRIBUTE_BYTES = 4;

/** Datagrams per read at most, so that many changes do not keep the main thread busy. */
const PIECES_MAX = 256;
/** Maximum number of dump requests. A dump is repeated if the kernel reports a change during it. */
const DUMP_TRIES = 5;

export interface HostAddress {
  /** Index of the interface that has the address. */
  readonly index: number;
  readonly address: RawAddress;
  /**
   * The address that the prefix belongs to: the far end's address if there is one, otherwise
   * `address`.
   */
  readonly subnet: RawAddress;
  /** Prefix length in bits. */
  readonly prefix: number;
}

export interface Changes {
  /** Whether anything changed. */
  readonly any: boolean;
  /** Indexes of removed interfaces, even if another interface has the name or the index by now. */
  readonly removed: ReadonlySet<number>;
  /** Whether messages were lost. Then `removed` may be incomplete. */
  readonly lost: boolean;
}

/** Changes of interfaces and addresses in the network namespace in which it was opened. */
export class ChangeListener {
  private readonly fd = netlinkOpen(Group.LINK | Group.IPV4_ADDRESSES | Group.IPV6_ADDRESSES);

  /** Returns what changed since the last call. */
  read(): Changes {
    const removed = new Set<number>();
    let any = false;
    let lost = false;
    for (let piece = 0; piece < PIECES_MAX; piece++) {
      const bytes = this.receive();
      if (bytes === null) break;
      any = true;
      if (bytes === 'lost') lost = true;
      else
        for (const message of messagesOf(bytes)) {
          const gone = removedInterface(message);
          if (gone !== null) removed.add(gone);
        }
    }
    return { any, removed, lost };
  }

  close(): void {
    closeDescriptor(this.fd);
  }

  private receive(): Uint8Array | 'lost' | null {
    try {
      return netlinkReceive(this.fd);
    } catch (error) {
      if (isNativeError(error, 'ENOBUFS')) return 'lost';
      throw error;
    }
  }
}

/** All addresses of this host, in the kernel's order. */
export function hostAddresses(): HostAddress[] {
  const fd = netlinkOpen(0);
  try {
    for (let tries = 1; ; tries++) {
      const { addresses, complete } = dumpAddresses(fd);
      if (complete || tries === DUMP_TRIES) return addresses;
    }
  } finally {
    closeDescriptor(fd);
  }
}

/** `complete`: no address was added or removed during the dump. */
function dumpAddresses(fd: number): { addresses: HostAddress[]; complete: boolean } {
  const request = new DataView(new ArrayBuffer(ADDRESS.bytes));
  request.setUint32(HEADER.length, ADDRESS.bytes, true);
  request.setUint16(HEADER.type, Type.GETADDR, true);
  request.setUint16(HEADER.flags, Flag.REQUEST | Flag.DUMP, true);
  netlinkSend(fd, new Uint8Array(request.buffer));
  const addresses: HostAddress[] = [];
  let complete = true;
  for (;;) {
    // The kernel makes the next piece of the answer when the previous one is read, so this never
    // waits.
    const piece = netlinkReceive(fd);
    if (piece === null) throw new Error('rtnetlink: the kernel did not finish its list of addresses');
    for (const message of messagesOf(piece)) {
      const type = message.getUint16(HEADER.type, true);
      if ((message.getUint16(HEADER.flags, true) & Flag.DUMP_INTERRUPTED) !== 0) complete = false;
      if (type === Type.DONE) return { addresses, complete };
      if (type === Type.ERROR) throw new Error(`rtnetlink: the list of addresses was refused: ${errorOf(message)}`);
      const address = type === Type.NEWADDR ? addressOf(message) : null;
      if (address !== null) addresses.push(address);
    }
  }
}

/** The messages in a piece. A truncated message ends the iteration. */
export function* messagesOf(piece: Uint8Array): Generator<DataView> {
  for (let at = 0; at + HEADER.bytes <= piece.length; ) {
    const length = new DataView(piece.buffer, piece.byteOffset + at).getUint32(HEADER.length, true);
    if (length < HEADER.bytes || at + length > piece.length) return;
    yield new DataView(piece.buffer, piece.byteOffset + at, length);
    at += (length + 3) & ~3;
  }
}

/** Index of the interface that a message reports as removed; `null`: another kind of message. */
export function removedInterface(message: DataView): number | null {
  if (message.getUint16(HEADER.type, true) !== Type.DELLINK || message.byteLength < LINK.bytes) return null;
  // With another family, the message means that the interface left a bridge.
  return message.getUint8(LINK.family) === 0 ? message.getInt32(LINK.index, true) : null;
}

/**
 * The address in a NEWADDR message, or `null`. If there is a far end, this is the near end's
 * address.
 */
export function addressOf(message: DataView): HostAddress | null {
  if (message.byteLength < ADDRESS.bytes) return null;
  const family = message.getUint8(ADDRESS.family);
  const bytes = family === AF_INET ? 4 : family === AF_INET6 ? 16 : 0;
  if (bytes === 0) return null;
  let found = -1;
  let far = -1;
  for (let at: number = ADDRESS.bytes; at + ATTRIBUTE_BYTES <= message.byteLength; ) {
    const length = message.getUint16(at, true);
    const type = message.getUint16(at + 2, true);
    if (length < ATTRIBUTE_BYTES || at + length > message.byteLength) break;
    const fits = length === ATTRIBUTE_BYTES + bytes;
    if (fits && (type === Attribute.LOCAL || (type === Attribute.ADDRESS && found === -1)))
      found = at + ATTRIBUTE_BYTES;
    if (fits && type === Attribute.ADDRESS) far = at + ATTRIBUTE_BYTES;
    at += (length + 3) & ~3;
  }
  if (found === -1) return null;
  const read = (from: number): RawAddress => {
    const word = (n: number): number => message.getInt32(from + 4 * n, true);
    return family === AF_INET ? word(0) : Int32Array.of(word(0), word(1), word(2), word(3));
  };
  return {
    index: message.getInt32(ADDRESS.index, true),
    address: read(found),
    subnet: read(far === -1 ? found : far),
    prefix: Math.min(message.getUint8(ADDRESS.prefix), 8 * bytes),
  };
}

function errorOf(message: DataView): string {
  return message.byteLength < HEADER.bytes + 4 ? 'no reason given' : `error ${message.getInt32(HEADER.bytes, true)}`;
}
