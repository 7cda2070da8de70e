import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { Applied } from '../../../../shm/objects/core/object.js';
import { UNDO_NOTES } from '../../../../shm/objects/core/replicated-amounts.js';
import {
  CELL_COUNT,
  COUNT_MAX,
  type CounterCells,
  counterCells,
  type WireForm,
} from '../../../../shm/objects/counting/counter-cells.js';
import { counter, counterVector } from '../../../../shm/objects/counting/counters.js';
import { Death } from '../dying.js';
import { type Message, Site } from '../site.js';

const CELLS = 5;
const SITES = 3;
const WORKERS = 2;
const FORMS: readonly WireForm[] = ['totals', 'increments'];
const RUNS = { numRuns: 200 };

type Step =
  | { kind: 'add'; site: number; worker: number; cell: number; n: number }
  | { kind: 'drain' | 'cut' | 'sender' | 'worker'; site: number; worker: number; cell: number; n: number }
  | { kind: 'deliver'; site: number; worker: number; cell: number; n: number };

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom('add', 'add', 'add', 'drain', 'cut', 'sender', 'worker', 'deliver', 'deliver'),
  site: fc.nat(SITES - 1),
  worker: fc.nat(WORKERS - 1),
  cell: fc.nat(CELLS - 1),
  n: fc.oneof(fc.integer({ min: -1000, max: 1000 }), fc.integer({ min: -(2 ** 44), max: 2 ** 44 })),
});

/** The sites, what each cut, and how far each other one has it. */
class Cluster {
  readonly sites: Site<CounterCells>[];
  readonly expected = new Array<number>(CELLS).fill(0);
  private readonly sent: Message[][] = Array.from({ length: SITES }, () => []);
  private readonly next = Array.from({ length: SITES }, () => new Array<number>(SITES).fill(0));
  private readonly form: WireForm;
  private readonly upDown: boolean;

  constructor(form: WireForm, upDown: boolean) {
    this.form = form;
    this.upDown = upDown;
    const definition = counterCells({ cells: CELLS, form, upDown, members: SITES });
    this.sites = Array.from({ length: SITES }, (_, i) => new Site(definition, i, SITES, WORKERS));
  }

  step({ kind, site, worker, cell, n }: Step): void {
    const at = this.sites[site];
    if (kind === 'add') {
      const amount = this.upDown ? n : Math.abs(n);
      assert.ok(at.workers[worker].add(cell, amount));
      this.expected[cell] += amount;
    } else if (kind === 'drain') at.drain(Math.abs(n) % 7);
    else if (kind === 'cut') this.sent[site].push(at.cut());
    else if (kind === 'sender') at.restartSender();
    else if (kind === 'worker') at.buryWorker(worker);
    else this.deliver(site, (site + 1 + (cell % (SITES - 1))) % SITES, Math.abs(n));
  }

  /** Totals: any message, again and again. Increments: the next one, once. */
  private deliver(from: number, to: number, pick: number): void {
    const sent = this.sent[from];
    if (sent.length === 0) return;
    if (this.form === 'totals') this.sites[to].apply(sent[pick % sent.length], from, 0);
    else if (this.next[to][from] < sent.length) this.sites[to].apply(sent[this.next[to][from]++], from, 0);
  }

  settle(): void {
    this.sites.forEach((site, from) => {
      this.sent[from].push(site.cut(), ...site.flush());
      for (let to = 0; to < SITES; to++) {
        if (to === from) continue;
        const messages =
          this.form === 'totals' ? this.sent[from].toReversed() : this.sent[from].slice(this.next[to][from]);
        for (const message of messages) this.sites[to].apply(message, from, 0);
      }
    });
  }

  assertEqual(): void {
    for (const site of this.sites) {
      for (let cell = 0; cell < CELLS; cell++) assert.equal(site.workers[0].value(cell), this.expected[cell]);
      assert.equal(site.workers[1].errorBound(site.sequence), 0);
      assert.deepEqual({ ...site.receiver.describe(), replicated: 0, log_full: 0 }, { ...this.empty(), log_full: 0 });
    }
    const [first, ...others] = this.sites.map((site) => site.sender.digest());
    for (const digest of others) assert.equal(digest, first);
  }

  private empty(): Record<string, number> {
    return { cells: CELLS, members: this.form === 'totals' ? SITES : 1, replicated: 0, refused: 0, malformed: 0 };
  }
}

