/**
 * The ports of an instance, as configured and as they are: what the data plane needs to know of them, and the XDP programs
 * that bring their packets to it.
 */

import { readlinkSync } from 'node:fs';
import { isIPv4, isIPv6 } from 'node:net';
import { networkInterfaces } from 'node:os';
import type { AfXdpConfig, AfXdpPortConfig, Config, PcapConfig } from '../conf/config.js';
import { type Declaration, takesIpv6 } from '../workers/chain.js';
import { assertQueues } from '../workers/drivers/queues.js';
import { attachXdp, type XdpAttachment } from '../workers/drivers/xdp-attach.js';
import type { XdpFilter } from '../workers/drivers/xdp-program.js';
import type { AfXdpIo, PcapIo } from '../workers/instance.js';
import { interfaceFacts } from '../workers/native/index.js';
import { type Mac, parseMac } from '../workers/packet/ethernet.js';
import { formatIpv4, parseIpv4 } from '../workers/packet/ipv4.js';
import { isLinkLocal, parseIpv6 } from '../workers/packet/ipv6.js';
import type { RoutePort } from '../workers/route.js';

export interface OpenPorts {
  readonly io: AfXdpIo | PcapIo;
  readonly routes: readonly RoutePort[];
  /** What is behind each port, for people. */
  readonly names: readonly string[];
  /** Sentences for the log. */
  readonly notes: readonly string[];
  /** Detaches from the interfaces; they work as before. */
  close(): void;
}

/** Longest IP packet that goes into a capture file: as long as the field for its length allows. */
const PCAP_MTU_BYTES = 65_535;
/** Of a port that is a wire's end: nothing is addressed by it. */
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
    close: () => {},
  };
}

function openInterfaces(io: AfXdpConfig, chain: Declaration, { mode, threads }: Config): OpenPorts {
  const workers = threads.workers.length;
  const attachments: XdpAttachment[] = [];
  const notes: string[] = [];
  const close = (): void => {
    for (const attachment of attachments.splice(0)) attachment.close();
  };
  try {
    const own = ownAddresses();
    const routes = io.ports.map((port): RoutePort => {
      const facts = interfaceFacts(port.interface);
      if (!facts.up)
        notes.push(`${port.interface} is down: no packet comes before it is up (ip link set ${port.interface} up)`);
      if (isVirtual(port.interface)) notes.push(checksumNote(port.interface));
      assertQueues(port.interface, facts.queues, workers);
      const address6 = ownIpv6(port.interface);
      notes.push(...ipv6Notes(port, takesIpv6(chain), address6));
      const address = own.get(port.interface) ?? null;
      if (mode === 'wire' && address !== null)
        notes.push(
          `${port.interface} has address ${formatIpv4(address)}, by which this host is not reachable any more: in mode wire all that comes by it goes on to the other port`,
        );
      return {
        mac: macOf(facts.mac),
        // What a wire says, it says in the name of whom the packet was for.
        address: mode === 'wire' ? null : address,
        address6: mode === 'wire' ? null : address6,
        mtuBytes: facts.mtu,
        nextHop: nextHop(port.next_hop),
        nextHop6: nextHopIpv6(port.next_hop6),
        promiscuous: false,
      };
    });
    if (mode === 'wire')
      notes.push(...wireMtuNotes(io.ports.map((port, i) => ({ name: port.interface, mtu: routes[i].mtuBytes }))));
    const hosts = [
      ...new Set(
        Object.values(networkInterfaces()).flatMap((all) =>
          (all ?? []).filter(isOfIpv4).map((a) => parseIpv4(a.address)),
        ),
      ),
    ];
    io.ports.forEach((port, index) => {
      const filter: XdpFilter = mode === 'wire' ? { mode: 'all' } : filterOf(chain, index, hosts);
      if (filter.mode === 'to') {
        for (const address of filter.addresses.filter((candidate) => hosts.includes(candidate)))
          notes.push(
            `${formatIpv4(address)} is this host's own address and now the data plane's: the host is not reachable by it`,
          );
      }
      const attachment = attachXdp(port.interface, io.mode, filter);
      attachments.push(attachment);
    });
    return {
      io: {
        driver: 'af_xdp',
        ports: attachments.map(({ interface: name, mapFd, counterFd }) => ({ interface: name, mapFd, counterFd })),
        ringSize: io.ring_size,
        frames: io.frames,
      },
      routes,
      names: io.ports.map((port, index) => `${port.name} = ${port.interface} (${attachments[index].mode})`),
      notes,
      close,
    };
  } catch (error) {
    close();
    throw error;
  }
}

