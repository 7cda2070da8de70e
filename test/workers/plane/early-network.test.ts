/**
 * Early replies where records travel by the replication protocol, over a simulated network that
 * delays, reorders, loses and repeats datagrams and cuts its members off. All of it is drawn from a
 * seed, and time is simulated.
 */

import { strict as assert } from 'node:assert';
import { AckBoard, PeerRecord } from '../../../shm/ack-board.js';
import { seeded } from '../../../workers/transport/fault.js';
import { Network } from '../replication/network.js';
import { FirewallSite } from '../support/firewall-site.js';
import { NatSite } from '../support/nat-site.js';
import { on, type PlaneOptions, SeenMembers, START_MS } from '../support/plane.js';
import { INSIDE, OUTSIDE, type Site } from '../support/site.js';

const SEEDS = [1, 2];
const FLOWS_PER_MS = 0.2;
/** From a request to its first reply at the other site. A record takes `DELAY_MS` there. */
const ROUND_TRIP_MS_MAX = 120;
const DELAY_MS = [30, 60] as const;
const REPLIES_MAX = 4;
const REPLY_GAP_MS_MAX = 20;
/** The longest wait there is, and what a look may come later: a step of the clock. */
const WAIT_MS_MAX = 250;
const STEP_MS = 1;
/** Rounds after which a data plane has looked at its timers, and how often it does so here. */
const TIMER_ROUNDS = 256;
const TIMERS_MS = 100;

interface SiteOptions {
  readonly member: number;
  readonly members: number;
  readonly plane: PlaneOptions;
}

const RULES = 'zone lan = { port inside }\nfrom lan accept';
const SITES: readonly [string, (options: SiteOptions) => Site][] = [
  ['a NAT', (options) => new NatSite({ ...options, options: { flows: 4096 } })],
  ['a firewall', (options) => new FirewallSite({ ...options, rules: RULES, options: { connections: 4096 } })],
];

interface Reply {
  readonly flow: number;
  readonly frame: Uint8Array;
  readonly arrivesMs: number;
  leftMs: number;
}

/** IP identification of a frame without tags: the number of the reply. */
const idOf = (frame: Uint8Array): number => (frame[18] << 8) | frame[19];

/** Requests leave by the first site, replies come by the second. */
class Life {
  readonly replies: Reply[] = [];
  readonly network: Network;
  private readonly seen = [new SeenMembers([false, true]), new SeenMembers([true, false])];
  private readonly sites: readonly Site[];
  private readonly boards: readonly AckBoard[];
  private readonly random: () => number;
  /** Reply that left last, by flow. */
  private readonly left: number[] = [];
  private underway: number[] = [];

  constructor(open: (options: SiteOptions) => Site, seed: number, faults: { loss?: number; duplicate?: number }) {
    this.sites = this.seen.map((early, member) => open({ member, members: 2, plane: { early } }));
    this.random = seeded(seed);
    this.network = new Network({ seed, members: 2, delayMs: DELAY_MS, ...faults, objects: this.sites });
    this.boards = this.network.members.map(({ board }) => new AckBoard(board));
  }

  get counts(): Record<string, number> {
    return this.sites[1].plane.counts();
  }

  get lost(): Reply[] {
    return this.replies.filter(({ leftMs }) => Number.isNaN(leftMs));
  }

  run(ms: number, flowsPerMs: number): void {
    for (let i = 0; i < ms; i += STEP_MS) {
      if (this.random() < flowsPerMs) this.request();
      this.arrive();
      for (const index of this.sites.keys()) this.work(index);
      this.network.run(STEP_MS);
    }
  }

  private request(): void {
    const flow = this.left.push(-1);
    const source = `10.0.0.${1 + (flow % 200)}:${1024 + flow}`;
    const [out] = this.sites[0].pass(on(INSIDE, `udp ${source} > 198.51.100.7:53`));
    const [, from, to] = /^1: udp (\S+) > (\S+)/.exec(out) ?? assert.fail(`no request: ${out}`);
    let arrivesMs = this.network.now + this.random() * ROUND_TRIP_MS_MAX;
    for (let n = Math.ceil(this.random() * REPLIES_MAX); n > 0; n--) {
      const id = this.replies.length;
      const { frame } = on(OUTSIDE, `udp ${to} > ${from} id ${id}`);
      this.replies.push({ flow, frame, arrivesMs, leftMs: Number.NaN });
      this.underway.push(id);
      arrivesMs += this.random() * REPLY_GAP_MS_MAX;
    }
  }

