/** `replication.max_lag_ms`: how far a member with a slow receiver may be behind. */

import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { AckBoard, VectorRecord } from '../../../shm/ack-board.js';
import { Attachment, AttachmentRecord } from '../../../shm/board-records.js';
import { LagTrack } from '../../../workers/replication/sending/lag-bound.js';
import { Reason } from '../../../workers/replication/sending/window.js';
import { seeded } from '../../../workers/transport/fault.js';
import { ADD } from '../../support/ledger.js';
import { Network, type NetworkOptions, type TestMember } from './network.js';

const [ORIGIN, SLOW, FAST] = [0, 1, 2];
const KEYS = 20_000;
const RECORDS_PER_MS = 30;

interface Run {
  readonly network: Network;
  /** The slow member's lag in ms, each ms in which the origin's units were for it. */
  readonly lags: number[];
  /** The same of the other member. */
  readonly fast: number[];
  /** Moments of the first report and of the first detachment. */
  readonly reportedAt: number;
  readonly detachedAt: number;
}

/**
 * An origin under load, and a member that takes `bytesPerMs` of what it is sent for `slowMs`; the
 * rest waits in its socket's buffer. Then all comes to rest.
 */
function run(maxLagMs: number, bytesPerMs: number, slowMs: number): Run {
  const network = new Network({
    seed: 81,
    members: 3,
    deliveries: ['any-order'],
    delayMs: [4, 6],
    settings: { maxLagMs, unitLogBytes: 4 << 20, silentMs: 60_000 },
  });
  network.run(500);
  const { sender, board, counts, alarms } = network.members[ORIGIN];
  const random = seeded(82);
  const added = new Map<number, number>();
  let waiting: { readonly key: number; readonly at: number }[] = [];
  /** When each number was logged. */
  const loggedAt: number[] = [0];
  let freeAt = 0;
  let slow = true;
  network.link = (_, to, bytes) => {
    if (to !== SLOW || !slow) return 0;
    freeAt = Math.max(freeAt, network.now) + bytes / bytesPerMs;
    return freeAt - network.now;
  };
  const acknowledgements = new AckBoard(board);
  const vector = new VectorRecord();
  const attachment = new AttachmentRecord();
  const lagOf = (member: number): number | null => {
    acknowledgements.readAttachment(0, member, attachment);
    if (attachment.state !== Attachment.ATTACHED) return null;
    vector.clear();
    acknowledgements.readVector(0, member, ORIGIN, vector);
    const oldest = loggedAt[vector.contiguous + 1];
    return oldest === undefined ? 0 : network.now - oldest;
  };
  const lags: number[] = [];
  const fast: number[] = [];
  let reportedAt = Number.POSITIVE_INFINITY;
  let detachedAt = Number.POSITIVE_INFINITY;
  for (let ms = 0; ms < slowMs; ms++) {
    for (let i = 0; i < RECORDS_PER_MS; i++) waiting.push({ key: Math.floor(random() * KEYS), at: network.now });
    if (sender.throttle(network.now) === Reason.NONE && sender.makeRoom()) {
      let room = true;
      let taken = 0;
      for (; room && taken < waiting.length; taken++) {
        const { key, at } = waiting[taken];
        room = sender.append(0, ADD, Int32Array.of(key, 1), 0, 2);
        added.set(key, (added.get(key) ?? 0) + 1);
        loggedAt.push(at);
      }
      waiting = waiting.slice(taken);
      sender.cut();
    }
    network.run(1);
    const [slowLag, fastLag] = [lagOf(SLOW), lagOf(FAST)];
    if (slowLag !== null) lags.push(slowLag);
    if (fastLag !== null) fast.push(fastLag);
    if (reportedAt === Number.POSITIVE_INFINITY && alarms.some((text) => text.includes('ms behind')))
      reportedAt = network.now;
    if (detachedAt === Number.POSITIVE_INFINITY && counts.value('state_tx_detached') > 0) detachedAt = network.now;
  }
  slow = false;
  freeAt = 0;
  assert.ok(
    network.runUntil(() => network.settled, 60_000),
    'not settled',
  );
  const byKey = (a: readonly [number, number], b: readonly [number, number]): number => a[0] - b[0];
  for (const member of [SLOW, FAST])
    assert.deepEqual([...network.members[member].objects[0].sums].toSorted(byKey), [...added].toSorted(byKey));
  return { network, lags, fast, reportedAt, detachedAt };
}

function quantile(values: readonly number[], share: number): number {
  return values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(share * values.length))];
}

