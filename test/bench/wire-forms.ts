/**
 * The two wire forms of counting objects (shm/objects/counting/counter-cells.ts) beside each other.
 * 2, 3 and 8 members count a Zipf stream of cells, through their logs, the real staging, sender and
 * receiver, and a network without loss. A round is what a send thread finds when it wakes up: many
 * adds to few cells, which coalesce.
 *
 * Bytes are those of whole state messages to each other member (`unicast`), acknowledgements
 * included, per counted add. The baseline is one record per add. Throws if members end with
 * different counts.
 */

import { createAckBoard } from '../../shm/ack-board.js';
import { createLogRing, LogConsumer, LogProducer } from '../../shm/log.js';
import { MetricCatalogue } from '../../shm/metrics.js';
import { createJournals, Journal } from '../../shm/objects/core/journal.js';
import type { Writer } from '../../shm/objects/core/object.js';
import { type CounterCells, counterCells, type WireForm } from '../../shm/objects/counting/counter-cells.js';
import { Region } from '../../shm/region.js';
import { Counts, REPLICATION_METRICS } from '../../workers/replication/metrics.js';
import { Receiver } from '../../workers/replication/receiving/receiver.js';
import { EVERYONE, type Outlet } from '../../workers/replication/sending/outlet.js';
import { Sender } from '../../workers/replication/sending/sender.js';
import { createForeignLogs } from '../../workers/replication/units/foreign-log.js';
import { createUnitLogs } from '../../workers/replication/units/unit-log.js';
import { Datagram } from '../../workers/replication/wire/message.js';
import { MEANING_HASH, testSettings } from '../workers/replication/network.js';
import { type Bench, type BenchResult, median } from './result.js';

const FORMS: readonly WireForm[] = ['totals', 'increments'];
const CELLS = 10_000;
const ADDS_PER_ROUND = 2_000;
const ROUNDS_WARM = 50;
/** Turns of each of the two forms. */
const SLICES = 5;
const BATCH = 64;
const RECORD_BYTES = 16;
const WORKERS = 4;

/** Cells in the order of a Zipf stream (exponent 1), drawn once: rank r has probability ~ 1 / r. */
function zipf(count: number): Int32Array {
  const sums = new Float64Array(CELLS);
  for (let r = 0; r < CELLS; r++) sums[r] = (sums[r - 1] ?? 0) + 1 / (r + 1);
  let state = 12345;
  return Int32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const at = (state / 2 ** 32) * sums[CELLS - 1];
    let [low, high] = [0, CELLS - 1];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (sums[middle] < at) low = middle + 1;
      else high = middle;
    }
    return (low * 7919) % CELLS; // the popular ones lie apart
  });
}

const stream = zipf(1 << 18);

interface Mail {
  readonly to: number;
  readonly bytes: Uint8Array;
}

class Site {
  readonly cells: CounterCells;
  readonly receiver: Receiver;
  readonly counts: Counts;
  private readonly log: LogProducer;
  private readonly consumer: LogConsumer;
  private readonly sender: Sender;
  private readonly outlet: Outlet;
  private next: number;

  constructor(form: WireForm, index: number, members: number, post: Mail[]) {
    const definition = counterCells({ cells: CELLS, form, members });
    const region = new Region(new SharedArrayBuffer(definition.bytes));
    const local = new Region(new SharedArrayBuffer(definition.localBytes?.(1) ?? 0));
    const open = (writer: Writer | null): CounterCells =>
      definition.open({
        id: 0,
        region,
        secret: Int32Array.of(1, 2, 3, 4),
        writer,
        memberIndex: index,
        memberCount: members,
        local,
        stripes: 1,
      });
    const ring = createLogRing(1 << 16);
    const journals = createJournals(3);
    this.log = new LogProducer(ring);
    this.consumer = new LogConsumer(ring);
    this.cells = open({ id: 1, journal: new Journal(journals, 1), log: this.log });
    this.counts = new Counts(new MetricCatalogue(REPLICATION_METRICS), new Float64Array(REPLICATION_METRICS.length));
    const shared = {
      settings: testSettings(members, index, { unitLogBytes: 1 << 22, mtu: 1500 }),
      meaningHash: MEANING_HASH,
      board: createAckBoard(1, members, 2 ** 40 + index),
      foreignLogs: createForeignLogs(1, members, 0),
      counts: this.counts,
    };
    const unitLogs = createUnitLogs(1, shared.settings.unitLogBytes);
    this.sender = new Sender({ ...shared, objects: [open(null)], unitLogs });
    const applier = open({ id: 3, journal: new Journal(journals, 3), log: null });
    this.receiver = new Receiver({ ...shared, objects: [applier], ring: () => {} });
    this.next = index * 1000;
    this.outlet = {
      claim: () => new Datagram(1500),
      send: (datagram, bytes, _object, member) => {
        const copy = datagram.bytes.slice(0, bytes);
        for (let to = 0; to < members; to++)
          if (to !== index && (member === EVERYONE || member === to)) post.push({ to, bytes: copy });
      },
    };
  }

  count(adds: number): void {
    for (let i = 0; i < adds; i++) {
      this.cells.add(stream[this.next], 1);
      this.next = (this.next + 1) & (stream.length - 1);
      if (i % BATCH === BATCH - 1) this.log.publish();
    }
    this.log.publish();
  }

