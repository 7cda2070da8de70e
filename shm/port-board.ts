/**
 * The present state of ports: what the kernel says of their interfaces, which main writes whenever
 * it changes, and which sockets each worker has open on them.
 *
 *     facts    a versioned cell with `FACT` of every port     main writes, workers read
 *     serves   per worker a line or more, a word per port     that worker writes, main reads
 *
 * A worker compares one version per batch and copies the facts only if they changed, into columns
 * by port. Code that runs per packet reads the columns with plain loads. The arrays never change
 * while the worker runs, so that code may keep references to them.
 *
 * **Attachments.** An interface that is deleted and created again loses the XDP program and all
 * sockets. Main attaches again, with a new map of sockets, and gives the attachment the next
 * number. A worker whose sockets belong to another number than the board shows closes them, and
 * opens new ones if the map exists. It answers in `serves`.
 */

import { Region } from './region.js';
import { BYTES_PER_LINE, roundUp, struct } from './struct.js';
import { VersionedCells } from './versioned.js';

/** Why packets cannot leave by a port. `USABLE`: they can. */
export const PortState = { USABLE: 0, GONE: 1, DOWN: 2, NO_CARRIER: 3, UNATTACHED: 4 } as const;
export type PortState = (typeof PortState)[keyof typeof PortState];

/** For people, in the order of `PortState`. */
export const PORT_STATE_TEXTS = [
  'usable',
  'there is no such interface',
  'the interface is down',
  'the interface has no carrier',
  'the data plane is not attached to the interface',
] as const;

/** Workers know this many IPv4 addresses of each port. */
export const NETWORKS_MAX = 16;

/** One of a port's own IPv4 addresses, and the on-link subnet that comes with it: raw words. */
export interface PortNetwork {
  readonly own: number;
  /** `(own or its peer) & mask`. */
  readonly address: number;
  readonly mask: number;
}

export interface PortFacts {
  readonly state: PortState;
  /** Number of the attachment. 0: not attached. */
  readonly attachment: number;
  /** Descriptor of the attachment's map of sockets. -1: no map now. */
  readonly mapFd: number;
  /** Descriptor of the attachment's counter of frames without a socket. -1: no counter now. */
  readonly counterFd: number;
  /**
   * The port's own link-layer address: bytes 0–3 as a raw word, bytes 4–5 in the low half of
   * another.
   */
  readonly mac: { readonly low: number; readonly high: number };
  /**
   * The port's own raw IPv4 address, if it has one. `address6` is its IPv6 address, four raw words.
   */
  readonly address: number | null;
  readonly address6: Int32Array | null;
  /** All its IPv4 addresses, at most the first `NETWORKS_MAX`. Absent: none are known. */
  readonly networks?: readonly PortNetwork[];
  /** Longest IP packet the port sends. */
  readonly mtuBytes: number;
}

/** Layout of the numbers in the cell, one struct per port. */
const FACT = struct({
  state: 1,
  attachment: 1,
  mapFd: 1,
  counterFd: 1,
  macLow: 1,
  macHigh: 1,
  hasAddress: 1,
  address: 1,
  hasAddress6: 1,
  address6: 4,
  mtu: 1,
  networkCount: 1,
  networks: 3 * NETWORKS_MAX,
});

function servesBytes(ports: number): number {
  return roundUp(ports * 4, BYTES_PER_LINE);
}

export function createPortBoard(workers: number, ports: number): SharedArrayBuffer {
  return new SharedArrayBuffer(VersionedCells.bytes(1, ports * FACT.words) + workers * servesBytes(ports));
}

function open(buffer: SharedArrayBuffer, ports: number): { facts: VersionedCells; serves: Int32Array } {
  const region = new Region(buffer);
  const facts = VersionedCells.bytes(1, ports * FACT.words);
  return { facts: new VersionedCells(region, 1, ports * FACT.words), serves: region.i32(facts) };
}

/** Main's side. */
export class PortBoardWriter {
  private readonly ports: number;
  private readonly facts: VersionedCells;
  private readonly serves: Int32Array;
  private readonly numbers: Float64Array;

  constructor(buffer: SharedArrayBuffer, ports: number) {
    const { facts, serves } = open(buffer, ports);
    this.ports = ports;
    this.facts = facts;
    this.serves = serves;
    this.numbers = new Float64Array(facts.floats);
  }

  /** Publishes these facts to the workers, one entry per port. */
  write(all: readonly PortFacts[]): void {
    const { numbers, ports } = this;
    if (all.length !== ports) throw new RangeError(`facts of ${all.length} ports for a board of ${ports}`);
    for (const [port, facts] of all.entries()) {
      const at = port * FACT.words;
      numbers[at + FACT.at.state] = facts.state;
      numbers[at + FACT.at.attachment] = facts.attachment;
      numbers[at + FACT.at.mapFd] = facts.mapFd;
      numbers[at + FACT.at.counterFd] = facts.counterFd;
      numbers[at + FACT.at.macLow] = facts.mac.low;
      numbers[at + FACT.at.macHigh] = facts.mac.high;
      numbers[at + FACT.at.hasAddress] = facts.address === null ? 0 : 1;
      numbers[at + FACT.at.address] = facts.address ?? 0;
      numbers[at + FACT.at.hasAddress6] = facts.address6 === null ? 0 : 1;
      for (let word = 0; word < 4; word++) numbers[at + FACT.at.address6 + word] = facts.address6?.[word] ?? 0;
      numbers[at + FACT.at.mtu] = facts.mtuBytes;
      const networks = (facts.networks ?? []).slice(0, NETWORKS_MAX);
      numbers[at + FACT.at.networkCount] = networks.length;
      for (const [n, { own, address, mask }] of networks.entries())
        numbers.set([own, address, mask], at + FACT.at.networks + 3 * n);
    }
    this.facts.write(0, numbers, numbers.length);
  }