describe('lag track', () => {
  it('tells the age of the oldest record that is missing, at most a spacing too small', () => {
    const SPACING = 4;
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(9), fc.nat(5)), { maxLength: 200 }), fc.nat(200), (steps, missing) => {
        const track = new LagTrack(SPACING, 0);
        const loggedAt: number[] = [0];
        let now = 1000;
        for (const [ms, records] of steps) {
          now += ms;
          for (let i = 0; i < records; i++) loggedAt.push(now);
          track.note(loggedAt.length - 1, now, 0);
        }
        now += SPACING;
        track.note(loggedAt.length - 1, now, 0);
        const through = Math.min(missing, loggedAt.length - 1);
        const age = through + 1 < loggedAt.length ? now - loggedAt[through + 1] : 0;
        const told = track.age(through, now);
        assert.ok(told <= age && told >= Math.min(age, 2 * 64 * SPACING) - SPACING - 9, `${told} for ${age}`);
      }),
    );
  });
});

describe('a bound on the lag', () => {
  const BOUND = 200;

  it('is kept with a slow receiver: more is coalesced, the member is reported, then detached; all ends equal', () => {
    const free = run(0, 60, 1000);
    const bound = run(BOUND, 60, 1000);
    const { counts, alarms } = bound.network.members[ORIGIN];
    assert.ok(quantile(free.lags, 0.9) > 2 * BOUND, 'without a bound it is far behind');
    assert.ok(quantile(bound.lags, 1) <= 2 * BOUND);
    assert.ok(bound.reportedAt < bound.detachedAt);
    assert.ok(quantile(bound.fast, 1) <= 2 * BOUND, 'nor does it hold up the other for longer');
    assert.ok(counts.value('state_tx_throttled_lag') > 0);
    assert.ok(counts.value('state_tx_lag_exceeded') > 0);
    assert.equal(alarms.filter((text) => text.includes('ms behind')).length, 1, 'reported once');
  });

  /**
   * How often an origin takes records from its rings in 400 ms, over a path of this one-way delay.
   */
  function load(
    oneWayMs: number,
    settings: NetworkOptions['settings'],
    records = 1,
  ): { readonly rounds: number; readonly origin: TestMember; readonly network: Network } {
    const network = new Network({
      seed: 83,
      members: 3,
      deliveries: ['any-order'],
      delayMs: [oneWayMs, oneWayMs],
      settings: { unitLogBytes: 4 << 20, retransmitMsInitial: 1000, ...settings },
    });
    network.run(800);
    const [origin] = network.members;
    let rounds = 0;
    for (let ms = 0; ms < 800; ms++) {
      if (origin.sender.throttle(network.now) === Reason.NONE && origin.sender.makeRoom()) {
        for (let i = 0; i < records; i++) origin.sender.append(0, ADD, Int32Array.of(ms * records + i, 1), 0, 2);
        origin.sender.cut();
        if (ms >= 400) rounds++;
      }
      network.run(1);
    }
    return { rounds, origin, network };
  }

  it('makes records wait the longer to coalesce, the nearer the lag is to the bound', () => {
    const rounds = [10, 28, 36, 44].map((oneWayMs) => load(oneWayMs, { maxLagMs: 100 }).rounds);
    assert.equal(rounds[0], 400, 'far below the bound none waits');
    for (let i = 1; i < rounds.length; i++) assert.ok(rounds[i] < rounds[i - 1], rounds.join(' '));
    assert.ok(rounds[3] >= 400 / 26, 'none waits for longer than a quarter of the bound');
  });

  it('does not detach a member whose path alone is longer, and says so', () => {
    const { rounds, origin } = load(60, { maxLagMs: 100 });
    assert.equal(rounds, 400);
    assert.equal(origin.counts.value('state_tx_detached'), 0);
    assert.equal(origin.alarms.length, 2);
    for (const text of origin.alarms) assert.match(text, /its shortest round trip takes 1\d\d ms: raise max_lag_ms/);
  });

  it('blames no member for what waits for the limit on bandwidth', () => {
    const { origin, network } = load(5, { maxLagMs: 100, bandwidth: 400_000 }, 40);
    assert.ok(origin.counts.value('state_tx_throttled_bandwidth') > 0);
    assert.equal(origin.counts.value('state_tx_lag_exceeded'), 0);
    assert.ok(network.runUntil(() => network.settled, 60_000));
  });

  it('of 0 bounds nothing', () => {
    const { rounds, origin } = load(60, { maxLagMs: 0 });
    assert.deepEqual([rounds, origin.sender.lagMs, origin.alarms], [400, 0, []]);
  });
});
