/**
 * Follows the interfaces of the ports while the instance runs: whether they exist, are up and have
 * a carrier, their MAC addresses, MTUs and queues, and the addresses of this host.
 *
 * When rtnetlink reports a change, everything is read again. Everything is also read at intervals,
 * because rtnetlink does not report some changes (the number of queues). So a lost message only
 * delays a change, and no copied state can go stale.
 *
 * | event                                  | reaction                                             |
 * | -------------------------------------- | ---------------------------------------------------- |
 * | the interface was removed, moved away  | detach; the workers close their sockets              |
 * | an interface of that name exists again | attach again; the workers open new sockets           |
 * | it went down, or lost its carrier      | the port is unusable; sockets stay                   |
 * | its MAC, or an address of this host    | a new XDP program replaces the old one               |
 * | its MTU, MAC or own address            | the board is written                                 |
 * | the number of its queues               | the workers open new sockets                         |
 *
 * While a port is unusable, the workers drop and count the packets that would leave by it.
 */

import { PORT_STATE_TEXTS, type PortBoardWriter, type PortFacts, PortState } from '../../shm/port-board.js';
import type { XdpAttachment } from '../../workers/drivers/xdp-attach.js';
import type { XdpFilter } from '../../workers/drivers/xdp-program.js';
import { type InterfaceFacts, interfaceFacts, isNativeError } from '../../workers/native/index.js';
import { formatMac, type Mac } from '../../workers/packet/ethernet.js';
import { counted } from '../base/counted.js';
import type { CounterRow } from '../views/source.js';
import { type HostAddresses, readHostAddresses, sameAddresses } from './host-addresses.js';
import { formatAddress } from './kernel-neighbours.js';
import { ChangeListener, type Changes } from './rtnetlink.js';

/** Interval at which the rtnetlink socket is read. */
const LISTEN_MS = 50;
/** Interval at which everything is read again without a reported change. */
const REREAD_MS = 2000;
/** Interval at which a failed attachment is tried again. */
const RETRY_MS = 500;
/** Time that workers may take to open their sockets before it is a problem. */
const OPENING_MS = 2000;

/** A port and what was attached to its interface at the start. */
export interface WatchedPort {
  /** Name in the configuration. */
  readonly name: string;
  readonly interface: string;
  readonly facts: InterfaceFacts;
}

export interface InterfaceWatchOptions {
  readonly ports: readonly WatchedPort[];
  /**
   * By port. The watch replaces entries. The owner of the array closes the attachments at the end.
   */
  readonly attachments: (XdpAttachment | null)[];
  /** The addresses of this host when the ports were attached. */
  readonly hosts: HostAddresses;
  readonly filter: (port: number, hosts: HostAddresses) => XdpFilter;
  readonly attach: (port: number, hosts: HostAddresses) => XdpAttachment;
  /** In wire mode a port has no address of its own. */
  readonly isWire: boolean;
  /**
   * Notes about the MTUs of all ports together; an MTU of `null`: the interface does not exist now.
   */
  readonly mtuNotes: (ports: readonly { readonly name: string; readonly mtu: number | null }[]) => readonly string[];
  /** The longest IP packet that fits packet memory. */
  readonly packetBytesMax: number;
  readonly board: PortBoardWriter;
  /** The workers that run now. */
  readonly workers: () => readonly number[];
  /** Number of workers. */
  readonly workerCount: number;
  readonly log: (level: 'info' | 'warn', text: string) => void;
}

interface Followed extends WatchedPort {
  state: PortState;
  /** The cause, if the state alone does not say it. */
  reason: string | null;
  /** `null`: the interface does not exist. */
  now: InterfaceFacts | null;
  number: number;
  /** Time of the last request to the workers to open sockets (`performance.now`). */
  attachedAt: number;
  /** The addresses that the attached XDP program was made for. */
  filtered: { readonly hosts: HostAddresses; readonly mac: Uint8Array };
  /** The program may not be attached to all queues, until it is replaced. */
  isUnsure: boolean;
  /** The problem that was last logged. */
  warned: string | null;
  reportedMtu: string | null;
}

export class InterfaceWatch {
  private readonly options: InterfaceWatchOptions;
  private readonly ports: Followed[];
  private readonly listener = new ChangeListener();
  private readonly timer: NodeJS.Timeout;
  private hosts: HostAddresses;
  private written: readonly PortFacts[] = [];
  private readAt = 0;
  private warned = new Set<string>();
  private reportedMtus: readonly string[];

  constructor(options: InterfaceWatchOptions) {
    this.options = options;
    this.hosts = options.hosts;
    this.ports = options.ports.map((port) => ({
      ...port,
      state: PortState.USABLE,
      reason: null,
      now: port.facts,
      number: 1,
      attachedAt: performance.now(),
      filtered: { hosts: options.hosts, mac: port.facts.mac },
      isUnsure: false,
      warned: null,
      reportedMtu: null,
    }));
    this.reportedMtus = this.mtuNotes(); // the starting code logs these itself
    this.read({ any: true, removed: new Set(), lost: false });
    this.timer = setInterval(() => this.look(), LISTEN_MS);
  }