  /** Number of the attachment for which a worker has sockets open on a port. 0: no sockets. */
  serving(worker: number, port: number): number {
    return Atomics.load(this.serves, (worker * servesBytes(this.ports)) / 4 + port);
  }
}

/** A worker's side. The columns, by port, are the same arrays for ever. */
export class PortBoardReader {
  readonly ports: number;
  readonly state: Int32Array;
  readonly attachment: Int32Array;
  readonly mapFd: Int32Array;
  readonly counterFd: Int32Array;
  /** 1: packets can leave by the port, and this worker has sockets of its present attachment. */
  readonly usable: Uint8Array;
  readonly macLow: Int32Array;
  readonly macHigh: Int32Array;
  readonly hasAddress: Uint8Array;
  readonly address: Int32Array;
  readonly hasAddress6: Uint8Array;
  /** Four words per port. */
  readonly address6: Int32Array;
  readonly mtu: Int32Array;
  readonly networkCount: Int32Array;
  /** `NETWORKS_MAX` times own address, subnet and mask per port. */
  readonly networks: Int32Array;
  /** Grows with every change of the columns. */
  changes = 0;
  private readonly facts: VersionedCells;
  private readonly serves: Int32Array;
  private readonly servesAt: number;
  /** By port: the attachment for which this worker has sockets. */
  private readonly served: Int32Array;
  private readonly numbers: Float64Array;
  private seen = 0;

  constructor(buffer: SharedArrayBuffer, ports: number, worker: number) {
    const { facts, serves } = open(buffer, ports);
    this.ports = ports;
    this.facts = facts;
    this.serves = serves;
    this.servesAt = (worker * servesBytes(ports)) / 4;
    this.numbers = new Float64Array(facts.floats);
    this.state = new Int32Array(ports);
    this.attachment = new Int32Array(ports);
    this.mapFd = new Int32Array(ports);
    this.counterFd = new Int32Array(ports);
    this.usable = new Uint8Array(ports);
    this.served = new Int32Array(ports);
    this.macLow = new Int32Array(ports);
    this.macHigh = new Int32Array(ports);
    this.hasAddress = new Uint8Array(ports);
    this.address = new Int32Array(ports);
    this.hasAddress6 = new Uint8Array(ports);
    this.address6 = new Int32Array(4 * ports);
    this.mtu = new Int32Array(ports);
    this.networkCount = new Int32Array(ports);
    this.networks = new Int32Array(3 * NETWORKS_MAX * ports);
    this.refresh();
  }

  /** Call once a batch. Returns whether the columns changed. */
  refresh(): boolean {
    if (this.facts.version(0) === this.seen) return false;
    this.seen = this.facts.read(0, this.numbers);
    this.changes++;
    for (let port = 0; port < this.ports; port++) this.take(port);
    return true;
  }

  /** Reports to main for which attachment this worker has sockets on a port. 0: none. */
  serve(port: number, attachment: number): void {
    Atomics.store(this.serves, this.servesAt + port, attachment);
    this.served[port] = attachment;
    this.judge(port);
  }

  private judge(port: number): void {
    const isServed = this.served[port] === this.attachment[port];
    this.usable[port] = this.state[port] === PortState.USABLE && isServed ? 1 : 0;
  }

  private take(port: number): void {
    const { numbers } = this;
    const at = port * FACT.words;
    this.state[port] = numbers[at + FACT.at.state];
    this.attachment[port] = numbers[at + FACT.at.attachment];
    this.mapFd[port] = numbers[at + FACT.at.mapFd];
    this.counterFd[port] = numbers[at + FACT.at.counterFd];
    this.macLow[port] = numbers[at + FACT.at.macLow];
    this.macHigh[port] = numbers[at + FACT.at.macHigh];
    this.hasAddress[port] = numbers[at + FACT.at.hasAddress];
    this.address[port] = numbers[at + FACT.at.address];
    this.hasAddress6[port] = numbers[at + FACT.at.hasAddress6];
    for (let word = 0; word < 4; word++) this.address6[4 * port + word] = numbers[at + FACT.at.address6 + word];
    this.mtu[port] = numbers[at + FACT.at.mtu];
    this.networkCount[port] = numbers[at + FACT.at.networkCount];
    for (let word = 0; word < 3 * NETWORKS_MAX; word++)
      this.networks[3 * NETWORKS_MAX * port + word] = numbers[at + FACT.at.networks + word];
    this.judge(port);
  }
}
