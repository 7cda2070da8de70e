/**
 * Floods the receive thread of an instance that has state, and looks what became of it. The thread
 * is the real one (workers/engine/receive.ts) but for the socket.
 *
 * | mode     | what comes                                                   | what must not change                            |
 * | -------- | ------------------------------------------------------------ | ----------------------------------------------- |
 * | sealed   | random, mutated, replayed and forged datagrams                | anything: state objects, boards, logs, byte by byte |
 * | unsealed | the same, forged in facts that a member can check             | state objects byte by byte; vectors                |
 * | hostile  | messages of right checksum and whatever inside, without a key | the thread goes on; memory stays; objects are whole |
 */

import { AckBoard, VectorRecord } from '../../shm/ack-board.js';
import { RejectTable } from '../../shm/reject-table.js';
import { replicationSettings } from '../../workers/replication/settings.js';
import { newKey } from '../../workers/replication/wire/cluster-key.js';
import { DatagramFuzzer } from './datagrams.js';
import { FuzzInstance } from './instance.js';

export const MODES = ['sealed', 'unsealed', 'hostile'] as const;
export type Mode = (typeof MODES)[number];

const MEMBERS = 3;
/** The one that is flooded. */
const VICTIM = 1;
const OPERATIONS = 400;
const SOURCES = 5000;
/** Operations of every member after the flood. */
const AFTERWARDS = 10;
/**
 * Hostile messages end lives of members, and then those members are not heard any more: so a
 * cluster takes only so many, and other incarnations come only at the end.
 */
const HOSTILE_ROUND = 1_000_000;
const HOSTILE_LIVES = 0.99;
const SETTLE_MS_MAX = 20_000;
/**
 * Between two looks at memory; and messages before the first, so that all is compiled and every
 * table has grown.
 */
const LOOK_EVERY = 50_000;

export interface FuzzOptions {
  readonly mode: Mode;
  readonly messages: number;
  readonly seed: number;
  readonly onProgress?: (done: number, rssMiB: number) => void;
}

export interface FuzzReport {
  readonly mode: Mode;
  readonly messages: number;
  readonly seconds: number;
  readonly byKind: Readonly<Record<string, number>>;
  /** Refused, by reason; `accepted`: the rest. */
  readonly byReason: Readonly<Record<string, number>>;
  readonly rssMiB: { readonly start: number; readonly end: number };
  readonly heapMiB: { readonly start: number; readonly end: number };
  readonly digests: readonly string[];
  /** What went wrong; empty: nothing did. */
  readonly problems: readonly string[];
}

class Cluster {
  readonly instances: FuzzInstance[];
  readonly recorded: Uint8Array[] = [];
  private recording = true;
  private readonly inFlight: { readonly from: number; readonly bytes: Uint8Array }[] = [];
  private done = 0;

  constructor(sealed: boolean) {
    const members = Array.from({ length: MEMBERS }, (_, i) => ({
      id: 10 * (i + 1),
      name: `m${i}`,
      address: `127.0.0.${i + 1}`,
      port: 7400,
    }));
    const keys = sealed ? [newKey(1), newKey(2)] : null;
    this.instances = members.map(({ id }, from) => {
      const settings = replicationSettings({
        clusterId: 0xf022,
        self: id,
        members,
        // Members are still during the flood; nobody is to think that they are gone.
        silentMs: 600_000,
        keepaliveMs: 600_000,
        retransmitMsInitial: 50,
        unitLogBytes: 1 << 18,
        foreignLogBytes: 1 << 18,
      });
      return new FuzzInstance(settings, keys, (bytes) => this.inFlight.push({ from, bytes }));
    });
  }

  get victim(): FuzzInstance {
    return this.instances[VICTIM];
  }

  async open(): Promise<void> {
    for (const instance of this.instances) await instance.open();
  }

  /** Operations at every member, until all have them. Returns whether they got there. */
  async converge(operations: number, except = -1): Promise<boolean> {
    const awake = this.instances.filter((_, i) => i !== except);
    const end = performance.now() + SETTLE_MS_MAX;
    for (let i = 0; i < operations; i++) {
      for (const [k, instance] of awake.entries()) instance.work(this.done * MEMBERS + k);
      this.done++;
      if (i % 20 === 0) this.exchange();
    }
    while (performance.now() < end) {
      this.exchange();
      if (awake.every((instance) => instance.settled)) {
        this.exchange();
        return true;
      }
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    return false;
  }

  /** Where members hold something else than the first. */
  differences(): string[] {
    const [first, ...others] = this.instances.map((instance) => instance.digests());
    return others.flatMap((digests, i) =>
      digests.flatMap((digest, object) =>
        digest === first[object] ? [] : [`member ${i + 1} differs from member 0 in object ${object}`],
      ),
    );
  }

  stopRecording(): void {
    this.recording = false;
  }

  private exchange(): void {
    for (const instance of this.instances) while (instance.step() > 0);
    for (const { from, bytes } of this.inFlight.splice(0))
      for (const [to, instance] of this.instances.entries()) {
        if (to === from) continue;
        if (to === VICTIM && this.recording) this.recorded.push(bytes);
        instance.deliver(bytes, `127.0.0.${from + 1}`);
      }
  }
}

/** Everything that must not change, as bytes. */
function contents({ mode }: FuzzOptions, victim: FuzzInstance): Buffer[] {
  const copies = victim.arena.map((buffer) => Buffer.from(new Uint8Array(buffer)));
  if (mode === 'sealed') {
    const { board, foreign, unitLogs } = victim.memory;
    for (const buffer of [board, foreign, unitLogs, victim.sealBoard as SharedArrayBuffer])
      copies.push(Buffer.from(new Uint8Array(buffer)));
  } else copies.push(Buffer.from(JSON.stringify(vectors(victim))));
  return copies;
}

/** What the instance says it has of every origin. */
function vectors(victim: FuzzInstance): unknown[] {
  const board = new AckBoard(victim.memory.board);
  const record = new VectorRecord();
  const all: unknown[] = [];
  for (let object = 0; object < board.objects; object++)
    for (let origin = 0; origin < board.members; origin++) {
      board.readReception(object, origin, record);
      all.push([record.incarnation, record.contiguous, record.highest, record.ranges]);
    }
  return all;
}

const mebibytes = (bytes: number): number => Math.round((bytes / 2 ** 20) * 10) / 10;

function look(): { rss: number; heap: number } {
  (globalThis as { gc?: () => void }).gc?.();
  const { rss, heapUsed, external } = process.memoryUsage();
  return { rss: mebibytes(rss), heap: mebibytes(heapUsed + external) };
}

/** Rounds of a flood, each at a cluster of its own, and what came of all of them. */
class Flood {
  readonly problems: string[] = [];
  readonly byKind: Record<string, number> = {};
  readonly byReason: Record<string, number> = { accepted: 0 };
  digests: readonly string[] = [];
  first = look();
  last = this.first;
  private done = 0;
  private readonly options: FuzzOptions;
  private readonly sources = Array.from({ length: SOURCES }, (_, i) => `198.51.${i >> 8}.${i & 255}`);

