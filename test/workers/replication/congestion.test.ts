import { strict as assert } from 'node:assert';
import { AckBoard, createAckBoard, PeerRecord } from '../../../shm/ack-board.js';
import { EVERYONE, type Outlet } from '../../../workers/replication/sending/outlet.js';
import { Pacing } from '../../../workers/replication/sending/pacing.js';
import { PeerView } from '../../../workers/replication/sending/peer-view.js';
import { Reason, Window } from '../../../workers/replication/sending/window.js';
import { memberTableOf, messageBytes, wireOverheadBytes } from '../../../workers/replication/settings.js';
import { Datagram } from '../../../workers/replication/wire/message.js';
import { seeded } from '../../../workers/transport/fault.js';
import { ADD } from '../../support/ledger.js';
import { Network, type TestMember, testSettings } from './network.js';

const KEYS = 300;
const SPAN_MS = 100;

/** A member's log rings and the send thread's loop around them, as far as holding back goes. */
class Feed {
  /** Of each key, what was added. */
  readonly added = new Map<number, number>();
  records = 0;
  private readonly member: TestMember;
  private readonly random: () => number;
  private waiting: number[] = [];

  constructor(member: TestMember, seed: number) {
    this.member = member;
    this.random = seeded(seed);
  }

  /** `records` more, for a round of the send thread at `now`. */
  round(records: number, now: number): void {
    for (let i = 0; i < records; i++) this.waiting.push(Math.floor(this.random() * KEYS));
    const { sender } = this.member;
    if (sender.throttle(now) !== Reason.NONE || !sender.makeRoom()) return;
    let taken = 0;
    for (let room = true; room && taken < this.waiting.length; taken++) {
      const key = this.waiting[taken];
      room = sender.append(0, ADD, Int32Array.of(key, 1), 0, 2);
      this.added.set(key, (this.added.get(key) ?? 0) + 1);
    }
    this.records += taken;
    this.waiting = this.waiting.slice(taken);
    sender.cut();
  }

  get backlog(): number {
    return this.waiting.length;
  }
}

/**
 * A link of so many bytes a ms, with a queue; a datagram that finds `queueMax` bytes in it is lost.
 */
class Link {
  queueMax = Number.POSITIVE_INFINITY;
  bytesPerMs: number;
  private readonly network: Network;
  private freeAt = 0;

  constructor(network: Network, bytesPerMs: number) {
    this.network = network;
    this.bytesPerMs = bytesPerMs;
  }

  get queued(): number {
    return Math.max(0, this.freeAt - this.network.now) * this.bytesPerMs;
  }

  delay(bytes: number): number {
    if (this.queued + bytes > this.queueMax) return Number.POSITIVE_INFINITY;
    this.freeAt = Math.max(this.freeAt, this.network.now) + bytes / this.bytesPerMs;
    return this.freeAt - this.network.now;
  }
}

function sumsOf(member: TestMember): [number, number][] {
  return [...member.objects[0].sums].toSorted(([a], [b]) => a - b);
}

