import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { CLOCK_SKEW_GUARD_S, DELIVERY_S_MAX } from '../../../../shm/clock.js';
import { Applied } from '../../../../shm/objects/core/object.js';
import { FOREVER, growSet, removeSet, SetRefusal, type SharedSet } from '../../../../shm/objects/sets/shared-set.js';
import { Death } from '../dying.js';
import { type Message, Site } from '../site.js';

const START = 70_000_000;
const SITES = 3;
const KEYS = 4;
const RUNS = { numRuns: 300 };

const keyOf = (key: number): Int32Array => Int32Array.of(key, ~key);

function add(set: SharedSet, key: number, now: number, expires: number): boolean {
  return set.add(set.hash(keyOf(key), 0), keyOf(key), 0, now, expires);
}

function remove(set: SharedSet, key: number, now: number): boolean {
  return set.remove(set.hash(keyOf(key), 0), keyOf(key), 0, now);
}

function has(set: SharedSet, key: number, now: number): boolean {
  return set.has(set.hash(keyOf(key), 0), keyOf(key), 0, now);
}

interface Dot {
  readonly key: number;
  readonly site: number;
  readonly stamp: number;
  readonly expires: number;
}

/**
 * Until when an element is there that was added until `expires`: an eighth longer, so adds that say
 * little new need no record.
 */
const promised = (now: number, expires: number): number => expires + Math.floor((expires - now) / 8);

/**
 * The textbook's observed-remove set: adds have unique tags, the later of a site succeeds it,
 * removes name what they saw.
 */
class Model {
  private readonly adds = new Map<string, Dot>();
  private readonly removed = new Map<string, Dot>();

  private learn(dot: Dot): void {
    const place = `${dot.key}/${dot.site}`;
    if (dot.stamp > (this.adds.get(place)?.stamp ?? 0)) this.adds.set(place, dot);
  }

  join(other: Model): void {
    for (const dot of [...other.adds.values(), ...other.removed.values()]) this.learn(dot);
    for (const [tag, dot] of other.removed) this.removed.set(tag, dot);
  }

  private seen(key: number): Dot[] {
    return [...this.adds.values()].filter(
      (dot) => dot.key === key && !this.removed.has(`${key}/${dot.site}/${dot.stamp}`),
    );
  }

  has(key: number, now: number): boolean {
    return this.seen(key).some((dot) => dot.expires > now);
  }

  add(key: number, site: number, stamp: number, expires: number): Model {
    const before = this.seen(key).filter((dot) => dot.site === site);
    const does = new Model();
    does.learn({ key, site, stamp, expires: Math.max(expires, ...before.map((dot) => dot.expires)) });
    return does;
  }

  remove(key: number): Model {
    const does = new Model();
    for (const dot of this.seen(key)) does.removed.set(`${key}/${dot.site}/${dot.stamp}`, dot);
    return does;
  }
}

const step = fc.record({
  kind: fc.constantFrom('add', 'add', 'remove', 'cut', 'deliver', 'deliver', 'sweep', 'pause'),
  site: fc.nat(SITES - 1),
  worker: fc.nat(1),
  key: fc.nat(KEYS - 1),
  n: fc.nat(30),
});

