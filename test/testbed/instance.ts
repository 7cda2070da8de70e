/** A running instance, as seen through its admin socket. */

import { askJson } from '../../daemon/admin/client.js';
import type { CounterRow, FlowRow, ObjectRow, PeerRow, Status, ThreadRow } from '../../daemon/views/source.js';
import type { Program } from './program.js';

const SILENCE_MS_MAX = 10_000;
const POLL_MS = 50;
const START_MS_MAX = 90_000;

export class Instance {
  readonly name: string;
  readonly socket: string;
  private daemon: Program | null = null;

  constructor(name: string, socket: string) {
    this.name = name;
    this.socket = socket;
  }

  /** The daemon's program. Throws before the first start. */
  get program(): Program {
    if (this.daemon === null) throw new Error(`site ${this.name} was not started`);
    return this.daemon;
  }

  /**
   * Attaches to a daemon that was just started. Returns when it answers and its threads are ready.
   */
  async attach(program: Program): Promise<void> {
    this.daemon = program;
    const deadline = performance.now() + START_MS_MAX;
    while (!(await this.isReady())) {
      if (!program.running) throw new Error(`site ${this.name} did not start:\n${program.tail()}`);
      if (performance.now() > deadline) throw new Error(`site ${this.name} is not ready yet:\n${program.tail()}`);
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  async status(): Promise<Status> {
    return (await this.ask<Status>('status'))[0];
  }

  async peers(): Promise<PeerRow[]> {
    return this.ask('show peers');
  }

  async objects(): Promise<ObjectRow[]> {
    return this.ask('show objects');
  }

  async flows(filter = ''): Promise<FlowRow[]> {
    return this.ask(`show flows ${filter}`.trim());
  }

  async threads(): Promise<ThreadRow[]> {
    return this.ask('show threads');
  }

  /** Counter totals by name. */
  async counters(): Promise<Record<string, number>> {
    const rows = await this.ask<CounterRow>('show counters');
    return Object.fromEntries(rows.map((row) => [row.name, row.total]));
  }

  /** The values of one counter, by thread. */
  async byThread(name: string): Promise<readonly number[]> {
    const row = (await this.ask<CounterRow>(`show counters ${name}`)).find((candidate) => candidate.name === name);
    if (row === undefined) throw new Error(`site ${this.name} has no counter ${name}`);
    return row.threads;
  }

  /** Whether the instance runs and all its threads are ready. */
  async isReady(): Promise<boolean> {
    try {
      const status = await this.status();
      return (status.state === 'ready' || status.state === 'degraded') && status.threads_ready === status.threads;
    } catch {
      return false; // it does not listen yet
    }
  }

  private async ask<T>(command: string): Promise<T[]> {
    return (await askJson(this.socket, command, { silence_ms: SILENCE_MS_MAX })) as T[];
  }
}

/**
 * Repeats `probe` until its result is not `null`. After the timeout, fails with an error that names
 * `what`.
 */
export async function eventually<T>(what: string, probe: () => Promise<T | null>, timeoutMs = 30_000): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const found = await probe();
    if (found !== null) return found;
    if (performance.now() > deadline) throw new Error(`waited ${timeoutMs} ms in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/**
 * Waits until all records are acknowledged and all instances hold the same content. Returns the
 * common digests.
 */
export async function converged(instances: readonly Instance[], timeoutMs = 30_000): Promise<Record<string, string>> {
  let last = '';
  const agreed = async (): Promise<Record<string, string> | null> => {
    const all = await Promise.all(instances.map((instance) => instance.objects()));
    const owing = all.flat().some((object) => object.unacknowledged_records > 0);
    const digests = all.map((objects) => Object.fromEntries(objects.map((object) => [object.name, object.digest])));
    last = JSON.stringify(all);
    return !owing && digests.every((each) => JSON.stringify(each) === JSON.stringify(digests[0])) ? digests[0] : null;
  };
  return eventually('all sites to hold the same', agreed, timeoutMs).catch((error: Error) => {
    throw new Error(`${error.message}: ${last}`);
  });
}