describe('a path that is congested', () => {
  for (const [name, bytesPerMs, queueMax, reason] of [
    ['by a queue', 30, Number.POSITIVE_INFINITY, 'state_tx_throttled_delay'],
    // Its queue is too short to be seen by the delay.
    ['by loss', 100, 3000, 'state_tx_throttled_loss'],
  ] as const)
    it(`${name} has about one window in flight, and more is coalesced`, () => {
      const network = new Network({
        seed: 50,
        members: 3,
        deliveries: ['in-order'],
        delayMs: [10, 11],
        settings: { silentMs: 20_000 },
      });
      const [here, near, far] = network.members;
      const feed = new Feed(here, 50);
      const link = new Link(network, 10_000);
      network.link = (from, to, bytes) => (from === 0 && to === 2 ? link.delay(bytes) : 0);
      const run = (ms: number, each?: () => void): void => {
        for (let i = 0; i < ms; i++) {
          feed.round(40, network.now);
          network.run(1);
          each?.();
        }
      };
      /**
       * Records that a word on the wire stands for, from here to when the returned function is
       * called.
       */
      const ratio = (): (() => number) => {
        const { counts } = here;
        const begin = [counts.value('state_tx_records'), counts.value('state_tx_records_coalesced')];
        return () => {
          const records = counts.value('state_tx_records') - begin[0];
          return records / (records - (counts.value('state_tx_records_coalesced') - begin[1]));
        };
      };
      run(1000);
      const wide = ratio();
      run(2000);
      const before = wide();
      assert.equal(here.sender.windowReason, Reason.NONE);
      assert.equal(here.counts.value('state_tx_throttled_delay') + here.counts.value('state_tx_throttled_loss'), 0);

      link.bytesPerMs = bytesPerMs;
      link.queueMax = queueMax;
      run(4000);
      const narrow = ratio();
      let most = 0;
      run(4000, () => {
        most = Math.max(most, link.queued);
      });
      assert.ok(here.counts.value(reason) > 0);
      const { windowBytes } = here.sender;
      assert.ok(windowBytes < 64_000, `a window of ${windowBytes}`);
      assert.ok(most <= 2 * windowBytes, `${most} bytes in flight for a window of ${windowBytes}`);
      const after = narrow();
      assert.ok(after > 2 * before, `${before} records became one, and then ${after}`);

      link.bytesPerMs = 10_000;
      link.queueMax = Number.POSITIVE_INFINITY;
      run(15_000);
      assert.equal(here.sender.windowReason, Reason.NONE);
      assert.equal(feed.backlog, 0);
      assert.ok(network.runUntil(() => network.settled, 20_000));
      const expected = [...feed.added].toSorted(([a], [b]) => a - b);
      assert.deepEqual(sumsOf(near), expected);
      assert.deepEqual(sumsOf(far), expected);
    });

  it('is not seen in acknowledgements that are late: what is sent again for nothing is no loss', () => {
    const network = new Network({ seed: 54, members: 2, deliveries: ['in-order'], delayMs: [1, 2] });
    const [here, there] = network.members;
    const feed = new Feed(here, 54);
    const run = (ms: number): void => {
      for (let i = 0; i < ms; i++) {
        feed.round(20, network.now);
        network.run(1);
      }
    };
    run(2000);
    // The other host stands still for longer than the timeout, time and again.
    for (let stall = 0; stall < 20; stall++) {
      const until = network.now + 45;
      network.link = () => Math.max(0, until - network.now);
      run(45);
      network.link = () => 0;
      run(300);
    }
    assert.ok(here.counts.value('state_tx_retransmissions') > 20);
    assert.ok(there.counts.value('state_rx_units_duplicate') > 20);
    assert.equal(here.counts.value('state_tx_throttled_loss'), 0);
  });

  it('is not taken for one that became longer while little was sent', () => {
    const network = new Network({ seed: 53, members: 2, deliveries: ['in-order'], delayMs: [50, 51] });
    const [here, there] = network.members;
    const feed = new Feed(here, 53);
    const run = (ms: number, each: (i: number) => number): void => {
      for (let i = 0; i < ms; i++) {
        feed.round(each(i), network.now);
        network.run(1);
      }
    };
    run(3000, () => 3);
    network.link = () => 70;
    run(4000, (i) => (i % 500 === 0 ? 1 : 0));
    const holds = (): number =>
      here.counts.value('state_tx_throttled_delay') + here.counts.value('state_tx_throttled_loss');
    const before = holds();
    run(150, (i) => (i < 10 ? 300 : 0));
    assert.equal(feed.backlog, 0);
    assert.deepEqual(
      sumsOf(there),
      [...feed.added].toSorted(([a], [b]) => a - b),
      'after one way',
    );
    assert.equal(holds() - before, 0);
  });

  it('is seen by a round trip that grows while a backlog is sent, though nothing new is', () => {
    const settings = testSettings(2, 0);
    const board = new AckBoard(createAckBoard(1, 2, 1));
    const peers = new PeerView(settings, board, memberTableOf(settings));
    const window = new Window(settings, peers, 1400);
    const attached = Uint8Array.of(0, 1);
    const record = new PeerRecord();
    record.incarnation = 1;
    let bytesSent = 0;
    const live = (fromMs: number, toMs: number, roundTripMs: number, bytesPerMs: number): Reason => {
      for (let now = fromMs; now < toMs; now += 10) {
        bytesSent += 10 * bytesPerMs;
        record.heardAt = now;
        record.setRoundTrip(roundTripMs, roundTripMs, roundTripMs, roundTripMs, 0);
        board.writePeer(1, record);
        peers.refresh(now);
        window.update(attached, bytesSent, now);
      }
      return window.reason;
    };
    assert.equal(live(0, 1000, 50, 0), Reason.NONE);
    live(1000, 1200, 50, 100);
    assert.equal(live(1200, 3000, 300, 100), Reason.DELAY, 'a backlog makes a queue');
    assert.equal(live(3000, 5000, 300, 0), Reason.NONE, 'the path is longer');
  });

  it('holds back nothing that is rare, and nothing for a member that is silent', () => {
    const network = new Network({ seed: 51, members: 3, deliveries: ['in-order'], delayMs: [5, 120] });
    const [here, , away] = network.members;
    const feed = new Feed(here, 51);
    network.run(2000);
    away.up = false;
    for (let i = 0; i < 5000; i++) {
      feed.round(i % 20 === 0 ? 1 : 0, network.now);
      assert.equal(feed.backlog, 0);
      network.run(1);
    }
  });
});