describe('observed-remove set', () => {
  const definition = removeSet({ capacity: 64, keyWords: 2, members: SITES });

  it('is the textbook’s, with expiry: adds win over removes that did not see them', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const sites = Array.from({ length: SITES }, (_, i) => new Site(definition, i, SITES));
        /**
         * What a site knows, what it did since its last message, which its next one says, and what
         * all did.
         */
        const knows = sites.map(() => new Model());
        const did = sites.map(() => new Model());
        const all = new Model();
        const sent: { message: Message; model: Model; origin: number }[] = [];
        let now = START;
        const cut = (origin: number): void => {
          const model = did[origin];
          did[origin] = new Model();
          all.join(model);
          sent.push(...sites[origin].flush().map((message) => ({ message, model, origin })));
        };
        for (const { kind, site, worker, key, n } of steps) {
          now++;
          const at = sites[site].workers[worker];
          if (kind === 'add') {
            const expires = now + 1 + n;
            assert.ok(add(at, key, now, expires));
            did[site].join(knows[site].add(key, site, now, promised(now, expires)));
          } else if (kind === 'remove') {
            const there = knows[site].has(key, now);
            assert.equal(remove(at, key, now), there);
            if (there) did[site].join(knows[site].remove(key));
          } else if (kind === 'cut') cut(site);
          else if (kind === 'sweep') at.sweep(now, 128);
          else if (kind === 'pause') now += n;
          else if (sent.length > 0) {
            const { message, model, origin } = sent[n % sent.length];
            if (origin === site) continue;
            sites[site].apply(message, origin, now);
            knows[site].join(model);
          }
          knows[site].join(did[site]);
          for (let k = 0; k < KEYS; k++) assert.equal(has(sites[site].receiver, k, now), knows[site].has(k, now));
        }
        for (let origin = 0; origin < SITES; origin++) cut(origin);
        for (const { message, origin } of sent.toReversed())
          for (let to = 0; to < SITES; to++) if (to !== origin) sites[to].apply(message, origin, now);
        for (const site of sites) {
          for (let k = 0; k < KEYS; k++) assert.equal(has(site.receiver, k, now), all.has(k, now));
          assert.equal(site.sender.digest(now), sites[0].sender.digest(now));
          assert.equal(site.receiver.locksHeld(), 0);
          assert.equal(site.receiver.describe(now)['malformed'], 0);
        }
      }),
      RUNS,
    );
  });

  it('is not revived by records late by `DELIVERY_S_MAX`, while elements are forgotten', () => {
    const late = fc.record({
      kind: fc.constantFrom('add', 'remove', 'deliver', 'wait'),
      site: fc.nat(1),
      seconds: fc.constantFrom(0, 3, 300),
      pick: fc.nat(),
    });
    fc.assert(
      fc.property(fc.array(late, { minLength: 10, maxLength: 25 }), (steps) => {
        const sites = [0, 1].map((i) => new Site(definition, i, 2, 1));
        // Hears everything at once, and so forgets nothing it should not.
        const oracle = new Site(definition, 0, 2, 1);
        const undelivered: { message: Message; origin: number; said: number }[][] = sites.map(() => []);
        let now = START;
        const deliver = (to: number, pick: number): void => {
          const [{ message, origin }] = undelivered[to].splice(pick % undelivered[to].length, 1);
          sites[to].apply(message, origin, now);
        };
        for (const { kind, site, seconds, pick } of steps) {
          const [worker] = sites[site].workers;
          if (kind === 'add') assert.ok(add(worker, 0, now, now + 1 + seconds));
          else if (kind === 'remove') remove(worker, 0, now);
          else if (kind === 'deliver' && undelivered[site].length > 0)
            deliver(site, pick % 2 === 0 ? pick : undelivered[site].length - 1);
          else if (kind === 'wait') {
            const until = now + (pick % 4 === 0 ? pick % 90 : pick % 10);
            for (let to = 0; to < 2; to++)
              while (undelivered[to].length > 0 && undelivered[to][0].said + DELIVERY_S_MAX < until) deliver(to, 0);
            now = until;
            for (const { receiver } of sites) receiver.sweep(now, 128);
          }
          for (const message of sites[site].flush()) {
            oracle.apply(message, site, now);
            for (let to = 0; to < 2; to++) if (to !== site) undelivered[to].push({ message, origin: site, said: now });
          }
        }
        for (let to = 0; to < 2; to++) while (undelivered[to].length > 0) deliver(to, steps.length);
        for (const { receiver } of sites) {
          assert.equal(has(receiver, 0, now), has(oracle.receiver, 0, now));
          assert.equal(receiver.digest(now), oracle.receiver.digest(now));
        }
      }),
      { numRuns: 800 },
    );
  });

  it('merges in any grouping to the same', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const sites = [0, 1, 2].map((i) => new Site(definition, i, SITES));
        const [a, b, c] = sites;
        let now = START;
        for (const { kind, site, key, n } of steps) {
          now++;
          if (kind === 'add') add(sites[site].workers[0], key, now, now + n);
          else if (kind === 'remove') remove(sites[site].workers[0], key, now);
          else if (kind === 'deliver') sites[site].receiver.merge(sites[n % SITES].region, now);
        }
        b.receiver.merge(c.region, now);
        a.receiver.merge(b.region, now);
        c.receiver.merge(a.region, now);
        b.receiver.merge(a.region, now);
        b.receiver.merge(c.region, now);
        assert.equal(b.receiver.merge(c.region, now), 0);
        for (const site of sites) assert.equal(site.sender.digest(now), a.sender.digest(now));
      }),
      RUNS,
    );
  });

  it('forgets what is over, removed or not, and has its room again', () => {
    const { workers, receiver } = new Site(removeSet({ capacity: 8, keyWords: 2, members: 2 }), 0, 2);
    for (let key = 0; key < 8; key++) assert.ok(add(workers[0], key, START, START + 10));
    assert.equal(add(workers[1], 8, START, START + 10), false);
    assert.equal(workers[1].refusal, SetRefusal.FULL);
    assert.ok(remove(workers[1], 3, START));
    assert.equal(add(workers[0], 8, START, START + 10), false); // the removed one is remembered
    const later = promised(START, START + 10) + CLOCK_SKEW_GUARD_S;
    assert.ok(add(workers[0], 8, later, later + 10));
    assert.equal(receiver.describe(later)['full'], 2);
    assert.ok(!has(receiver, 0, later) && has(receiver, 8, later));
    assert.ok(add(workers[0], 9, later, FOREVER));
    assert.ok(has(receiver, 9, later + 2 ** 29));
  });

  it('is whole, and told whole or not at all, when a writer dies at any step', () => {
    for (const act of [
      (set: SharedSet) => add(set, 1, START + 1, START + 90),
      (set: SharedSet) => add(set, 2, START + 1, START + 90),
      (set: SharedSet) => remove(set, 1, START + 1),
    ])
      for (let steps = 1; ; steps++) {
        const [here, there] = [0, 1].map((i) => new Site(definition, i, 2));
        add(here.workers[0], 1, START, START + 50);
        here.countdown.set(steps);
        let died = false;
        try {
          act(here.workers[0]);
        } catch (error) {
          assert.ok(error instanceof Death);
          died = true;
        }
        here.buryWorker(0);
        assert.equal(here.receiver.locksHeld(), 0);
        for (const message of here.flush()) there.apply(message, 0, START + 1);
        assert.equal(there.sender.digest(START + 1), here.sender.digest(START + 1));
        assert.ok(act(here.workers[1]) || !died || !has(here.receiver, 1, START + 1));
        if (!died) break;
      }
  });

  it('survives hostile records', () => {
    fc.assert(
      fc.property(
        fc.nat(3),
        fc.array(fc.integer(), { minLength: 1, maxLength: 10 }),
        fc.nat(9),
        (op, words, origin) => {
          const { receiver } = new Site(definition, 0, 2);
          const before = receiver.digest(START);
          const applied = receiver.apply(op, Int32Array.from(words), 0, words.length, origin, START);
          if (applied === Applied.MALFORMED) assert.equal(receiver.digest(START), before);
          assert.equal(receiver.locksHeld(), 0);
        },
      ),
      RUNS,
    );
    assert.throws(() => removeSet({ capacity: 1, keyWords: 1, members: 25 }), /members/);
    assert.throws(() => new Site(definition, 0, SITES + 1), /raise its members/);
  });
});

