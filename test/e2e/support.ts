/** What the end-to-end tests share. */

import { strict as assert } from 'node:assert';
import { fileURLToPath } from 'node:url';
import { distribution } from '../testbed/distribution.js';
import type { Fetched } from '../testbed/http/load.js';
import type { Program } from '../testbed/program.js';
import type { Testbed } from '../testbed/testbed.js';
import { clientOfA, clientOfB, SERVER, SERVICE_PORT, TwoSites, type TwoSitesOptions } from '../testbed/two-sites.js';

export const ORIGIN = `http://${SERVER}:${SERVICE_PORT}`;
export const CLIENTS_OF_A = Array.from({ length: 100 }, (_, i) => clientOfA(i));
export const CLIENTS_OF_B = Array.from({ length: 100 }, (_, i) => clientOfB(i));

export const UDP_FLOWS = fileURLToPath(new URL('../testbed/udp-flows.js', import.meta.url));

/** Builds the two sites, starts them, and runs a test over them. */
export async function withTwoSites(options: TwoSitesOptions, test: (sites: TwoSites) => Promise<void>): Promise<void> {
  await withNetwork(await TwoSites.build(options), async (sites) => {
    await sites.start();
    await test(sites);
  });
}

/**
 * Runs a test over a network and takes it down again. When the test fails, what the programs said
 * last is printed.
 */
export async function withNetwork<Network extends { readonly testbed: Testbed; down(): Promise<void> }>(
  network: Network,
  test: (network: Network) => Promise<void>,
): Promise<void> {
  try {
    await test(network);
  } catch (error) {
    console.log(network.testbed.report());
    throw error;
  } finally {
    await network.down();
  }
}

/** Every download brought the right bytes. */
export function assertAllFetched(fetched: readonly Fetched[], count: number): void {
  const failed = fetched.filter((one) => !one.ok);
  assert.deepEqual(failed.slice(0, 3), [], `${failed.length} of ${fetched.length} downloads failed`);
  assert.equal(fetched.length, count);
}

export function connectTimes(fetched: readonly Fetched[]): string {
  const { p50, p95, max } = distribution(fetched.map((one) => one.connect_ms));
  return `connected in ${p50} ms (median), ${p95} ms (95 %), ${max} ms (most)`;
}

/** UDP flows of a client, one from each of `count` ports on. */
export class UdpFlows {
  readonly program: Program;

  private constructor(program: Program) {
    this.program = program;
  }

  static async open(sites: TwoSites, source: string, firstPort: number, count: number): Promise<UdpFlows> {
    const argv = [process.execPath, UDP_FLOWS, source, String(firstPort), String(count), SERVER, '7'];
    const program = sites.testbed.start('client', `udp-${source}-${firstPort}`, argv);
    await program.waitFor(/^ready$/m);
    return new UdpFlows(program);
  }

  /** Starts the server they speak to. */
  static async serve(sites: TwoSites): Promise<void> {
    await sites.testbed.start('server', 'udp-echo', [process.execPath, UDP_FLOWS, 'echo', '7']).waitFor(/^ready$/m);
  }

  /** So many datagrams on every flow, back to back. */
  async send(each = 1): Promise<void> {
    const before = this.lines('sent').length;
    this.program.write(`${each}\n`);
    await this.program.until(() => (this.lines('sent').length > before ? true : null), 'to send', 10_000);
  }

  /** Waits for so many replies since the start. */
  async replies(count: number): Promise<void> {
    await this.program.until(() => (this.lines('reply').length >= count ? true : null), `${count} replies`, 10_000);
  }

  get replied(): number {
    return this.lines('reply').length;
  }

  /** To how many ports so many replies came. */
  portsWith(replies: number): number {
    const byPort = new Map<string, number>();
    for (const line of this.lines('reply')) {
      const port = line.split(' ')[1];
      byPort.set(port, (byPort.get(port) ?? 0) + 1);
    }
    return [...byPort.values()].filter((count) => count === replies).length;
  }

  /** The ports to which replies came. */
  get portsReplied(): Set<string> {
    return new Set(this.lines('reply').map((line) => line.split(' ')[1]));
  }

  async close(): Promise<void> {
    this.program.endInput();
    await this.program.stop('SIGKILL');
  }

  private lines(word: string): string[] {
    return this.program.output.split('\n').filter((line) => line.startsWith(word));
  }
}