describe('a bandwidth limit', () => {
  it('is never exceeded in any 100 ms, with repetitions and acknowledgements, and everything comes', () => {
    for (const multicast of [false, true]) {
      const bandwidth = 4_000_000;
      const network = new Network({
        seed: 52,
        members: 3,
        deliveries: ['in-order'],
        delayMs: [2, 20],
        multicast,
        settings: { bandwidth },
      });
      const [here, near] = network.members;
      const overhead = wireOverheadBytes(here.settings);
      const sent: { at: number; bytes: number }[] = [];
      const note = (bytes: number): void => void sent.push({ at: network.now, bytes: bytes + overhead });
      // By multicast one packet is for both.
      network.rewrite = (from, message) => {
        if (multicast && from === 0) note(message.length);
        return message;
      };
      network.link = (from, _to, bytes) => {
        if (!multicast && from === 0) note(bytes);
        return 0;
      };
      const feeds = network.members.map((member) => new Feed(member, 52 + member.index));
      for (let i = 0; i < 4000; i++) {
        if (i === 1000) network.drop = () => network.random() < 0.1;
        for (const feed of feeds) feed.round(feed === feeds[0] ? 400 : 2, network.now);
        network.run(1);
      }
      let span = 0;
      let most = 0;
      let oldest = 0;
      for (const { at, bytes } of sent) {
        span += bytes;
        while (sent[oldest].at <= at - SPAN_MS) span -= sent[oldest++].bytes;
        most = Math.max(most, span);
      }
      assert.ok(most <= (bandwidth / 8) * (SPAN_MS / 1000), `${most} bytes in ${SPAN_MS} ms`);
      assert.ok(most > 0.5 * (bandwidth / 8) * (SPAN_MS / 1000), 'and it is used');
      assert.ok(here.counts.value('state_tx_throttled_bandwidth') > 0);
      network.drop = null;
      assert.ok(
        network.runUntil(() => {
          for (const feed of feeds) feed.round(0, network.now);
          return feeds.every(({ backlog }) => backlog === 0) && network.settled;
        }, 60_000),
      );
      const expected = new Map(feeds[0].added);
      for (const [key, sum] of feeds[2].added) expected.set(key, (expected.get(key) ?? 0) + sum);
      assert.deepEqual(
        sumsOf(near),
        [...expected].toSorted(([a], [b]) => a - b),
      );
    }
  });

  it('leaves room for acknowledgements while there is more data than it carries', () => {
    const settings = testSettings(3, 0, { bandwidth: 2_000_000 });
    const board = new AckBoard(createAckBoard(1, 3, 1));
    const pacing = new Pacing(settings, new PeerView(settings, board, memberTableOf(settings)), messageBytes(settings));
    const memory = new Datagram(9216);
    const outlet: Outlet = { claim: () => memory, send: () => {} };
    let acknowledgements = 0;
    for (let now = 0; now < 10_000; now++) {
      pacing.begin(outlet, now);
      let messages = 0;
      while (pacing.data.claim() !== null) {
        pacing.data.send(memory, messageBytes(settings), 0, EVERYONE, 0, 0);
        assert.ok(++messages < 100);
      }
      assert.ok(pacing.isThrottling && pacing.readyAt > now);
      if (now % 100 !== 0) continue;
      assert.notEqual(pacing.urgent.claim(), null);
      pacing.urgent.send(memory, 200, 0, EVERYONE, 0, 0);
      acknowledgements++;
    }
    assert.equal(acknowledgements, 100);
  });
});
