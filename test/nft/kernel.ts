/**
 * The kernel's nftables as an oracle: a network namespace that forwards between `inside` and
 * `outside`, and rulesets in it.
 *
 *     hin ═══ inside │ forwards │ outside ═══ hout
 *
 * Many rulesets are loaded at once, each as a chain of its own: the source address of the Ethernet
 * header says which one a packet is for, and the zone of connection tracking, so that they do not
 * share connections.
 */

import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { findCompiler, PROJECT } from '../testbed/compile.js';
import { type Packet, TRAILER_BYTES } from './packets.js';

const NEXT_HOP = '02:00:00:00:ff:01';
const MARKED = '02:00:00:00:ff:02';
const ETHERNET_BYTES = 14;
const SETTLE = `
for i in all default inside outside; do
  echo 1 > /proc/sys/net/ipv4/conf/$i/forwarding
  echo 0 > /proc/sys/net/ipv4/conf/$i/rp_filter
  echo 0 > /proc/sys/net/ipv4/conf/$i/send_redirects
  echo 1 > /proc/sys/net/ipv6/conf/$i/forwarding
done
for i in hin hout; do echo 1 > /proc/sys/net/ipv6/conf/$i/disable_ipv6; done
echo 0 > /proc/sys/net/netfilter/nf_conntrack_tcp_loose
# The kernel computes checksums of UDP-Lite in a way of its own; wrong checksums are no part of what rules mean.
echo 0 > /proc/sys/net/netfilter/nf_conntrack_checksum
# Answers without limits.
echo 0 > /proc/sys/net/ipv4/icmp_ratelimit
echo 0 > /proc/sys/net/ipv4/icmp_ratemask
echo 1000000000 > /proc/sys/net/ipv4/icmp_msgs_per_sec
echo 1000000000 > /proc/sys/net/ipv4/icmp_msgs_burst
echo 0 > /proc/sys/net/ipv6/icmp/ratelimit
echo > /proc/sys/net/ipv6/icmp/ratemask
`;

/** What came out, by interface. */
export interface Arrived {
  readonly port: number;
  /** From the IP header on. */
  readonly ip: Buffer;
}

/** The text of one chain: each rule may be some lines, one of which counts. */
export type KernelChain = readonly (readonly string[])[];

export class KernelRefusal extends Error {
  /** Chain and rule of each line that nft refuses. */
  readonly places: readonly { readonly chain: number; readonly rule: number; readonly says: string }[];

  constructor(places: KernelRefusal['places'], says: string) {
    super(says);
    this.places = places;
  }
}

export class KernelFirewall {
  private readonly name: string;
  private readonly injector: string;

  constructor(name: string) {
    this.name = name;
    this.injector = compiledInjector();
    execFileSync('ip', ['netns', 'add', name]);
    try {
      this.run('sh', ['-e'], this.plan());
    } catch (error) {
      this.close();
      throw error;
    }
  }

  private plan(): string {
    const ports = [
      { inner: 'inside', outer: 'hin', table: 101, v4: '192.0.2.1' },
      { inner: 'outside', outer: 'hout', table: 102, v4: '203.0.113.1' },
    ];
    const lines = ports.flatMap(({ inner, outer, v4 }, n) => [
      `ip link add ${inner} address 02:00:00:00:fe:0${n} type veth peer name ${outer}`,
      `ip link set ${outer} up`,
      `ip link set ${inner} up`,
      `echo 0 > /proc/sys/net/ipv6/conf/${inner}/accept_dad`,
      `ip addr add ${v4}/32 dev ${inner}`,
      `ip neigh replace 192.0.2.9${n} lladdr ${NEXT_HOP} dev ${inner} nud permanent`,
      `ip -6 neigh replace fe80::9${n} lladdr ${NEXT_HOP} dev ${inner} nud permanent`,
    ]);
    for (const [n, { inner, table }] of ports.entries()) {
      const { inner: other } = ports[1 - n];
      lines.push(
        `ip rule add iif ${inner} lookup ${table}`,
        `ip -6 rule add iif ${inner} lookup ${table}`,
        `ip route add default via 192.0.2.9${1 - n} dev ${other} onlink table ${table}`,
        `ip -6 route add default via fe80::9${1 - n} dev ${other} table ${table}`,
      );
    }
    lines.push(
      'ip route add default via 192.0.2.90 dev inside onlink',
      'ip -6 route add default via fe80::90 dev inside',
    );
    return `ip link set lo up\n${lines.join('\n')}\n${SETTLE}`;
  }

