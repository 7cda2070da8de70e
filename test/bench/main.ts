/**
 * `npm run bench -- NAME… [--json] [--seconds N]`: runs benchmarks. Each measures its baseline in
 * the same run.
 */

import { Command, InvalidArgumentError } from 'commander';
import { machineLine } from '../../daemon/lifecycle/machine.js';
import type { Bench, BenchResult } from './result.js';

interface Entry {
  readonly help: string;
  load(): Promise<{ run: Bench }>;
}

const BENCHES: Record<string, Entry> = {
  ring: { help: 'the log ring, in one thread and between two, beside ringbuf.js', load: () => import('./ring.js') },
  nat: { help: 'the in-memory NAT loop, beside the same loop in C', load: () => import('./nat.js') },
  middleboxes: {
    help: 'each middlebox, at rest and under new flows: ns per packet, beside passing packets through',
    load: () => import('./middleboxes.js'),
  },
  firewall: {
    help: 'the firewall at 10, 1 000 and 10 000 rules: lookup beside the list, packets beside no middlebox',
    load: () => import('./firewall.js'),
  },
  nftables: {
    help: 'the firewall on a veth topology, beside the kernel with nftables and the same rules (root)',
    load: () => import('./nftables.js'),
  },
  objects: {
    help: 'every state object: ns per operation, log record included, beside a plain Map or array',
    load: () => import('./objects.js'),
  },
  wire_forms: {
    help: 'totals and increments: bytes on the wire, memory and time at 2, 3 and 8 members',
    load: () => import('./wire-forms.js'),
  },
  replication: {
    help: 'records end to end, a new flow beside conntrackd, what coalescing saves (root)',
    load: () => import('./replication.js'),
  },
  first_packets: {
    help: 'first packets over asymmetric routes: replies lost, time added, beside what is left of the delay (root)',
    load: () => import('./first-packets.js'),
  },
  ports: {
    help: 'ports that two sites choose at once: collisions and splits by allocation, beside 2·λ²·D/P',
    load: () => import('./ports.js'),
  },
  early_replies: {
    help: 'established flows in a flood of unsolicited packets that may wait: ns per packet, beside nothing that waits',
    load: () => import('./early-replies.js'),
  },
  flood_loss: {
    help: 'established packets of a NAT on AF_XDP lost in a flood of unsolicited ones, beside nothing that waits (root)',
    load: () => import('./flood-loss.js'),
  },
  seal: { help: 'what sealing costs a message, beside sending it unsealed', load: () => import('./seal.js') },
  snapshot: {
    help: 'snapshots by fork under load at 1, 64 and 256 MiB: pause, copy time, packets lost, beside the load alone',
    load: () => import('./snapshot.js'),
  },
  idps: {
    help: 'whom the IDPS flags in captures of real traffic, beside a plain threshold of failed contacts',
    load: () => import('./idps.js'),
  },
  idps_leak: {
    help: 'packets that pass one site after another blocked them, at 5 ms between them (root)',
    load: () => import('./idps-leak.js'),
  },
  af_xdp: {
    help: 'forwarding on a veth topology: the NAT, a forwarder in C, the kernel with nftables (root)',
    load: () => import('./af-xdp.js'),
  },
};

function positive(text: string): number {
  const value = Number(text);
  if (!(value > 0 && value <= 600)) throw new InvalidArgumentError('seconds from 0 to 600 are wanted.');
  return value;
}

const figure = (value: number): string => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(3));

function print(results: readonly BenchResult[]): void {
  const rows = results.map((r) => [
    r.name,
    figure(r.value),
    r.unit,
    r.baseline === null
      ? results.some((other) => other.baseline === r.value)
        ? 'baseline'
        : ''
      : `baseline ${figure(r.baseline)}`,
    r.ratio === null ? '' : `ratio ${r.ratio.toFixed(2)}`,
  ]);
  const widths = [0, 1, 2, 3, 4].map((column) => Math.max(0, ...rows.map((row) => row[column].length)));
  for (const row of rows)
    console.log(
      row
        .map((cell, i) => (i === 1 ? cell.padStart(widths[i]) : cell.padEnd(widths[i])))
        .join('  ')
        .trimEnd(),
    );
}

const program = new Command('npm run bench --')
  .description('Measures, and prints each figure beside its baseline from the same run. A ratio above 1 is better.')
  .argument('<name...>', `what to measure: ${Object.keys(BENCHES).join(', ')}, or all`)
  .option('--json', 'one object per line: name, value, unit, baseline, ratio', false)
  .option('--seconds <n>', 'how long one measurement lasts, about', positive, 3)
  .option('--quick', 'fewer cases, where a benchmark has many', false)
  .addHelpText(
    'after',
    `\n${Object.entries(BENCHES)
      .map(([name, { help }]) => `  ${name.padEnd(13)} ${help}`)
      .join('\n')}`,
  )
  .action(async (names: string[], options: { json: boolean; seconds: number; quick: boolean }) => {
    const chosen = names.includes('all') ? Object.keys(BENCHES) : names;
    const unknown = chosen.filter((name) => !Object.hasOwn(BENCHES, name));
    if (unknown.length > 0)
      program.error(`unknown benchmark ${unknown.join(', ')}; there are ${Object.keys(BENCHES).join(', ')}`, {
        exitCode: 2,
      });
    if (!options.json) console.log(await machineLine());
    for (const name of chosen) {
      const { run } = await BENCHES[name].load();
      const results = await run(options);
      if (options.json) for (const result of results) console.log(JSON.stringify(result));
      else print(results);
    }
  });

await program.parseAsync();
