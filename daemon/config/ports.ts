/**
 * The ports of an instance: combines their configuration with the present interfaces, for the data
 * plane, and attaches the XDP programs that redirect packets to it.
 */

import { readlinkSync } from 'node:fs';
import { isIPv4, isIPv6 } from 'node:net';
import type { AfXdpConfig, AfXdpPortConfig, Config, PcapConfig } from '../../conf/config.js';
import { type FrameLayout, frameLayout, mtuMax } from '../../workers/drivers/frame-size.js';
import { assertQueues } from '../../workers/drivers/queues.js';
import { attachXdp, type XdpAttachment } from '../../workers/drivers/xdp-attach.js';
import type { XdpFilter } from '../../workers/drivers/xdp-program.js';
import type { AfXdpIo, PcapIo } from '../../workers/engine/instance.js';
import { interfaceFacts, xskMultiBuffer } from '../../workers/native/index.js';
import { type Mac, parseMac } from '../../workers/packet/ethernet.js';
import { formatIpv4, parseIpv4 } from '../../workers/packet/ipv4.js';
import { isLinkLocal, parseIpv6 } from '../../workers/packet/ipv6.js';
import { type Declaration, takesIpv6 } from '../../workers/plane/chain.js';
import type { RoutePort } from '../../workers/plane/route.js';
import { type HostAddresses, readHostAddresses } from '../host/host-addresses.js';
import { type InterfaceWatchOptions, macOf, type WatchedPort } from '../host/interface-watch.js';

export interface OpenPorts {
  readonly io: AfXdpIo | PcapIo;
  readonly routes: readonly RoutePort[];
  /** The interface behind each port, for people. */
  readonly names: readonly string[];
  /** Warnings for the log. */
  readonly notes: readonly string[];
  /** The input of an `InterfaceWatch`; `null`: no port has an interface. */
  readonly watched: Watched | null;
  /** Detaches from the interfaces, which then work as before. */
  close(): void;
}

type Watched = Pick<
  InterfaceWatchOptions,
  'ports' | 'attachments' | 'hosts' | 'filter' | 'attach' | 'isWire' | 'mtuNotes' | 'packetBytesMax'
>;

/** Longest IP packet in a capture file: the maximum of the IP length field. */
const PCAP_MTU_BYTES = 65_535;
/** 2 GiB, minus room for alignment and jumbo buffers. */
const PACKET_MEMORY_MAX = 2 ** 31 - 2 ** 25;
/** Of a capture port without a MAC address, as in wire mode. */
const NO_MAC = '00:00:00:00:00:00';

export function openPorts(config: Config, chain: Declaration): OpenPorts {
  const io = config.packet_io;
  return io.driver === 'af_xdp' ? openInterfaces(io, chain, config) : openCaptures(io);
}

function nextHop(text: string | undefined): number | Mac | null {
  if (text === undefined) return null;
  return isIPv4(text) ? parseIpv4(text) : parseMac(text);
}

function nextHopIpv6(text: string | undefined): Int32Array | Mac | null {
  if (text === undefined) return null;
  return isIPv6(text) ? parseIpv6(text) : parseMac(text);
}

function openCaptures(io: PcapConfig): OpenPorts {
  return {
    io: { driver: 'pcap', ports: io.ports.map((port) => ({ in: port.in, out: port.out })), pace: io.pace },
    routes: io.ports.map((port) => ({
      mac: parseMac(port.mac ?? NO_MAC),
      address: null,
      mtuBytes: PCAP_MTU_BYTES,
      nextHop: nextHop(port.next_hop),
      nextHop6: nextHopIpv6(port.next_hop),
      promiscuous: true,
    })),
    names: io.ports.map((port) => `${port.name} = ${port.in ?? 'nothing'} → ${port.out ?? 'nothing'}`),
    notes: [],
    watched: null,
    close: () => {},
  };
}