  private run(program: string, argv: readonly string[], input: string | Buffer, bytes = 1 << 20): Buffer {
    const { status, stdout, stderr, error } = spawnSync('ip', ['netns', 'exec', this.name, program, ...argv], {
      input,
      maxBuffer: bytes,
    });
    if (error !== undefined) throw error;
    if (status !== 0) throw new Error(`${program}: ${stderr.toString().trim()}`);
    return stdout;
  }

  /**
   * Replaces all rulesets. The connections of each are in a zone of their own, the first in zone
   * `zone`. Throws a `KernelRefusal` that says which rules nft refuses.
   */
  load(chains: readonly KernelChain[], zone: number): void {
    const lines: string[] = [];
    const places: { chain: number; rule: number }[] = [];
    const push = (line: string, chain = -1, rule = -1): void => {
      lines.push(line);
      places.push({ chain, rule });
    };
    push('flush ruleset');
    push('table inet diff {');
    for (const [n, rules] of chains.entries())
      for (const rule of rules.keys()) push(`counter ${counterOf(n, rule)} { }`);
    for (const [n, rules] of chains.entries()) {
      push(`chain r${n} {`);
      push('ct state established accept');
      for (const [rule, texts] of rules.entries()) for (const text of texts) push(counting(text, n, rule), n, rule);
      push('}');
    }
    push('chain zones { type filter hook prerouting priority raw;');
    push(`ether saddr ${MARKED} notrack accept`);
    push(`ct zone set ether saddr map { ${chains.map((_, n) => `${macOf(n)} : ${zone + n}`).join(', ')} }\n}`);
    push('chain forward { type filter hook forward priority filter; policy drop;');
    push(`ether saddr ${MARKED} accept`);
    push(`ether saddr vmap { ${chains.map((_, n) => `${macOf(n)} : goto r${n}`).join(', ')} }\n}\n}`);
    try {
      this.run('nft', ['-f', '-'], lines.join('\n'), 1 << 26);
    } catch (error) {
      const { message } = error as Error;
      const refused = [...message.matchAll(/:(\d+):[\d-]+: Error: (.*)/g)].map(([, line, says]) => ({
        ...places[Number(line) - 1],
        says: `${says}: ${lines[Number(line) - 1]}`,
      }));
      if (refused.length === 0 || refused.some(({ chain }) => chain < 0)) throw error;
      throw new KernelRefusal(refused, message);
    }
  }

  /** Replaces all rulesets by one, and returns what nft lists of it. */
  loadWhole(text: string): string {
    this.run('nft', ['-f', '-'], `flush ruleset\n${text}`);
    return this.run('nft', ['list', 'ruleset'], '', 1 << 24).toString();
  }

  /**
   * Inserts a text before the rules of chains (`FAMILY TABLE CHAIN`), lets markers pass them, and
   * tracks connections in a zone.
   */
  insert(rules: readonly { readonly chain: string; readonly text: string }[], zone: number): void {
    const lines = [
      'table inet marker { chain pre { type filter hook prerouting priority raw;',
      `ether saddr ${MARKED} notrack accept`,
      `ct zone set ${zone}\n}\n}`,
      ...rules.filter(({ text }) => text !== '').map(({ chain, text }) => `insert rule ${chain} ${text}`),
      ...[...new Set(rules.map(({ chain }) => chain))].map(
        (chain) => `insert rule ${chain} ether saddr ${MARKED} accept`,
      ),
    ];
    this.run('nft', ['-f', '-'], lines.join('\n'));
  }