  close(): void {
    clearInterval(this.timer);
    this.listener.close();
  }

  /** Problems of the ports, one sentence each. */
  get alarms(): string[] {
    return this.problems.flatMap((problem, index) =>
      problem === null ? [] : [`port ${this.ports[index].name} is unusable: ${problem}`],
    );
  }

  /** By port, why packets cannot leave by it; `null`: they can. */
  private get problems(): readonly (string | null)[] {
    return this.ports.map((port, index) => this.problemOf(port, index));
  }

  /** The interface behind each port, for people. */
  describe(): string[] {
    const { problems } = this;
    return this.ports.map((port, index) => {
      const mode = this.options.attachments[index]?.mode;
      const how = mode === undefined ? '' : ` (${mode})`;
      const problem = problems[index] === null ? '' : `: unusable, ${problems[index]}`;
      return `${port.name} = ${port.interface}${how}${problem}`;
    });
  }

  /** The state of every port, for the metrics. */
  gauges(): CounterRow[] {
    return this.ports.map(({ name, interface: link, state }) => ({
      name: `port_unusable{port="${name}",interface="${link}"}`,
      help: `Whether packets cannot leave by the port, and why: ${PORT_STATE_TEXTS.map((text, code) => `${code}: ${text}`).join('; ')}.`,
      kind: 'gauge',
      total: state,
      threads: [],
    }));
  }

  private look(): void {
    const changes = this.changes();
    const since = performance.now() - this.readAt;
    const isWaiting = this.ports.some((port) => port.state === PortState.UNATTACHED);
    if (changes.any || since >= REREAD_MS || (isWaiting && since >= RETRY_MS)) this.read(changes);
    this.warn();
  }

  private changes(): Changes {
    try {
      return this.listener.read();
    } catch (error) {
      this.warnOnce((error as Error).message);
      return { any: false, removed: new Set(), lost: false };
    }
  }

  /** Replaces the XDP programs, because the addresses of the middleboxes have changed. */
  updateFilters(): void {
    this.read({ any: true, removed: new Set(), lost: true });
  }

  /** Reads everything and reacts to changes. */
  private read(changes: Changes): void {
    this.readAt = performance.now();
    try {
      const hosts = readHostAddresses();
      if (!sameAddresses(hosts, this.hosts)) this.hosts = hosts;
    } catch (error) {
      this.warnOnce((error as Error).message); // the last addresses stay
    }
    for (const [index, port] of this.ports.entries()) {
      try {
        this.examine(port, index, changes);
      } catch (error) {
        this.unattached(port, (error as Error).message);
      }
    }
    this.reportMtus();
    this.write();
    this.warn();
  }

  private examine(port: Followed, index: number, changes: Changes): void {
    const { attachments } = this.options;
    const last = port.now;
    const now = factsOf(port.interface);
    const attached = attachments[index];
    if (attached !== null && (now?.index !== attached.index || changes.removed.has(attached.index)))
      this.abandon(index);
    port.now = now;
    if (now === null) {
      port.state = PortState.GONE;
      port.reason = null;
      return;
    }
    if (now.queues < this.options.workerCount) {
      const { workerCount } = this.options;
      this.unattached(
        port,
        `it has ${counted(now.queues, 'receive queue')} for ${counted(workerCount, 'worker')} (ethtool -L)`,
      );
      return;
    }
    const hasOtherQueues = last !== null && last.queues !== now.queues;
    // A veth interface gives queues that are added no program, until the program is replaced.
    if (changes.lost || hasOtherQueues) port.isUnsure = true;
    if (attachments[index] !== null) this.refilter(port, index, now);
    if (attachments[index] === null) {
      attachments[index] = this.options.attach(index, this.hosts);
      port.filtered = { hosts: this.hosts, mac: now.mac };
      port.isUnsure = false;
      this.reopen(port);
    } else if (hasOtherQueues) {
      this.options.log('info', `port ${port.name}: ${port.interface} has ${now.queues} receive queues`);
      this.reopen(port);
    }
    port.reason = null;
    port.state = !now.up ? PortState.DOWN : now.running ? PortState.USABLE : PortState.NO_CARRIER;
    this.reportMtu(port, now.mtu);
  }

  /** Abandons the attachment to an interface that no longer exists. */
  private abandon(index: number): void {
    this.options.attachments[index]?.abandon();
    this.options.attachments[index] = null;
  }

  /** Makes the workers open new sockets. */
  private reopen(port: Followed): void {
    port.number++;
    port.attachedAt = performance.now();
  }

  /**
   * Replaces the XDP program if the addresses it was made for have changed, or if it may not be
   * attached to all queues.
   */
  private refilter(port: Followed, index: number, { mac }: InterfaceFacts): void {
    const { filtered, isUnsure } = port;
    const isReadressed = !sameBytes(filtered.mac, mac);
    if (!isReadressed && filtered.hosts === this.hosts && !isUnsure) return;
    const { options, hosts } = this;
    try {
      options.attachments[index]?.update(options.filter(index, hosts), mac);
    } catch (error) {
      if (isNativeError(error, 'ENOLINK')) this.abandon(index);
      // The old program stays in force. The next look tries again.
      else this.warnOnce(`port ${port.name}: ${(error as Error).message}`);
      return;
    }
    port.filtered = { hosts, mac };
    port.isUnsure = false;
    if (isReadressed)
      options.log('info', `port ${port.name}: ${port.interface} has MAC address ${formatMac(macOf(mac))}`);
  }

