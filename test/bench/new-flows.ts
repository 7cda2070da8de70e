/**
 * What it costs to replicate a new flow: two sites with a NAT, and two kernels with conntrackd in
 * FTFW mode. The same flows arrive at the first of the two, one packet each, and it replicates them
 * to the second.
 *
 *     generator ── in0 ┌───┐ out0 ── sink        generator ── in0 ┌───┐ out0 ── sink
 *                      │ a ├──────── state ───────────────────────┤ b │
 *                      └───┘                                       └───┘
 *
 * Processor time is that of the send and receive threads (ours), or of the whole daemon, which does
 * nothing else (conntrackd). Bytes and packets are those of the state link, headers and
 * acknowledgements included.
 */

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Program } from '../testbed/program.js';
import { Site } from '../testbed/site.js';
import { Testbed } from '../testbed/testbed.js';
import type { Topology } from '../testbed/topology.js';
import { compileProgram, NEXT_HOP_MAC, pause, threadCpuNs } from './af-xdp-bed.js';

const FLOWS_PER_S = 20_000;
const FRAME_BYTES = 60;
/** Every flow has a single packet, and none may be evicted or kept local-only for that. */
const ALL_TOLD = { half_open: 100, half_open_records: 1_000_000 };
/** More external places than new flows, because each site leases half of them. */
const EXTERNAL = Array.from({ length: 8 }, (_, i) => `203.0.113.${i + 1}`);
const SETTLE_MS = 1500;
const SERVER = '198.51.100.1';
const STATE = { a: '10.255.0.1', b: '10.255.0.2' } as const;

/** Cost per new flow, at the sending and the receiving site. */
export interface NewFlowCost {
  readonly flows: number;
  readonly sendNs: number;
  readonly receiveNs: number;
  readonly bytes: number;
  readonly packets: number;
}

/**
 * Processor time so far, at a to send and at b to receive; and the number of flows that b knows.
 */
interface Pair {
  sendNs(): number;
  receiveNs(): number;
  known(): Promise<number>;
}

function topology(): Topology {
  const site = (name: 'a' | 'b', i: number) => [
    {
      name: `lan-${name}`,
      ends: [
        { node: 'generator', interface: `to-${name}`, addresses: [`10.${i}.0.2/16`] },
        { node: name, interface: 'in0', addresses: [`10.${i}.0.1/16`] },
      ],
    },
    {
      name: `out-${name}`,
      ends: [
        { node: name, interface: 'out0', addresses: [`192.0.2.${4 * i + 1}/30`] },
        { node: 'sink', interface: `from-${name}`, addresses: [] },
      ],
    },
  ];
  const router = (i: number) => ({ routes: [`default via 192.0.2.${4 * i + 2} dev out0`] });
  return {
    nodes: { generator: {}, a: router(1), b: router(2), sink: {} },
    links: [
      ...site('a', 1),
      ...site('b', 2),
      {
        name: 'state',
        ends: [
          { node: 'a', interface: 'state', addresses: [`${STATE.a}/24`] },
          { node: 'b', interface: 'state', addresses: [`${STATE.b}/24`] },
        ],
      },
    ],
  };
}

/**
 * Measures both, one after the other, on the same network. `beside`: whether conntrackd is
 * available.
 */
export async function newFlows(
  seconds: number,
  beside: boolean,
): Promise<{ ours: NewFlowCost; conntrackd: NewFlowCost | null }> {
  const testbed = await Testbed.build(topology());
  try {
    for (const [i, node] of ['a', 'b'].entries())
      await testbed.configure(node, `neigh replace 192.0.2.${4 * i + 6} lladdr ${NEXT_HOP_MAC} dev out0 nud permanent`);
    const bed = new Bed(testbed);
    return { ours: await ours(bed, seconds), conntrackd: beside ? await conntrackd(bed, seconds) : null };
  } finally {
    await testbed.down();
  }
}

class Bed {
  readonly testbed: Testbed;
  private readonly generator: string;
  private readonly witness: Program;

  constructor(testbed: Testbed) {
    this.testbed = testbed;
    this.generator = compileProgram(testbed.folder, 'generator');
    this.witness = testbed.start('a', 'witness', ['sleep', 'infinity']);
  }

  async measure(seconds: number, pair: Pair): Promise<NewFlowCost> {
    const { testbed } = this;
    const flows = Math.ceil(FLOWS_PER_S * (seconds + 1));
    const to = [testbed.mac('a', 'in0'), '10.1.1.1', SERVER];
    const argv = [this.generator, 'to-a', ...to, `${flows}`, `${FRAME_BYTES}`, `${FLOWS_PER_S}`];
    const [startLink, startSend, startReceive, knownBefore] = [
      this.link(),
      pair.sendNs(),
      pair.receiveNs(),
      await pair.known(),
    ];
    const generator = testbed.start('generator', 'generator', argv);
    await generator.waitFor(/ready/);
    await pause(seconds * 1000);
    await generator.stop();
    await pause(SETTLE_MS);
    const link = this.link();
    const known = (await pair.known()) - knownBefore;
    const sent = Number(/sent (\d+)/.exec(generator.output)?.[1]);
    if (known < sent * 0.9) throw new Error(`of ${sent} flows the other site knows ${known}:\n${testbed.report()}`);
    return {
      flows: known,
      sendNs: (pair.sendNs() - startSend) / known,
      receiveNs: (pair.receiveNs() - startReceive) / known,
      bytes: (link.bytes - startLink.bytes) / known,
      packets: (link.packets - startLink.packets) / known,
    };
  }