for (const form of FORMS)
  for (const upDown of [false, true])
    describe(`counter cells: ${form}, ${upDown ? 'up and down' : 'up'}`, () => {
      it('converge to the plain sum, whatever is interleaved, merged, repeated, reordered or dies', () => {
        fc.assert(
          fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
            const cluster = new Cluster(form, upDown);
            for (const one of steps) cluster.step(one);
            cluster.settle();
            cluster.assertEqual();
          }),
          RUNS,
        );
      });

      it('count on while the log is full, and tell it later', () => {
        const definition = counterCells({ cells: 5000, form, upDown });
        const [here, there] = [0, 1].map((i) => new Site(definition, i, 2, 1));
        for (let i = 0; i < 20_000; i++) assert.ok(here.workers[0].add((i * 7) % 5000, 1 + (i % 3)));
        assert.ok(here.sender.describe()['log_full'] > 0);
        // The send thread dies with some of it told and not cut.
        here.drain();
        here.restartSender();
        for (const message of here.flush()) there.apply(message, 0, 0);
        for (let cell = 0; cell < 5000; cell++) assert.equal(there.receiver.value(cell), here.sender.value(cell));
        assert.equal(there.receiver.digest(), here.sender.digest());
        assert.deepEqual(here.flush(), []);
      });

      it('lose nothing when the send thread dies in a round of any size', () => {
        const cells = 12_000;
        const definition = counterCells({ cells, form, upDown });
        for (const records of [UNDO_NOTES - 1, UNDO_NOTES, UNDO_NOTES + 1, 30_000]) {
          const [here, there] = [0, 1].map((i) => new Site(definition, i, 2, 1, 1 << 18));
          for (let i = 0; i < records; i++) assert.ok(here.workers[0].add((i * 7) % cells, 1 + (i % 3)));
          here.drain();
          here.restartSender();
          for (const message of here.flush()) there.apply(message, 0, 0);
          for (let cell = 0; cell < cells; cell++)
            assert.equal(there.receiver.value(cell), here.sender.value(cell), `cell ${cell} of ${records} records`);
          assert.equal(here.sender.errorBound(here.sequence), 0);
        }
      });

      it('lose and double nothing when a worker dies at any step of an add', () => {
        for (const full of [false, true])
          for (let steps = 1; steps <= 5; steps++) {
            const definition = counterCells({ cells: 2000, form, upDown });
            const [here, there] = [0, 1].map((i) => new Site(definition, i, 2, 1));
            if (full) for (let i = 0; i < 1000; i++) here.workers[0].add(1000 + i, 1);
            here.workers[0].add(0, 10);
            here.countdown.set(steps);
            try {
              here.workers[0].add(0, 5);
            } catch (error) {
              assert.ok(error instanceof Death);
            }
            here.buryWorker(0);
            here.workers[0].add(1, 1);
            for (const message of here.flush()) there.apply(message, 0, 0);
            const counted = here.sender.value(0);
            assert.ok(counted === 10 || counted === 15);
            assert.equal(there.receiver.value(0), counted);
            assert.equal(there.receiver.digest(), here.sender.digest());
          }
      });
    });

