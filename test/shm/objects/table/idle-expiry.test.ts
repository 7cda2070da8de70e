import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { coarseSeconds, unixMs } from '../../../../shm/clock.js';
import { NONE } from '../../../../shm/none.js';
import type { StateDefinition, StateObject } from '../../../../shm/objects/core/object.js';
import { type FlowTable, flowTable } from '../../../../shm/objects/flow/flow-table.js';
import { type NatBinding, natBinding, portAndProtocol } from '../../../../shm/objects/nat/nat-binding.js';
import { idleExpiry } from '../../../../shm/objects/table/idle-expiry.js';
import { Replica, type TestRecord } from '../replica.js';

const SITES = [0, 1, 2];
/**
 * Seconds by rank: the second state lasts longer than the first, the third ends sooner, the last
 * has no whole eighth.
 */
const TIMEOUTS = [30, 100, 20, 7];
const START_MS = unixMs(70_000_000);
const DELAY_MS_MAX = 5_000;

interface Living extends StateObject {
  rank(slot: number): number;
  generation(slot: number): number;
  expires(slot: number): number;
  refresh(slot: number, rank: number, now: number, timeout: number): boolean;
}

interface Table<T extends Living> {
  readonly definition: StateDefinition<T>;
  add(object: T, now: number, expires: number): number;
  find(object: T, now: number): number;
}

const key = Int32Array.of(5, 6);
const flows: Table<FlowTable> = {
  definition: flowTable({ capacity: 64, keyWords: 2, valueWords: 0 }),
  add: (object, now, expires) => object.add(object.hash(key, 0), key, 0, key, 0, 0, now, expires),
  find: (object, now) => object.find(object.hash(key, 0), key, 0, now),
};
const endpoint = portAndProtocol(0x1234, 17);
const bindings: Table<NatBinding> = {
  definition: natBinding({ addresses: [0x010200c0], flows: 64, allocation: 'leased' }),
  add: (object, now, expires) => object.add(object.hash(7, endpoint), 7, endpoint, now, expires),
  find: (object, now) => object.findOutbound(object.hash(7, endpoint), 7, endpoint, now),
};

/**
 * What is known of the flow's last packet: the entry of (generation, rank) must not end before
 * `untilMs`.
 */
interface Known {
  readonly generation: number;
  readonly rank: number;
  readonly untilMs: number;
}

const NOTHING: Known = { generation: 0, rank: 0, untilMs: 0 };

/**
 * The larger (generation, rank) counts, and of equals the later end: as the tables join records.
 */
function join(a: Known, b: Known): Known {
  const order = a.generation - b.generation || a.rank - b.rank || a.untilMs - b.untilMs;
  return order >= 0 ? a : b;
}

interface Sent {
  readonly to: number;
  readonly record: TestRecord;
  readonly known: Known;
  readonly atMs: number;
}

/** Three sites that replicate with a delay, and a model of what each may expire when. */
class Cluster<T extends Living> {
  private readonly table: Table<T>;
  private readonly sites: readonly Replica<T>[];
  private readonly known: Known[] = SITES.map(() => NOTHING);
  private sent: Sent[] = [];
  private nowMs = START_MS;
  private readonly random: () => number;
  records = 0;

  constructor(table: Table<T>, seed: number) {
    this.table = table;
    this.sites = SITES.map((member) => new Replica(table.definition, member, SITES.length));
    let state = seed | 1;
    this.random = () => {
      state = Math.imul(state, 1_664_525) + 1_013_904_223;
      return (state >>> 0) / 2 ** 32;
    };
  }