  /** Traffic of the state link in both directions so far, as a counts it. */
  private link(): { bytes: number; packets: number } {
    const line = readFileSync(`/proc/${this.witness.pid}/net/dev`, 'utf8').split('state:')[1].trim().split(/\s+/);
    return { bytes: Number(line[0]) + Number(line[8]), packets: Number(line[1]) + Number(line[9]) };
  }
}

async function ours(bed: Bed, seconds: number): Promise<NewFlowCost> {
  const members = [
    { name: 'a', id: 1, address: STATE.a },
    { name: 'b', id: 2, address: STATE.b },
  ];
  const [a, b] = (['a', 'b'] as const).map((self, i) => {
    const ports = { inside: { interface: 'in0' }, outside: { interface: 'out0', next_hop: NEXT_HOP_MAC } };
    const place = { self, members, ports, external: EXTERNAL, core: i };
    // Not sealed, because conntrackd's messages are not.
    return new Site(bed.testbed, self, place, {
      cluster: { insecure: true },
      transport: { kind: 'unicast' },
      nat: ALL_TOLD,
    });
  });
  try {
    await Promise.all([a.start(), b.start()]);
    return await bed.measure(seconds, {
      sendNs: () => threadCpuNs(a.program.pid, 'ct-send'),
      receiveNs: () => threadCpuNs(b.program.pid, 'ct-receive'),
      known: async () => (await b.counters())['state_rx_records_changed'] ?? 0,
    });
  } finally {
    await Promise.all([a.stop(), b.stop()]);
  }
}

const CONNTRACK = `
  sysctl -qw net.ipv4.ip_forward=1 net.netfilter.nf_conntrack_events=1 net.netfilter.nf_conntrack_acct=0
  nft -f - <<END
  table ip nat {
    chain postrouting {
      type nat hook postrouting priority srcnat
      oifname "out0" snat to 203.0.113.1-203.0.113.8
    }
  }
END`;

async function conntrackd(bed: Bed, seconds: number): Promise<NewFlowCost> {
  const { testbed } = bed;
  const [a, b] = await Promise.all(
    (['a', 'b'] as const).map(async (node) => {
      await testbed.run(node, ['sh', '-ec', CONNTRACK]);
      const file = join(testbed.folder, `${node}-conntrackd.conf`);
      writeFileSync(file, conntrackdConfig(testbed.folder, node));
      return testbed.start(node, `conntrackd-${node}`, ['conntrackd', '-C', file]);
    }),
  );
  await pause(1000);
  for (const program of [a, b]) if (!program.running) throw new Error(`conntrackd did not start:\n${program.tail()}`);
  try {
    return await bed.measure(seconds, {
      sendNs: () => threadCpuNs(a.pid),
      receiveNs: () => threadCpuNs(b.pid),
      known: async () => {
        const file = join(testbed.folder, 'b-conntrackd.conf');
        const { stdout } = await testbed.run('b', ['conntrackd', '-C', file, '-s', 'cache']);
        const external = stdout.slice(stdout.indexOf('external'));
        return Number(/active(?: entries| objects)?:?\s+(\d+)/.exec(external)?.[1] ?? 0);
      },
    });
  } finally {
    await Promise.all([a.stop(), b.stop()]);
  }
}

/**
 * A configuration after conntrackd's own FTFW example (conntrack-tools, doc/sync/ftfw), over UDP
 * between two nodes.
 */
function conntrackdConfig(folder: string, node: 'a' | 'b'): string {
  return `
Sync {
  Mode FTFW {
    DisableExternalCache Off
  }
  UDP {
    IPv4_address ${STATE[node]}
    IPv4_Destination_Address ${STATE[node === 'a' ? 'b' : 'a']}
    Port 3780
    Interface state
    SndSocketBuffer 4194304
    RcvSocketBuffer 4194304
    Checksum on
  }
}
General {
  Systemd Off
  HashSize 65536
  HashLimit 1048576
  LogFile Off
  Syslog Off
  LockFile ${join(folder, `${node}.lock`)}
  UNIX {
    Path ${join(folder, `${node}-ctl.sock`)}
  }
  NetlinkBufferSize 8388608
  NetlinkBufferSizeMaxGrowth 33554432
  Filter From Userspace {
    Address Ignore {
      IPv4_address 127.0.0.1
      IPv4_address ${STATE.a}
      IPv4_address ${STATE.b}
    }
  }
}
`;
}