  private arrive(): void {
    const { plane } = this.sites[1];
    const isHere = (id: number): boolean => this.replies[id].arrivesMs <= this.network.now;
    for (const id of this.underway.filter(isHere)) plane.driver.inject(OUTSIDE, this.replies[id].frame);
    this.underway = this.underway.filter((id) => !isHere(id));
  }

  private work(index: number): void {
    const site = this.sites[index];
    const { plane } = site;
    const { sender, counts } = this.network.members[index];
    plane.nowMs = START_MS + this.network.now;
    plane.applied = counts.value('state_rx_records_changed');
    this.seen[index].roundTripMs = this.roundTripMs(index);
    const rounds = this.network.now % TIMERS_MS < STEP_MS ? TIMER_ROUNDS : 3;
    for (let i = 0; i < rounds; i++) plane.dataPlane.doWork();
    for (const { frame } of plane.driver.sent.splice(0)) if (index === 1) this.leave(idOf(frame));
    site.takeLogged(({ objectId, op, words, at, length }) => {
      assert.ok(sender.makeRoom());
      sender.append(objectId, op, words, at, length);
    });
    sender.cut();
  }

  /** What the site has measured. */
  private roundTripMs(index: number): number {
    const record = new PeerRecord();
    this.boards[index].readPeer(1 - index, record);
    return record.samples > 0 ? record.longestRoundTrip : -1;
  }

  private leave(id: number): void {
    const reply = this.replies[id];
    assert.ok(Number.isNaN(reply.leftMs), `reply ${id} left once`);
    assert.ok(id > this.left[reply.flow - 1], `reply ${id} did not overtake one of its flow`);
    this.left[reply.flow - 1] = id;
    reply.leftMs = this.network.now;
    const waitedMs = reply.leftMs - reply.arrivesMs;
    assert.ok(waitedMs <= WAIT_MS_MAX + STEP_MS, `reply ${id} waited ${waitedMs} ms`);
  }

  /** That every reply left, or was dropped and counted, and that nothing waits any more. */
  checkEnd(): void {
    const { early_replies, early_replies_known, early_replies_expired = 0, waiting_replies } = this.counts;
    assert.equal(waiting_replies, undefined);
    assert.ok(early_replies > 0);
    assert.equal(early_replies_known + early_replies_expired, early_replies);
    assert.equal(this.lost.length, this.sites[1].plane.dropped());
    // The state may come at the deadline.
    assert.ok(this.lost.length <= early_replies_expired);
  }
}

for (const [name, open] of SITES)
  describe(`early replies of ${name}, with records on a simulated network`, () => {
    it('all go on, in order, if records are only delayed', () => {
      for (const seed of SEEDS) {
        const life = new Life(open, seed, {});
        life.run(2000, FLOWS_PER_MS);
        life.run(WAIT_MS_MAX + ROUND_TRIP_MS_MAX + REPLIES_MAX * REPLY_GAP_MS_MAX, 0);
        life.checkEnd();
        assert.deepEqual(life.lost, []);
      }
    });

    it('go on in order or are dropped at their deadline, whatever becomes of the records', () => {
      for (const seed of SEEDS) {
        const life = new Life(open, seed, { loss: 0.2, duplicate: 0.1 });
        life.run(1000, FLOWS_PER_MS);
        life.network.drop = () => true;
        life.run(500, FLOWS_PER_MS);
        life.network.drop = null;
        life.run(1000, FLOWS_PER_MS);
        life.run(WAIT_MS_MAX + ROUND_TRIP_MS_MAX + REPLIES_MAX * REPLY_GAP_MS_MAX, 0);
        life.checkEnd();
        assert.ok(life.lost.length > 0, 'some, while the sites were apart');
      }
    });
  });
