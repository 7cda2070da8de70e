/**
 * The options of an instance that concern only its host: threads, packets, ports, and
 * administration.
 */

import { allSites, HOT, option } from './option.js';

/**
 * A worker is a thread slot. Lock words hold slots in one byte, including those of the send and the
 * receive thread.
 */
const WORKERS_MAX = 128;
const CORE_MAX = 1023;

export const THREADS = {
  workers: option.counts(
    'One data plane worker runs on each core named. The receive queues of every interface are spread over the workers, so an interface needs at least as many queues as there are workers.',
    [0],
    { min: 0, max: CORE_MAX, entries: WORKERS_MAX },
  ),
  send: option.someCount('Core of the thread that sends state messages. Absent: the kernel chooses.', {
    min: 0,
    max: CORE_MAX,
  }),
  receive: option.someCount('Core of the thread that receives state messages. Absent: the kernel chooses.', {
    min: 0,
    max: CORE_MAX,
  }),
  idle: option.choice(
    'What a worker without packets does. sleep: it waits in the kernel and gives its core away. spin: it asks again at once, which saves some microseconds and costs the whole core.',
    ['sleep', 'spin'],
    'sleep',
  ),
};

export const AF_XDP = {
  mode: option.choice(
    'Where the XDP program runs. native: in the interface’s driver (fastest on real interfaces). generic: in the kernel’s network stack (works with every interface, and is the faster one on veth). auto: native where the interface has it.',
    ['auto', 'native', 'generic'],
    'auto',
  ),
  ring_size: option.count(
    'Entries of each AF_XDP ring. Small rings lose bursts. If a worker serves several queues of an interface, each gets its share, of at least 64.',
    4096,
    { min: 64, max: 32_768, powerOfTwo: true },
  ),
  // The default fills every ring of two ports and leaves two batches in hand. Packet memory is at
  // most 2 GiB.
  frames: option.count(
    'Packet buffers per worker, shared by all of its ports; of 2048 bytes, or of 4096 where the MTU of a port is above 1760.',
    2 * 2 * 4096 + 128,
    { min: 256, max: 2 ** 20 - 2 },
  ),
};

export const PCAP = {
  pace: option.choice(
    'asap: packets come as fast as they can be read. recorded: with the gaps they were captured with.',
    ['asap', 'recorded'],
    'asap',
  ),
};

/** Options that belong to no section. */
export const PLACE = {
  mode: option.choice(
    'How the instance stands in the network. route: as an IP hop, with addresses and next hops of its own. wire: between two ports, by which frames pass with their addresses unchanged; ARP and other protocols that keep the link going pass unseen.',
    ['route', 'wire'],
    'route',
  ),
  vlans: option.choice(
    'Mode wire only. separate: equal addresses on different VLANs are different hosts, so a connection, its fragments and a block belong to one VLAN. together: VLAN tags are ignored; needed if the two directions of a connection carry different tags.',
    ['separate', 'together'],
    'separate',
    { change: allSites('the VLAN is part of the keys of connections, or not') },
  ),
  unknown_ethertypes: option.choice(
    'Mode wire only: what becomes of frames whose payload no middlebox can inspect, such as MPLS, MACsec, more than four VLAN tags, or IPX. drop: they are dropped (parse_unknown_ethertype). pass: they pass unseen (unknown_ethertype_passed), also through a firewall whose policy is drop. ARP, LLDP, spanning tree and other protocols that keep the link going always pass.',
    ['drop', 'pass'],
    'drop',
  ),
  source_routes: option.choice(
    'What becomes of packets that name nodes to visit on their way: IPv4 with a loose or strict source route, IPv6 with a routing header of type 0, or of any other type but 2 while segments are left. drop: they are dropped (parse_source_route), as the kernel does. pass: well-formed ones pass; rules see the address of the next node, not of the last.',
    ['drop', 'pass'],
    'drop',
  ),
};

export const EARLY_REPLIES = {
  wait: option.choice(
    'auto: while another member is heard, a packet that can be the first reply to a request which left by another site waits for that site’s record. It waits at most for twice the longest round trip to expect from a member, and 50 ms. never: it is dropped, or meets the rules, at once.',
    ['auto', 'never'],
    'auto',
  ),
  wait_ms_max: option.count('How long such a packet waits at most, whatever was measured.', 250, {
    max: 1000,
    unit: 'ms',
    change: HOT,
  }),
};

export const AF_XDP_PORT = {
  interface: option.form('interface', 'The network interface.'),
  next_hop: option.someForm(
    'next-hop',
    'The router behind this port, by IPv4 address (found through the kernel’s neighbour table) or MAC address; the latter is for IPv6, too, unless there is next_hop6. Absent: destinations are on the link themselves. Not in mode wire.',
  ),
  next_hop6: option.someForm(
    'next-hop6',
    'The router behind this port for IPv6, by IPv6 address (found by the kernel’s neighbour discovery; a link-local one is that of this port’s link) or MAC address. Absent: that of next_hop if it is a MAC address, else destinations are on the link themselves. Of use where a middlebox handles IPv6. Not in mode wire.',
  ),
};

export const PCAP_PORT = {
  in: option.someForm('path', 'Capture file (classic pcap) with the packets that arrive here. Absent: none arrive.'),
  out: option.someForm('path', 'Capture file to write with the packets that leave here. Absent: they are discarded.'),
  mac: option.someForm('mac', 'The port’s own MAC address: source of what leaves. In mode route, and only there.'),
  next_hop: option.someForm(
    'mac',
    'MAC address that packets leaving here are sent to; a file has no neighbour table to ask. In mode route, and only there.',
  ),
};

export const ADMIN = {
  socket: option.form(
    'path',
    'Unix socket for the `constellation` command and for socat. Its folder has to exist.',
    '/run/constellation/constellation.sock',
  ),
};

export const LOG = {
  level: option.choice(
    'The least important messages that are logged.',
    ['trace', 'debug', 'info', 'warn', 'error', 'fatal'],
    'info',
    { change: HOT },
  ),
};

export const RECORDS = {
  file: option.someForm(
    'path',
    'File that alerts and other records of middleboxes are appended to, one JSON object a line. It is reopened on SIGHUP, by reload and by reload records. Absent: none is written.',
    { change: HOT },
  ),
  keep: option.count('Records of each type kept in memory, for show records.', 1000, { max: 100_000, change: HOT }),
};

/** A program with its arguments. No shell interprets them. */
const hook = (when: string) =>
  option.program(`${when} A list: the program, then its arguments; no shell runs it. Absent: nothing is run.`, {
    change: HOT,
  });

export const HOOKS = {
  on_ready: hook(
    'Run when the instance takes packets and nothing is wrong, for the first time. Announce a route here.',
  ),
  on_degraded: hook(
    'Run when something is wrong with an instance that takes packets: CONSTELLATION_REASON says what. Withdraw the route here.',
  ),
  on_recovered: hook('Run when nothing is wrong any more. Announce the route again here.'),
  on_drain: hook('Run before the instance takes no new flows: by drain, and when it stops. Withdraw the route here.'),
  on_member_lost: hook('Run when another member falls silent or is evicted.'),
  timeout_s: option.seconds(
    'A hook that takes longer is ended, with all that it started. Stopping waits for on_drain.',
    10,
    { max: 600, change: HOT },
  ),
};
