/**
 * The firewall with 10, 1 000 and 10 000 rules. A lookup is compared with a linear search of the
 * list. A packet in the data plane is compared with one that passes no middlebox: a packet of an
 * established connection, the first packet of a new one (with entry and log record), and one that a
 * rule drops. Each is measured in its own process, by processor time.
 */

import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { FirewallWork } from './firewall-work.js';
import type { BenchOptions, BenchResult } from './result.js';

const WORK = fileURLToPath(new URL('./firewall-work.js', import.meta.url));
const SIZES = [10, 1_000, 10_000];

async function work(data: FirewallWork): Promise<number> {
  const { stdout } = await promisify(execFile)(process.execPath, [WORK, JSON.stringify(data)]);
  return Number(stdout);
}

export async function run({ seconds }: BenchOptions): Promise<BenchResult[]> {
  const ms = seconds * 1000;
  const results: BenchResult[] = [];
  const note = (name: string, value: number, unit: string, baseline: number | null): void => {
    results.push({
      name: `firewall/${name}`,
      value,
      unit,
      baseline,
      ratio: baseline === null ? null : baseline / value,
    });
  };
  const pass = await work({ what: 'pass', rules: 10, ms });
  note('packet, no middlebox', pass, 'ns', null);
  for (const rules of SIZES) {
    const list = await work({ what: 'list', rules, ms });
    note(`lookup, list of ${rules}`, list, 'ns', null);
    note(`lookup, trees of ${rules}`, await work({ what: 'trees', rules, ms }), 'ns', list);
    for (const what of ['established', 'new', 'denied'] as const)
      note(`packet, ${what}, ${rules} rules`, await work({ what, rules, ms }), 'ns', pass);
    note(`compiling ${rules} rules`, await work({ what: 'compile', rules, ms }), 'ms', null);
  }
  return results;
}