/**
 * What is wrong with the MTUs of a wire's ports: the hosts on both sides believe to be on one link. Empty if they are the same, or one
 * is not known.
 */
export function wireMtuNotes(ports: readonly { readonly name: string; readonly mtu: number | null }[]): string[] {
  const [first, second] = [...ports].sort((a, b) => (a.mtu ?? 0) - (b.mtu ?? 0));
  if (first === undefined || second === undefined || first.mtu === null || first.mtu === second.mtu) return [];
  return [
    `${first.name} has MTU ${first.mtu} and ${second.name} has MTU ${second.mtu}: in mode wire what is longer than ${first.mtu} is dropped (wire_mtu), and only senders that forbid fragments are told; give both the same (ip link set ${first.name} mtu ${second.mtu})`,
  ];
}

/** What may not be meant in the next hops of a port; `own` is its address. */
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

/** Interfaces without a device: veth, tap, bridges. */
function isVirtual(name: string): boolean {
  try {
    return readlinkSync(`/sys/class/net/${name}`).includes('/virtual/');
  } catch {
    return false; // no sysfs here, or not of this network namespace
  }
}

function checksumNote(name: string): string {
  return `${name} is a virtual interface: programs at its other end leave checksums to hardware that is not there, and their packets are dropped further on, unless it is told to make them (ethtool -K PEER tx off)`;
}

function filterOf(chain: Declaration, port: number, hosts: readonly number[]): XdpFilter {
  const owned = chain.links.flatMap(({ middlebox, options }) => middlebox.owns?.(options as never) ?? []);
  const mine = owned.filter((entry) => entry.port === port);
  const ipv6NotTo = takesIpv6(chain) ? hostsIpv6() : undefined;
  if (mine.length === 0) return { mode: 'not-to', addresses: hosts, ipv6NotTo };
  return { mode: 'to', addresses: [...new Set(mine.flatMap((entry) => entry.addresses))], ipv6NotTo };
}

const isOfIpv4 = (address: { family: string }): boolean => address.family === 'IPv4';

/** The first IPv4 address of each interface. */
function ownAddresses(): Map<string, number> {
  const own = new Map<string, number>();
  for (const [name, addresses] of Object.entries(networkInterfaces())) {
    const first = addresses?.find(isOfIpv4);
    if (first !== undefined) own.set(name, parseIpv4(first.address));
  }
  return own;
}

/** An interface's first IPv6 address, one that is valid beyond its link if there is one. */
function ownIpv6(name: string): Int32Array | null {
  const own = (networkInterfaces()[name] ?? []).filter(({ family }) => family === 'IPv6');
  const first = own.find(({ scopeid }) => scopeid === 0) ?? own[0];
  return first === undefined ? null : parseIpv6(first.address);
}

/** All of the host's that are valid beyond a link: what goes to others never comes with a link's own. */
function hostsIpv6(): Int32Array[] {
  const all = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
  return all.filter((one) => one.family === 'IPv6' && one.scopeid === 0).map(({ address }) => parseIpv6(address));
}

function macOf(bytes: Uint8Array): Mac {
  return {
    low: bytes[0] | (bytes[1] << 8) | (bytes[2] << 16) | (bytes[3] << 24),
    high: bytes[4] | (bytes[5] << 8),
  };
}