  private unattached(port: Followed, reason: string): void {
    port.state = PortState.UNATTACHED;
    port.reason = reason;
  }

  private reportMtu(port: Followed, mtu: number): void {
    const { packetBytesMax, log } = this.options;
    const text =
      mtu <= packetBytesMax
        ? `port ${port.name}: ${port.interface} has an MTU of ${mtu} bytes`
        : `port ${port.name}: ${port.interface} has an MTU of ${mtu} bytes now, and packet memory was made for ${packetBytesMax}: longer packets are dropped until the instance is restarted, or the MTU is set to at most ${packetBytesMax}`;
    if (port.reportedMtu !== null && port.reportedMtu !== text) log(mtu <= packetBytesMax ? 'info' : 'warn', text);
    port.reportedMtu = text;
  }

  /** Logs new notes about the MTUs of all ports together. */
  private reportMtus(): void {
    const notes = this.mtuNotes();
    for (const note of notes) if (!this.reportedMtus.includes(note)) this.options.log('warn', note);
    this.reportedMtus = notes;
  }

  private mtuNotes(): readonly string[] {
    return this.options.mtuNotes(this.ports.map((port) => ({ name: port.interface, mtu: port.now?.mtu ?? null })));
  }

  /** Publishes changes to the workers. */
  private write(): void {
    const facts = this.ports.map((port, index) => this.factsFor(port, index));
    if (JSON.stringify(facts, plain) === JSON.stringify(this.written, plain)) return;
    this.written = facts;
    this.options.board.write(facts);
  }

  private factsFor({ state, now, number, facts }: Followed, index: number): PortFacts {
    const known = now ?? facts;
    const attachment = this.options.attachments[index];
    const { isWire, packetBytesMax } = this.options;
    return {
      state,
      attachment: number,
      mapFd: attachment === null || state === PortState.UNATTACHED ? -1 : attachment.mapFd,
      counterFd: attachment?.counterFd ?? -1,
      mac: macOf(known.mac),
      address: isWire ? null : (this.hosts.first4.get(known.index) ?? null),
      address6: isWire ? null : (this.hosts.first6.get(known.index) ?? null),
      networks: isWire ? [] : (this.hosts.networks4.get(known.index) ?? []),
      mtuBytes: Math.min(known.mtu, packetBytesMax),
    };
  }

  private problemOf(port: Followed, index: number): string | null {
    const { state, reason, number, attachedAt } = port;
    if (state === PortState.UNATTACHED && reason !== null) return `${PORT_STATE_TEXTS[state]}: ${reason}`;
    if (state !== PortState.USABLE) return PORT_STATE_TEXTS[state];
    const { board, workers } = this.options;
    const late = workers().filter((worker) => board.serving(worker, index) !== number);
    if (late.length === 0 || performance.now() - attachedAt < OPENING_MS) return null;
    return `workers without a socket there: ${late.join(', ')}`;
  }

  /** Whether every running worker has sockets of the present attachment. */
  private isServed(port: Followed, index: number): boolean {
    const { board, workers } = this.options;
    return workers().every((worker) => board.serving(worker, index) === port.number);
  }

  private warn(): void {
    for (const [index, port] of this.ports.entries()) {
      const problem = this.problemOf(port, index);
      if (problem === port.warned || (problem === null && !this.isServed(port, index))) continue;
      const text = `port ${port.name} (${port.interface})`;
      if (problem === null) this.options.log('info', `${text} is usable again${this.placeOf(port, index)}`);
      else this.options.log('warn', `${text} is unusable: ${problem}; packets that would leave by it are dropped`);
      port.warned = problem;
    }
  }

  private placeOf({ now }: Followed, index: number): string {
    const mode = this.options.attachments[index]?.mode;
    return now === null ? '' : `: ${mode} mode, MAC address ${formatMac(macOf(now.mac))}, MTU ${now.mtu}`;
  }

  private warnOnce(text: string): void {
    if (this.warned.has(text) || this.warned.size > 100) return;
    this.warned.add(text);
    this.options.log('warn', `interfaces: ${text}`);
  }
}

/** `null`: the interface does not exist. */
function factsOf(name: string): InterfaceFacts | null {
  try {
    return interfaceFacts(name);
  } catch (error) {
    if (isNativeError(error, 'ENODEV')) return null;
    throw error;
  }
}

export function macOf(bytes: Uint8Array): Mac {
  return {
    low: bytes[0] | (bytes[1] << 8) | (bytes[2] << 16) | (bytes[3] << 24),
    high: bytes[4] | (bytes[5] << 8),
  };
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.every((byte, i) => byte === b[i]);
}

function plain(_: string, value: unknown): unknown {
  return value instanceof Int32Array ? formatAddress(value) : value;
}