function openInterfaces(io: AfXdpConfig, chain: Declaration, { mode, threads }: Config): OpenPorts {
  const workers = threads.workers.length;
  const isWire = mode === 'wire';
  // By port; null if the interface no longer exists.
  const attachments: (XdpAttachment | null)[] = [];
  const notes: string[] = [];
  const close = (): void => {
    for (const attachment of attachments.splice(0)) attachment?.close();
  };
  const filter = (port: number, present: HostAddresses): XdpFilter =>
    isWire ? { mode: 'all' } : filterOf(chain, port, present);
  try {
    const layout = layoutOf(io);
    const attach = (port: number, present: HostAddresses): XdpAttachment =>
      attachXdp(io.ports[port].interface, io.mode, filter(port, present), layout.multiBuffer);
    const hosts = readHostAddresses();
    const watched: WatchedPort[] = [];
    const routes = io.ports.map((port): RoutePort => {
      const facts = interfaceFacts(port.interface);
      watched.push({ name: port.name, interface: port.interface, facts });
      if (isVirtual(port.interface)) notes.push(checksumNote(port.interface));
      assertQueues(port.interface, facts.queues, workers);
      const address6 = hosts.first6.get(facts.index) ?? null;
      notes.push(...ipv6Notes(port, takesIpv6(chain), address6));
      const address = hosts.first4.get(facts.index) ?? null;
      if (isWire && address !== null)
        notes.push(
          `${port.interface} has address ${formatIpv4(address)}, by which this host is not reachable any more: in mode wire all that comes by it goes on to the other port`,
        );
      return {
        mac: macOf(facts.mac),
        // A wire answers with the addresses of the packet's destination, so it needs none.
        address: isWire ? null : address,
        address6: isWire ? null : address6,
        networks: isWire ? [] : (hosts.networks4.get(facts.index) ?? []),
        mtuBytes: facts.mtu,
        nextHop: nextHop(port.next_hop),
        nextHop6: nextHopIpv6(port.next_hop6),
        promiscuous: false,
      };
    });
    const mtuNotes = isWire ? wireMtuNotes : () => [];
    notes.push(...mtuNotes(watched.map((port) => ({ name: port.interface, mtu: port.facts.mtu }))));
    const opened = io.ports.map((_, index) => {
      const wanted = filter(index, hosts);
      if (wanted.mode === 'to') {
        for (const address of wanted.addresses.filter((candidate) => hosts.all4.includes(candidate)))
          notes.push(
            `${formatIpv4(address)} is this host's own address and now the data plane's: the host is not reachable by it`,
          );
      }
      const attachment = attach(index, hosts);
      attachments.push(attachment);
      return attachment;
    });
    return {
      io: {
        driver: 'af_xdp',
        ports: opened.map(({ interface: name, mapFd, counterFd }) => ({ interface: name, mapFd, counterFd })),
        ringSize: io.ring_size,
        frames: io.frames,
        layout,
      },
      routes,
      names: io.ports.map((port, index) => `${port.name} = ${port.interface} (${opened[index].mode})`),
      notes,
      watched: {
        ports: watched,
        attachments,
        hosts,
        filter,
        attach,
        isWire,
        mtuNotes,
        packetBytesMax: mtuMax(layout),
      },
      close,
    };
  } catch (error) {
    close();
    throw error;
  }
}

/**
 * The notes about different MTUs of a wire's two ports: the hosts on both sides assume one link.
 * Empty if the MTUs are equal or one is not known.
 */
export function wireMtuNotes(ports: readonly { readonly name: string; readonly mtu: number | null }[]): string[] {
  const [first, second] = [...ports].sort((a, b) => (a.mtu ?? 0) - (b.mtu ?? 0));
  if (first === undefined || second === undefined || first.mtu === null || first.mtu === second.mtu) return [];
  return [
    `${first.name} has MTU ${first.mtu} and ${second.name} has MTU ${second.mtu}: in mode wire what is longer than ${first.mtu} is dropped (wire_mtu), and only senders that forbid fragments are told; give both the same (ip link set ${first.name} mtu ${second.mtu})`,
  ];
}

/**
 * The layout of packet memory for these ports. Throws if no layout fits an MTU, or if the layout
 * needs too much memory.
 */
function layoutOf(io: AfXdpConfig): FrameLayout {
  const ports = io.ports.map(({ interface: name }) => ({ name, mtu: interfaceFacts(name).mtu }));
  const layout = frameLayout(ports, xskMultiBuffer);
  if (io.frames * layout.chunkBytes > PACKET_MEMORY_MAX)
    throw new Error(
      `packet_io.frames: ${io.frames} packet buffers of ${layout.chunkBytes} bytes, which the MTU of the ports needs, are more than 2 GiB per worker: use at most ${Math.floor(PACKET_MEMORY_MAX / layout.chunkBytes)}`,
    );
  return layout;
}

/** Notes on the IPv6 next hop of a port that may not be intended. `own` is the port's address. */
export function ipv6Notes(
  { name, next_hop, next_hop6 }: AfXdpPortConfig,
  taken: boolean,
  own: Int32Array | null,
): string[] {
  if (!taken)
    return isIPv6(next_hop6 ?? '')
      ? [`next_hop6 of port ${name} is not used: no middlebox here handles IPv6, so it stays with the kernel`]
      : [];
  if (next_hop6 !== undefined || next_hop === undefined || own === null || isLinkLocal(own)) return [];
  return [
    `port ${name} has a next hop for IPv4 and none for IPv6 (next_hop6), so IPv6 destinations are looked for on its link`,
  ];
}

/** Whether an interface has no device: veth, tap, bridges. */
function isVirtual(name: string): boolean {
  try {
    return readlinkSync(`/sys/class/net/${name}`).includes('/virtual/');
  } catch {
    return false; // no sysfs, or it belongs to another network namespace
  }
}

function checksumNote(name: string): string {
  return `${name} is a virtual interface: programs at its other end leave checksums to hardware that is not there, and their packets are dropped further on, unless it is told to make them (ethtool -K PEER tx off)`;
}

function filterOf(chain: Declaration, port: number, hosts: HostAddresses): XdpFilter {
  const owned = chain.links.flatMap(({ middlebox, options }) => middlebox.owns?.(options as never) ?? []);
  const mine = owned.filter((entry) => entry.port === port);
  const ipv6NotTo = takesIpv6(chain) ? hosts.all6 : undefined;
  if (mine.length === 0) return { mode: 'not-to', addresses: hosts.all4, ipv6NotTo };
  return { mode: 'to', addresses: [...new Set(mine.flatMap((entry) => entry.addresses))], ipv6NotTo };
}
