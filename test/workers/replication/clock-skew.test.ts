import { strict as assert } from 'node:assert';
import { AckBoard } from '../../../shm/ack-board.js';
import { readPeers } from '../../../workers/replication/membership/peers.js';
import { ClockSkew, SKEW_ERROR_MS, SKEW_WARNING_MS } from '../../../workers/replication/receiving/clock-skew.js';
import { seeded } from '../../../workers/transport/fault.js';
import { Network } from './network.js';

describe('clock skew', () => {
  /** Messages of a member whose clock is `ahead`, some of them on their way for long. */
  function feed(skew: ClockSkew, ahead: number, from: number, seconds: number, random: () => number): number {
    let now = from;
    for (; now < from + seconds * 1000; now += 50) {
      const delay = 20 + (random() < 0.3 ? random() * 2000 : random() * 5);
      skew.sample(1e12 + now - delay + ahead, 1e12 + now, 45, now);
    }
    return now;
  }

  it('is found through queues, by the messages that did not wait', () => {
    for (let seed = 1; seed <= 20; seed++) {
      const skew = new ClockSkew();
      const ahead = (seed - 10) * 333;
      feed(skew, ahead, 0, 20, seeded(seed));
      assert.ok(Math.abs(skew.ms - ahead) < 10, `${skew.ms} for ${ahead}`);
    }
  });

  it('follows a clock that is set', () => {
    const skew = new ClockSkew();
    const random = seeded(1);
    const now = feed(skew, 0, 0, 10, random);
    feed(skew, -5000, now, 20, random);
    assert.ok(Math.abs(skew.ms + 5000) < 50, String(skew.ms));
  });

  it('alarms once an episode and level, in either direction', () => {
    const skew = new ClockSkew();
    const levels: number[] = [];
    for (const ms of [0, 0.9, 1.1, 1.2, 0.9, 1.1, 2.1, 3, 1.5, 2.5, 0.7, -1.1, -2.1, -0.1, -2.5]) {
      skew.ms = ms * SKEW_WARNING_MS;
      const level = skew.alarm();
      if (level > 0) levels.push(level);
    }
    assert.deepEqual(levels, [1, 2, 1, 2, 2]);
    assert.equal(SKEW_ERROR_MS, 2 * SKEW_WARNING_MS);
  });

  it('is measured between members, shown and told of', () => {
    const network = new Network({ seed: 5, members: 3, loss: 0.2, delayMs: [30, 60] });
    network.members[1].clockMs = 1500;
    network.members[2].clockMs = -300;
    network.run(30_000);
    const clocks = network.members.map((member) =>
      readPeers(new AckBoard(member.board), member.settings, network.now).map((peer) => peer.clockSkewMs ?? Number.NaN),
    );
    const expected = [
      [1500, -300],
      [-1500, -1800],
      [300, 1800],
    ];
    clocks.forEach((row, member) => {
      row.forEach((ms, i) => {
        assert.ok(Math.abs(ms - expected[member][i]) < 20, `${clocks}`);
      });
    });
    const skews = network.members.map((member) => member.skews);
    assert.deepEqual(
      skews.map((list) => list.length),
      [1, 2, 1],
    );
    assert.match(skews[0][0], /the clock of m2 is 1\.5 s ahead of ours/);
    assert.match(skews[1][1] + skews[1][0], /m1 is 1\.5 s behind ours/);
    const furthest = network.members[0].counts.value('state_clock_skew_ms');
    assert.ok(Math.abs(furthest - 1500) < 20);
  });
});