  stage(): void {
    this.sender.makeRoom();
    const { consumer, sender } = this;
    while (consumer.next()) sender.append(consumer.objectId, consumer.op, consumer.words, consumer.at, consumer.length);
    sender.cut();
    consumer.release();
  }

  poll(now: number): void {
    while (this.sender.poll(now, this.outlet) > 0);
  }

  get isSettled(): boolean {
    return this.sender.keptUnits === 0 && !this.sender.hasUnsent;
  }
}

interface Figures {
  readonly bytes: number;
  readonly count: number;
  readonly send: number;
  readonly receive: number;
}

class Cluster {
  private readonly sites: Site[];
  private readonly post: Mail[] = [];
  private now = 1000;
  private bytes = 0;
  private readonly time = { count: 0, send: 0, receive: 0 };

  constructor(form: WireForm, members: number) {
    this.sites = Array.from({ length: members }, (_, i) => new Site(form, i, members, this.post));
  }

  private timed(what: keyof Cluster['time'], work: () => void): void {
    const start = performance.now();
    work();
    this.time[what] += performance.now() - start;
  }

  /** Every member counts, sends, and receives what was sent. */
  private round(adds: number): void {
    this.now++;
    for (const site of this.sites) {
      this.timed('count', () => site.count(adds));
      this.timed('send', () => site.stage());
      this.timed('send', () => site.poll(this.now));
    }
    const mails = this.post.splice(0);
    this.timed('receive', () => {
      for (const { to, bytes } of mails) this.sites[to].receiver.receive(bytes, this.now, 0);
    });
    for (const { bytes } of mails) this.bytes += bytes.length;
  }

  warm(): void {
    for (let i = 0; i < ROUNDS_WARM; i++) this.round(ADDS_PER_ROUND);
  }

  /** Runs for about `ms`. */
  run(ms: number): Figures {
    this.bytes = 0;
    this.time.count = this.time.send = this.time.receive = 0;
    let rounds = 0;
    for (const until = performance.now() + ms; performance.now() < until; rounds++) this.round(ADDS_PER_ROUND);
    const adds = rounds * ADDS_PER_ROUND * this.sites.length;
    const { count, send, receive } = this.time;
    return {
      bytes: this.bytes / adds,
      count: (count * 1e6) / adds,
      send: (send * 1e6) / adds,
      receive: (receive * 1e6) / adds,
    };
  }

  /** Lets everything replicate, and throws if the members differ. */
  assertEqual(): void {
    for (let i = 0; i < 2000 && !this.sites.every((site) => site.isSettled); i++) this.round(0);
    const digests = new Set(this.sites.map((site) => site.cells.digest()));
    if (digests.size !== 1) throw new Error('the members do not agree');
  }
}

function megabytes(form: WireForm, members: number): number {
  const definition = counterCells({ cells: 1_000_000, form, members });
  return (definition.bytes + (definition.localBytes?.(WORKERS) ?? 0)) / 1e6;
}

/** The median figures of both forms, measured in turns. */
function compare(members: number, ms: number): Record<WireForm, Figures> {
  const clusters = { totals: new Cluster('totals', members), increments: new Cluster('increments', members) };
  const runs: Record<WireForm, Figures[]> = { totals: [], increments: [] };
  for (const form of FORMS) clusters[form].warm();
  for (let slice = 0; slice < SLICES; slice++) for (const form of FORMS) runs[form].push(clusters[form].run(ms));
  for (const form of FORMS) clusters[form].assertEqual();
  const middle = (form: WireForm): Figures => ({
    bytes: median(runs[form].map(({ bytes }) => bytes)),
    count: median(runs[form].map(({ count }) => count)),
    send: median(runs[form].map(({ send }) => send)),
    receive: median(runs[form].map(({ receive }) => receive)),
  });
  return { totals: middle('totals'), increments: middle('increments') };
}

export const run: Bench = async ({ seconds }) => {
  const results: BenchResult[] = [];
  const ms = (seconds * 1000) / SLICES / 2;
  for (const members of [2, 3, 8]) {
    const figures = compare(members, ms);
    const alone = RECORD_BYTES * (members - 1);
    for (const form of FORMS) {
      const { bytes, count, send, receive } = figures[form];
      const name = (what: string): string => `wire_forms/${members} members, ${form}, ${what}`;
      results.push({ name: name('on the wire'), value: bytes, unit: 'B/add', baseline: alone, ratio: alone / bytes });
      // The other form is the baseline of the default.
      const other = form === 'totals' ? figures.increments : null;
      const beside = (value: number, baseline: number | undefined) => ({
        value,
        unit: 'ns/add',
        baseline: baseline ?? null,
        ratio: baseline === undefined ? null : baseline / value,
      });
      results.push({ name: name('a worker’s add'), ...beside(count, other?.count) });
      results.push({ name: name('send thread'), ...beside(send, other?.send) });
      results.push({ name: name('receive threads of all others'), ...beside(receive, other?.receive) });
      const [memory, otherMemory] = [megabytes(form, members), megabytes('increments', members)];
      results.push({
        name: name(`memory of 1 M cells, ${WORKERS} workers`),
        value: memory,
        unit: 'MB',
        baseline: form === 'totals' ? otherMemory : null,
        ratio: form === 'totals' ? otherMemory / memory : null,
      });
    }
  }
  return results;
};
