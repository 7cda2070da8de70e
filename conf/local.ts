/** What concerns this host alone: its threads, its ports, how it is administered. */

import { z } from 'zod';
import { expected } from './messages.js';
import { interfaceName, ipv4OrMac, ipv6OrMac, mac, path, powerOfTwo, whole } from './values.js';

const core = () => whole(0, 1023);

/** A worker is a thread slot, and lock words hold slots in one byte beside those of the send and receive thread. */
export const WORKERS_MAX = 128;

export const threadsSchema = z
  .strictObject({
    workers: z
      .array(core())
      .min(1)
      .max(WORKERS_MAX)
      .default([0])
      .describe(
        'One data plane worker runs on each core named. The receive queues of every interface are spread over the workers, so an interface needs at least as many queues as there are workers.',
      ),
    send: core().optional().describe('Core of the thread that sends state messages. Absent: the kernel chooses.'),
    receive: core().optional().describe('Core of the thread that receives state messages. Absent: the kernel chooses.'),
    idle: z
      .enum(['sleep', 'spin'])
      .default('sleep')
      .describe(
        'What a worker without packets does. sleep: it waits in the kernel and gives its core away. spin: it asks again at once, which saves some microseconds and costs the whole core.',
      ),
  })
  .describe('Which threads run on which cores.');

const afXdpSchema = z.strictObject({
  driver: z.literal('af_xdp').describe('Packets of network interfaces, through AF_XDP sockets.'),
  mode: z
    .enum(['auto', 'native', 'generic'])
    .default('auto')
    .describe(
      'Where the XDP program runs. native: in the interface’s driver (fastest on real interfaces). generic: in the kernel’s network stack (works with every interface, and is the faster one on veth). auto: native where the interface has it.',
    ),
  ring_size: powerOfTwo(64, 32_768)
    .default(4096)
    .describe(
      'Entries of each AF_XDP ring. Small rings lose bursts. If a worker serves several queues of an interface, each gets its share, of at least 64.',
    ),
  // The default: every ring of two ports full, and two batches in hand. Packet memory is at most 2 GiB.
  frames: whole(256, 2 ** 20 - 2)
    .default(2 * 2 * 4096 + 128)
    .describe(
      'Packet buffers per worker, shared by all of its ports; of 2048 bytes, or of 4096 where the MTU of a port is above 1760.',
    ),
});

const pcapSchema = z.strictObject({
  driver: z.literal('pcap').describe('Packets of capture files, without privileges: for trying out and for tests.'),
  pace: z
    .enum(['asap', 'recorded'])
    .default('asap')
    .describe('asap: packets come as fast as they can be read. recorded: with the gaps they were captured with.'),
});

export const modeSchema = z
  .enum(['route', 'wire'])
  .default('route')
  .describe(
    'How the instance stands in the network. route: as an IP hop, with addresses and next hops of its own. wire: between two ports, by which frames pass with their addresses unchanged; ARP and other protocols that keep the link going pass unseen.',
  );

export const vlansSchema = z
  .enum(['separate', 'together'])
  .default('separate')
  .describe(
    'Mode wire only. separate: equal addresses on different VLANs are different hosts, so a connection, its fragments and a block belong to one VLAN. together: VLAN tags are ignored; needed if the two directions of a connection carry different tags.',
  );

export const unknownEthertypesSchema = z
  .enum(['drop', 'pass'])
  .default('drop')
  .describe(
    'Mode wire only: what becomes of frames whose payload no middlebox can inspect, such as MPLS, MACsec, more than four VLAN tags, or IPX. drop: they are dropped (parse_unknown_ethertype). pass: they pass unseen (unknown_ethertype_passed), also through a firewall whose policy is drop. ARP, LLDP, spanning tree and other protocols that keep the link going always pass.',
  );

export const sourceRoutesSchema = z
  .enum(['drop', 'pass'])
  .default('drop')
  .describe(
    'What becomes of packets that name nodes to visit on their way: IPv4 with a loose or strict source route, IPv6 with a routing header of type 0, or of any other type but 2 while segments are left. drop: they are dropped (parse_source_route), as the kernel does. pass: well-formed ones pass; rules see the address of the next node, not of the last.',
  );