  constructor(options: FuzzOptions) {
    this.options = options;
  }

  async round(messages: number): Promise<void> {
    const { mode, seed } = this.options;
    const cluster = new Cluster(mode === 'sealed');
    await cluster.open();
    await this.check(cluster, OPERATIONS, 'before the flood');
    cluster.stopRecording();
    const { victim, recorded } = cluster;
    const before = contents(this.options, victim);
    const { received, changed } = countsOf(victim);
    const came = this.send(victim, new DatagramFuzzer(seed + this.done, recorded, victim.settings.self), messages);
    this.count(victim, came);
    if (countsOf(victim).received - received !== came) this.problems.push('not every datagram was counted');
    for (const error of victim.failures) this.problems.push(`an object's own code threw: ${String(error)}`);
    if (new RejectTable(victim.memory.rejects).rows().length > 32) this.problems.push('the reject table grew');
    this.digests = victim.digests();
    if (mode === 'hostile') return;
    for (const [i, bytes] of contents(this.options, victim).entries())
      if (!bytes.equals(before[i])) this.problems.push(`what must not change did: part ${i} of ${before.length}`);
    if (countsOf(victim).changed !== changed) this.problems.push('records were applied');
    // The thread goes on: what genuine members say now is taken.
    await this.check(cluster, AFTERWARDS, 'after the flood');
  }

  /** Delivers datagrams to the receive thread. Returns how many: all, unless one stopped it. */
  private send(victim: FuzzInstance, fuzzer: DatagramFuzzer, messages: number): number {
    const { mode, onProgress } = this.options;
    for (let i = 0; i < messages; i++) {
      const kind = mode === 'hostile' ? 'hostile' : fuzzer.kind();
      const datagram =
        kind === 'hostile' ? fuzzer.hostile(i > HOSTILE_LIVES * messages) : fuzzer.draw(kind, mode === 'sealed');
      this.byKind[kind] = (this.byKind[kind] ?? 0) + 1;
      try {
        victim.deliver(datagram, this.sources[fuzzer.below(SOURCES)]);
      } catch (error) {
        const hex = Buffer.from(datagram).toString('hex');
        this.problems.push(`message ${this.done} (${kind}) stopped the thread: ${(error as Error).stack}\n${hex}`);
        return i + 1;
      }
      this.done++;
      if (this.done % LOOK_EVERY !== 0) continue;
      victim.step();
      this.last = look();
      // By now all is compiled and every table has grown.
      if (this.done === 2 * LOOK_EVERY) this.first = this.last;
      onProgress?.(this.done, this.last.rss);
    }
    return messages;
  }

  private count(victim: FuzzInstance, came: number): void {
    let refused = 0;
    for (const { name } of victim.metrics.catalogue.metrics) {
      const count = name.startsWith('state_rejected_') ? victim.metrics.total(name) : 0;
      const reason = name.slice('state_rejected_'.length);
      if (count > 0) this.byReason[reason] = (this.byReason[reason] ?? 0) + count;
      refused += count;
    }
    this.byReason['accepted'] += came - refused;
  }

  /** Genuine operations are taken, and all members hold the same. */
  private async check(cluster: Cluster, operations: number, when: string): Promise<void> {
    if (!(await cluster.converge(operations))) this.problems.push(`${when}: genuine messages were not taken`);
    this.problems.push(...cluster.differences().map((difference) => `${when}: ${difference}`));
  }
}

function countsOf({ metrics }: FuzzInstance): { received: number; changed: number } {
  return { received: metrics.total('state_rx_messages'), changed: metrics.total('state_rx_records_changed') };
}

export async function fuzz(options: FuzzOptions): Promise<FuzzReport> {
  const { mode, messages } = options;
  const flood = new Flood(options);
  const start = performance.now();
  const most = mode === 'hostile' ? HOSTILE_ROUND : messages;
  for (let left = messages; left > 0 && flood.problems.length === 0; left -= most)
    await flood.round(Math.min(left, most));
  const { first, problems, byKind, byReason, digests } = flood;
  const last = look();
  return {
    mode,
    messages,
    seconds: (performance.now() - start) / 1000,
    byKind,
    byReason,
    rssMiB: { start: first.rss, end: last.rss },
    heapMiB: { start: first.heap, end: last.heap },
    digests,
    problems,
  };
}