describe('grow-only set', () => {
  const definition = growSet({ capacity: 64, keyWords: 2 });

  it('has what anybody added until the last expiry', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const sites = Array.from({ length: SITES }, (_, i) => new Site(definition, i, SITES));
        const model = new Map<number, number>();
        const sent: [Message, number][] = [];
        for (const { kind, site, worker, key, n } of steps) {
          if (kind === 'add') {
            assert.ok(add(sites[site].workers[worker], key, START, START + 8 * n));
            model.set(key, Math.max(model.get(key) ?? 0, START + 8 * n));
          } else if (kind === 'cut') sent.push([sites[site].cut(), site]);
          else if (kind === 'deliver' && sent.length > 0) sites[site].apply(...sent[n % sent.length], START);
        }
        sites.forEach((site, origin) => {
          for (const message of site.flush()) sent.push([message, origin]);
        });
        for (const [message, origin] of sent.toReversed()) for (const site of sites) site.apply(message, origin, START);
        for (const site of sites) {
          assert.equal(site.sender.digest(START), sites[0].sender.digest(START));
          for (const [key, expires] of model) {
            if (expires > START) assert.ok(has(site.receiver, key, expires - 1));
            assert.ok(!has(site.receiver, key, promised(START, expires)));
          }
        }
      }),
      RUNS,
    );
  });

  it('does not remove, and tells little twice', () => {
    const site = new Site(definition, 0, 2);
    assert.ok(add(site.workers[0], 1, START, START + 80));
    assert.equal(site.flush().length, 1);
    assert.ok(add(site.workers[0], 1, START, START + 85));
    assert.equal(site.flush().length, 0);
    assert.throws(() => remove(site.workers[0], 1, START), /only grows/);
  });
});