export const earlyRepliesSchema = z
  .strictObject({
    wait: z
      .enum(['auto', 'never'])
      .default('auto')
      .describe(
        'auto: while another member is heard, a packet that can be the first reply to a request which left by another site waits for that site’s record. It waits at most for the longest round trip to expect from a member, and 50 ms. never: it is dropped, or meets the rules, at once.',
      ),
    wait_ms_max: whole(1, 1000)
      .default(250)
      .describe('Milliseconds that such a packet waits at most, whatever was measured.'),
  })
  .describe(
    'Replies that come before the state they belong to, where routes are asymmetric. The NAT and the firewall make them wait.',
  );

export const packetIoSchema = z
  .discriminatedUnion('driver', [afXdpSchema, pcapSchema])
  .describe('Where packets come from and go to.');

export const afXdpPortSchema = z.strictObject({
  interface: interfaceName().describe('The network interface.'),
  next_hop: ipv4OrMac()
    .optional()
    .describe(
      'The router behind this port, by IPv4 address (found through the kernel’s neighbour table) or MAC address; the latter is for IPv6, too, unless there is next_hop6. Absent: destinations are on the link themselves. Not in mode wire.',
    ),
  next_hop6: ipv6OrMac()
    .optional()
    .describe(
      'The router behind this port for IPv6, by IPv6 address (found by the kernel’s neighbour discovery; a link-local one is that of this port’s link) or MAC address. Absent: that of next_hop if it is a MAC address, else destinations are on the link themselves. Of use where a middlebox handles IPv6. Not in mode wire.',
    ),
});

export const pcapPortSchema = z.strictObject({
  in: path().optional().describe('Capture file (classic pcap) with the packets that arrive here. Absent: none arrive.'),
  out: path()
    .optional()
    .describe('Capture file to write with the packets that leave here. Absent: they are discarded.'),
  mac: mac().optional().describe('The port’s own MAC address: source of what leaves. In mode route, and only there.'),
  next_hop: mac()
    .optional()
    .describe(
      'MAC address that packets leaving here are sent to; a file has no neighbour table to ask. In mode route, and only there.',
    ),
});

export const adminSchema = z
  .strictObject({
    socket: path()
      .default('/run/constellation/constellation.sock')
      .describe('Unix socket for the `constellation` command and for socat. Its folder has to exist.'),
  })
  .describe('How the instance is administered.');

export const logSchema = z
  .strictObject({
    level: z
      .enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal'])
      .default('info')
      .describe('The least important messages that are logged.'),
  })
  .describe('What is logged, to standard error.');

export const recordsSchema = z
  .strictObject({
    file: path()
      .optional()
      .describe(
        'File that alerts and other records of middleboxes are appended to, one JSON object a line. It is opened anew on SIGHUP and by reload records. Absent: none is written.',
      ),
    keep: whole(1, 100_000).default(1000).describe('Records of each type kept in memory, for show records.'),
  })
  .describe('What middleboxes record: alerts, bindings and the like.');

/** A program with its arguments, which no shell looks at. */
const hook = (when: string) =>
  z
    .array(
      z
        .string({ error: expected('text (put it in quotes)') })
        .min(1)
        .max(4096),
    )
    .min(1)
    .max(64)
    .optional()
    .describe(`${when} A list: the program, then its arguments; no shell runs it. Absent: nothing is run.`);

export const hooksSchema = z
  .strictObject({
    on_ready: hook('Run when the instance has joined and takes packets, as to announce a route.'),
    on_drain: hook('Run before the instance takes no new flows: by drain, and when it stops. Withdraw the route here.'),
    on_member_lost: hook('Run when another member falls silent or is evicted.'),
    timeout_s: whole(1, 600)
      .default(10)
      .describe('A hook that takes longer is ended, with all that it started. Stopping waits for on_drain.'),
  })
  .describe(
    'Programs run when something happens. CONSTELLATION_EVENT, _CLUSTER, _SELF, and of a member lost _MEMBER, _MEMBER_ID, _MEMBER_ADDRESS and _REASON are in their environment; what they print is logged.',
  );