describe('counter cells', () => {
  const definition = counterCells({ cells: 4, members: 3 });

  it('merge in any grouping and any number of times to the same', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(2), fc.nat(3), fc.nat(100)), { maxLength: 40 }),
        fc.boolean(),
        (adds, replicated) => {
          const sites = [0, 1, 2].map((i) => new Site(definition, i, 3, 1));
          for (const [site, cell, n] of adds) sites[site].workers[0].add(cell, n);
          // Halves that heard of each other in part.
          if (replicated) for (const message of sites[0].flush()) sites[1].apply(message, 0, 0);
          const [a, b, c] = sites;
          b.receiver.merge(c.snapshot());
          a.receiver.merge(b.snapshot());
          a.receiver.merge(b.snapshot());
          b.receiver.merge(a.snapshot());
          c.receiver.merge(a.snapshot());
          assert.equal(c.receiver.merge(b.snapshot()), 0);
          const digest = a.sender.digest();
          for (const site of sites) assert.equal(site.sender.digest(), digest);
          for (let cell = 0; cell < 4; cell++)
            assert.equal(
              b.sender.value(cell),
              adds.filter(([, at]) => at === cell).reduce((sum, [, , n]) => sum + n, 0),
            );
        },
      ),
      RUNS,
    );
  });

  it('take over a former life from a snapshot, and count on from there', () => {
    const [before, other] = [0, 1].map((i) => new Site(definition, i, 2, 1));
    before.workers[0].add(2, 40);
    for (const message of before.flush()) other.apply(message, 0, 0);
    other.workers[0].add(2, 1);
    const after = new Site(definition, 0, 2, 1);
    assert.equal(after.receiver.merge(other.snapshot()), 2);
    assert.equal(after.workers[0].value(2), 41);
    assert.equal(after.workers[0].errorBound(0), 0);
    after.workers[0].add(2, 2);
    assert.equal(after.workers[0].errorBound(0), 2);
    for (const message of after.flush()) other.apply(message, 0, 0);
    assert.equal(other.receiver.value(2), 43);
  });

  it('cannot merge increments, but can be taken over empty', () => {
    const increments = counterCells({ cells: 4, form: 'increments' });
    const [here, there] = [0, 1].map((i) => new Site(increments, i, 2, 1));
    here.workers[0].add(1, 5);
    here.flush(); // a snapshot has of increments what is numbered
    assert.equal(there.receiver.merge(here.snapshot()), 1);
    assert.equal(there.receiver.value(1), 5);
    assert.throws(() => there.receiver.merge(here.snapshot()), /increments/);
    assert.equal(there.receiver.value(1), 5);
    assert.deepEqual(there.flush(), []);
  });

  it('bound what a member lacks by what it acknowledged', () => {
    const site = new Site(definition, 0, 2, 1);
    const { workers } = site;
    const acknowledged: [number, number][] = [[0, 0]];
    let total = 0;
    for (let i = 1; i <= 1000; i++) {
      workers[0].add(i % 4, i);
      total += i;
      site.drain();
      site.cut();
      acknowledged.push([site.sequence, total]);
    }
    workers[0].add(0, 7);
    for (const [sequence, contained] of acknowledged) {
      const lacks = total + 7 - contained;
      assert.ok(workers[0].errorBound(sequence) >= lacks);
    }
    assert.equal(workers[0].errorBound(site.sequence), 7);
    assert.equal(workers[0].errorBound(0), total + 7);
  });

  it('refuse, and count, what is no exact count', () => {
    const site = new Site(definition, 0, 2, 1);
    const cells = site.workers[0];
    assert.ok(cells.add(0, COUNT_MAX));
    for (const [cell, n] of [
      [0, 1],
      [1, -1],
      [1, Number.NaN],
      [4, 1],
      [-1, 1],
    ])
      assert.equal(cells.add(cell, n), false);
    assert.equal(cells.value(0), COUNT_MAX);
    assert.equal(cells.describe()['refused'], 5);
    const [message] = site.flush();
    const other = new Site(definition, 1, 2, 1);
    other.apply(message, 0, 0);
    assert.equal(other.receiver.value(0), COUNT_MAX);
    assert.throws(() => site.receiver.add(0, 1), /cannot count/);
  });

  it('survive hostile records', () => {
    for (const form of FORMS)
      fc.assert(
        fc.property(
          fc.array(fc.tuple(fc.nat(255), fc.array(fc.integer(), { minLength: 1, maxLength: 6 }), fc.nat(9)), {
            maxLength: 30,
          }),
          (records) => {
            const { receiver, region } = new Site(counterCells({ cells: 4, form, members: 3 }), 0, 2, 1);
            for (const [op, words, origin] of records) {
              const before = receiver.digest();
              const applied = receiver.apply(op, Int32Array.from(words), 0, words.length, origin);
              if (applied !== Applied.CHANGED) assert.equal(receiver.digest(), before);
            }
            for (const count of region.f64()) assert.ok(count >= 0 && count <= COUNT_MAX && Number.isInteger(count));
          },
        ),
        RUNS,
      );
    const { receiver } = new Site(definition, 0, 2, 1);
    for (const stranger of [-1, 8])
      assert.equal(receiver.apply(CELL_COUNT, Int32Array.of(0, 1, 0), 0, 3, stranger), Applied.MALFORMED);
  });

  it('take over a total of the former incarnation late, and count on top of it everywhere', () => {
    const [dead, back, other] = [0, 0, 1].map((member) => new Site(definition, member, 2, 1));
    dead.workers[0].add(0, 600);
    const last = dead.flush()[0];
    other.apply(last, 0, 0);
    // Its snapshot did not have that total.
    back.workers[0].add(0, 5);
    for (const message of back.flush()) other.apply(message, 0, 0);
    back.apply(last, 0, 0);
    for (const message of back.flush()) other.apply(message, 0, 0);
    for (const { receiver } of [back, other]) assert.equal(receiver.value(0), 605);
    assert.equal(back.sender.digest(), other.sender.digest());
  });

  it('are refused where they cannot be', () => {
    for (const cells of [0, -1, 1.5, 2 ** 27]) assert.throws(() => counterCells({ cells }), /cells/);
    assert.throws(() => counterCells({ cells: 1, members: 0 }), /members/);
    assert.throws(() => new Site(definition, 0, 4, 1), /raise its members/);
  });
});

describe('counters', () => {
  it('count one thing, or many', () => {
    const one = new Site(counter({ upDown: true }), 0, 2);
    one.workers[0].add(5);
    one.workers[1].add(-7);
    assert.equal(one.receiver.value(), -2);
    const many = new Site(counterVector({ length: 3 }), 0, 2);
    assert.equal(many.receiver.length, 3);
    many.workers[0].add(2, 5);
    assert.equal(many.receiver.value(2), 5);
    assert.equal(many.workers[0].add(3, 1), false);
    const other = new Site(counterVector({ length: 3 }), 1, 2);
    for (const message of many.flush()) other.apply(message, 0, 0);
    assert.equal(other.sender.digest(), many.sender.digest());
  });
});