  /** What came out of packets, which are each for a ruleset. */
  pass(packets: readonly { readonly ruleset: number; readonly packet: Packet }[]): Arrived[] {
    const frames = [framed(0, marker(), MARKED)];
    for (const { ruleset, packet } of packets) frames.push(framed(packet.port, packet.ip, macOf(ruleset)));
    const out = this.run(this.injector, ['hin', 'hout'], Buffer.concat(frames), 1 << 28);
    const arrived: Arrived[] = [];
    for (let at = 0; at < out.length; ) {
      const bytes = out.readUInt16LE(at + 1);
      const frame = out.subarray(at + 3, at + 3 + bytes);
      arrived.push({ port: out[at], ip: frame.subarray(ETHERNET_BYTES) });
      at += 3 + bytes;
    }
    return arrived;
  }

  /**
   * Packets counted by each rule of each ruleset. Rules are not listed: some of those that nft
   * loads, it fails to list.
   */
  counts(chains: readonly KernelChain[]): number[][] {
    const listed = JSON.parse(
      this.run('nft', ['-j', 'list', 'counters', 'table', 'inet', 'diff'], '', 1 << 28).toString(),
    );
    const counted = new Map<string, number>();
    for (const { counter } of listed.nftables) if (counter !== undefined) counted.set(counter.name, counter.packets);
    return chains.map((rules, n) => rules.map((_, rule) => counted.get(counterOf(n, rule)) ?? 0));
  }

  close(): void {
    execFileSync('ip', ['netns', 'del', this.name]);
  }
}

function counterOf(ruleset: number, rule: number): string {
  return `n${ruleset}_${rule}`;
}

/** The text of a rule with the counter of its own. */
function counting(text: string, ruleset: number, rule: number): string {
  return text.replace(/\bcounter\b/, `counter name "${counterOf(ruleset, rule)}"`);
}

function compiledInjector(): string {
  const source = join(PROJECT, 'test', 'nft', 'inject.c');
  const folder = join(PROJECT, 'dist', 'test', 'nft');
  const program = join(folder, `inject-${statSync(source).mtimeMs}`);
  mkdirSync(folder, { recursive: true });
  const compiler = findCompiler();
  if (compiler === null) throw new Error('there is no C compiler');
  if (statSync(program, { throwIfNoEntry: false }) === undefined)
    execFileSync(compiler, ['-std=gnu11', '-O2', '-Wall', '-Wextra', '-o', program, source], { stdio: 'pipe' });
  return program;
}

/** The source address of frames for a ruleset. */
function macOf(ruleset: number): string {
  return `02:00:00:01:${[ruleset >> 8, ruleset & 255].map((byte) => byte.toString(16).padStart(2, '0')).join(':')}`;
}

function framed(port: number, ip: Buffer, from: string): Buffer {
  const head = Buffer.alloc(3 + ETHERNET_BYTES);
  head[0] = port;
  head.writeUInt16LE(ETHERNET_BYTES + ip.length, 1);
  head.set([2, 0, 0, 0, 0xfe, port], 3);
  head.set(
    from.split(':').map((byte) => Number.parseInt(byte, 16)),
    9,
  );
  head.writeUInt16BE(ip[0] >>> 4 === 4 ? 0x0800 : 0x86dd, 15);
  return Buffer.concat([head, ip]);
}

/** A UDP packet that inject.c knows by its last bytes. */
function marker(): Buffer {
  const ip = Buffer.from('4500002400000000401100000a0000010a000002000100010010000000000000', 'hex');
  const bytes = Buffer.concat([ip.subarray(0, 28), Buffer.from('c0f1a7e5ffffffff', 'hex')]);
  let sum = 0;
  for (let at = 0; at < 20; at += 2) sum += bytes.readUInt16BE(at);
  bytes.writeUInt16BE(~((sum & 0xffff) + (sum >>> 16)) & 0xffff, 10);
  if (bytes.length !== 28 + TRAILER_BYTES) throw new Error('marker');
  return bytes;
}