  packet(site: number, rank: number): void {
    const { object } = this.sites[site];
    const now = coarseSeconds(this.nowMs);
    let slot = this.table.find(object, now);
    if (slot === NONE) slot = this.table.add(object, now, idleExpiry(now, TIMEOUTS[0]));
    else assert.ok(object.refresh(slot, rank, now, TIMEOUTS[Math.max(rank, object.rank(slot))]));
    assert.notEqual(slot, NONE);
    const standing = object.rank(slot);
    const untilMs = this.nowMs + TIMEOUTS[standing] * 1000;
    this.known[site] = join(this.known[site], { generation: object.generation(slot), rank: standing, untilMs });
    for (const record of this.sites[site].drain()) {
      this.records++;
      for (const to of SITES)
        if (to !== site)
          this.sent.push({ to, record, known: this.known[site], atMs: this.nowMs + this.random() * DELAY_MS_MAX });
    }
    this.check();
  }

  /** Time passes, in steps of which each is looked at. */
  wait(ms: number): void {
    const endMs = this.nowMs + ms;
    while (this.nowMs < endMs) {
      this.nowMs = Math.min(endMs, this.nowMs + 1 + this.random() * 2_000);
      this.deliver(this.nowMs);
      this.check();
    }
  }

  private deliver(beforeMs: number): void {
    const due = this.sent.filter(({ atMs }) => atMs <= beforeMs).sort((a, b) => a.atMs - b.atMs);
    this.sent = this.sent.filter(({ atMs }) => atMs > beforeMs);
    for (const { to, record, known } of due) {
      this.sites[to].apply(record, coarseSeconds(this.nowMs));
      this.known[to] = join(this.known[to], known);
    }
  }

  private check(): void {
    const now = coarseSeconds(this.nowMs);
    const all = this.known.reduce(join);
    const isSettled = this.sent.length === 0;
    for (const site of SITES) {
      const { object } = this.sites[site];
      const isThere = this.table.find(object, now) !== NONE;
      const known = isSettled ? all : this.known[site];
      if (this.nowMs < known.untilMs)
        assert.ok(isThere, `site ${site} forgot it ${known.untilMs - this.nowMs} ms early`);
      const lateMs = this.nowMs - (all.untilMs + (TIMEOUTS[all.rank] / 8 + 1) * 1000);
      if (isSettled && lateMs >= 0) assert.ok(!isThere, `site ${site} has it ${lateMs} ms too long`);
      if (isSettled) assert.equal(object.digest(now, true), this.sites[0].object.digest(now, true));
    }
  }
}

const step = fc.oneof(
  { weight: 3, arbitrary: fc.record({ do: fc.constant('packet' as const), site: fc.nat(2), rank: fc.nat(3) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('packet' as const), site: fc.nat(2), rank: fc.nat(1) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('wait' as const), ms: fc.nat(3_000) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('wait' as const), ms: fc.nat(40_000) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('wait' as const), ms: fc.nat(130_000) }) },
);

function check<T extends Living>(name: string, table: Table<T>): void {
  describe(`idle expiry: ${name}`, () => {
    it('is at no site before the timeout after the last packet at any, nor later than the slack; sites agree', () => {
      fc.assert(
        fc.property(fc.array(step, { maxLength: 60 }), fc.integer(), (steps, seed) => {
          const cluster = new Cluster(table, seed);
          for (const one of steps)
            if (one.do === 'packet') cluster.packet(one.site, one.rank);
            else cluster.wait(one.ms);
          cluster.wait(130_000);
        }),
        { numRuns: 300 },
      );
    });

    it('takes few records, however many packets come', () => {
      const cluster = new Cluster(table, 1);
      cluster.packet(0, 1);
      cluster.packet(0, 1);
      cluster.wait(DELAY_MS_MAX);
      const before = cluster.records;
      for (let second = 0; second < 10 * TIMEOUTS[1]; second++) {
        for (let n = 0; n < 5; n++) cluster.packet(second % 3, 1);
        cluster.wait(1_000);
      }
      const perTimeout = (cluster.records - before) / 10;
      assert.ok(perTimeout >= 1 && perTimeout <= 8 * SITES.length, `${perTimeout} records a timeout, of three sites`);
    });
  });
}

check('flow table', flows);
check('nat binding', bindings);
