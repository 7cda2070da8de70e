/** Members that join and leave while the others work. */

import { strict as assert } from 'node:assert';
import { Role } from '../../../shm/members.js';
import { seeded } from '../../../workers/transport/fault.js';
import { JoiningNetwork } from './joining-network.js';
import type { NetworkOptions } from './network.js';

/** All members ready, with some notes by each. */
function cluster(options: Partial<NetworkOptions> & { seed: number }): JoiningNetwork {
  const network = new JoiningNetwork({ members: 4, ...options });
  assert.ok(network.runUntil(() => network.members.every(({ index }) => network.isReady(index)), 10_000));
  return network;
}

/** Notes by every member that is ready and up, for a while; `between` after each round. */
function work(
  network: JoiningNetwork,
  rounds: number,
  from: number,
  between: (round: number) => void = () => {},
): void {
  const random = seeded(from + 1);
  for (let round = 0; round < rounds; round++) {
    for (const { index, up } of network.members) {
      if (!up || !network.isReady(index)) continue;
      for (const object of [0, 1]) if (random() < 0.7) network.note(index, object, from + round);
    }
    network.run(2);
    between(round);
  }
}

/** After quiet, all that are up have the same, each note once, in order where that matters. */
function assertEqual(network: JoiningNetwork): void {
  assert.ok(
    network.runUntil(() => network.settled && ready(network).length === up(network).length, 30_000),
    network.joinings.map(({ state, reason }) => `${state}: ${reason}`).join('; '),
  );
  network.run(1000);
  const [first, ...rest] = up(network);
  for (const { notes, delivery, id } of network.members[first].objects)
    for (const [origin, ids] of notes) {
      assert.equal(new Set(ids).size, ids.length, `object ${id}, origin ${origin}: nothing twice`);
      for (const other of rest) {
        const theirs = network.members[other].objects[id].notes.get(origin) ?? [];
        const [a, b] =
          delivery === 'in-order' ? [ids, theirs] : [ids, theirs].map((all) => all.toSorted((x, y) => x - y));
        assert.deepEqual(b, a, `object ${id}, origin ${origin}, members ${first} and ${other}`);
      }
    }
}

const up = (network: JoiningNetwork): number[] =>
  network.members.filter((member) => member.up).map(({ index }) => index);
const ready = (network: JoiningNetwork): number[] => up(network).filter((index) => network.isReady(index));

describe('an instance that joins', () => {
  it('is ready at once when it is alone', () => {
    const network = new JoiningNetwork({ seed: 1, members: 1 });
    network.run(10);
    assert.equal(network.joinings[0].state, 'ready');
  });

  it('begins together with all others, without a snapshot', () => {
    for (let seed = 1; seed <= 5; seed++) {
      const network = cluster({ seed, members: 5, loss: 0.1 });
      work(network, 20, 100);
      assertEqual(network);
      assert.ok(network.taken.length < 5, 'who heard the last of them later may take one');
      for (const { unmet } of network.joinings) assert.deepEqual(unmet, []);
    }
  });

  it('begins without state after a while when those that are there have none, and others are not', () => {
    const network = new JoiningNetwork({ seed: 6, members: 3, settings: { joinWaitMs: 500 } });
    network.members[2].up = false;
    network.run(400);
    assert.deepEqual(ready(network), []);
    assert.match(network.joinings[0].reason, /1 of 2/);
    assert.ok(network.runUntil(() => ready(network).length === 2, 1000));
    // It may have state that they lack, so they take a snapshot of it should it be heard with any.
    for (const index of [0, 1]) assert.deepEqual(network.joinings[index].unmet, [2]);
    work(network, 20, 100);
    network.rejoin(2);
    assertEqual(network);
    assert.equal(network.taken.length, 1);
    assert.deepEqual(network.joinings[2].unmet, []);
    // The donor says that it still lacks the state of some, of itself perhaps.
    network.rejoin(2);
    assert.ok(network.runUntil(() => network.joinings[2].state === 'asking', 5000));
    network.joinings[2].snapshotTaken([0, 2]);
    assert.deepEqual(network.joinings[2].unmet, [0]);
  });

  it('keeps for a member that it has not heard yet what an ended one had sent', () => {
    const network = cluster({ seed: 9, members: 4 });
    network.drop = (from, to) => from === 3 || to === 3;
    network.rejoin(0);
    assert.ok(network.runUntil(() => network.isReady(0), 5000));
    // More than half of a log for what others lack.
    for (let i = 0; i < 1000; i++) {
      while (!network.note(2, 0, 10_000 + i)) network.run(1);
      network.run(0.25);
    }
    network.run(500);
    network.crash(2);
    // Only one has the units, and it knows of member 3 from its snapshot.
    for (const index of [1, 2]) {
      network.rejoin(index);
      assert.ok(network.runUntil(() => network.isReady(index), 10_000));
    }
    network.run(5000);
    network.drop = null;
    assertEqual(network);
    for (const { alarms } of network.members) assert.deepEqual(alarms, []);
  });

  it('reports that one which it has not heard yet was away while two incarnations of a member ended', () => {
    const network = cluster({ seed: 10, members: 3 });
    network.drop = (from, to) => from === 2 || to === 2;
    network.rejoin(0);
    assert.ok(network.runUntil(() => network.isReady(0), 5000));
    work(network, 20, 100);
    for (let i = 0; i < 2; i++) {
      network.rejoin(1);
      assert.ok(network.runUntil(() => network.isReady(1), 10_000));
    }
    network.drop = null;
    network.run(2000);
    const { alarms, counts } = network.members[0];
    assert.match(alarms.join(), /what m2 sent .*m3 was away while the next incarnation ended, too/);
    assert.equal(counts.value('state_incarnations_unrepaired'), 1);
  });

  it('lacks the state of a member that is evicted when it begins: its lease may only have lapsed', () => {
    const network = new JoiningNetwork({ seed: 7, members: 3 });
    network.tell(2, { role: Role.EVICTED });
    network.members[2].up = false;
    assert.ok(network.runUntil(() => ready(network).length === 2, 5000));
    for (const index of [0, 1]) assert.deepEqual(network.joinings[index].unmet, [2]);
  });

  it('refuses a donor that lacks what its own former incarnation had, unless the others lack it, too', () => {
    const network = cluster({ seed: 8, members: 3 });
    network.rejoin(2);
    const joining = network.joinings[2];
    assert.ok(network.runUntil(() => joining.state === 'asking', 5000));
    const donor = joining.wantsSnapshotFrom;
    assert.match(joining.refusesDonor([2], network.now) ?? '', /still has to take the state of m3; m\d may have it/);
    joining.snapshotFailed('', network.now);
    joining.poll(network.now);
    assert.notEqual(joining.wantsSnapshotFrom, donor);
    assert.equal(joining.refusesDonor([2], network.now), null);
  });

  it('does not begin without those that are not understood, but by most of all members, or when it is told', () => {
    const network = new JoiningNetwork({ seed: 6, members: 3, settings: { joinWaitMs: 500 } });
    for (const member of [1, 2]) network.members[member].up = false;
    for (const joining of network.joinings) joining.block = 'another key';
    network.run(2000);
    assert.deepEqual(ready(network), []);
    assert.equal(network.joinings[0].reason, 'another key');
    network.joinings[0].beginAlone();
    network.run(100);
    assert.equal(ready(network).length, 1);

    const most = new JoiningNetwork({ seed: 7, members: 3, settings: { joinWaitMs: 500 } });
    most.members[2].up = false;
    for (const joining of most.joinings) joining.block = 'another key';
    assert.ok(most.runUntil(() => ready(most).length === 2, 2000));
  });

  for (const multicast of [true, false])
    it(`takes over the state under load, ${multicast ? 'multicast' : 'unicast'}: nothing twice, nothing lost`, () => {
      for (let seed = 10; seed < 18; seed++) {
        const network = cluster({ seed, members: 4, loss: 0.1, duplicate: 0.05, multicast });
        work(network, 30, 100);
        network.crash(3);
        work(network, 30, 200, (round) => {
          if (round === 10) network.rejoin(3);
        });
        work(network, 60, 300);
        assertEqual(network);
        assert.deepEqual(network.taken.at(-1)?.[0], 3);
        assert.ok(
          (network.members[0].objects[0].notes.get(3)?.length ?? 0) > 10,
          'of its former life, and of this one',
        );
      }
    });

  it('is ready although its snapshot takes longer than the unit log lasts', () => {
    for (const multicast of [false, true]) {
      const network = cluster({ seed: 19, members: 3, multicast, settings: { unitLogBytes: 64 << 10, detachMs: 100 } });
      network.snapshotMs = 1500;
      const taken = network.taken.length;
      network.crash(2);
      let made = 0;
      const flood = (ms: number): void => {
        for (const end = network.now + ms; network.now < end; network.run(2))
          for (let i = 0; i < 30; i++) if (network.note(0, i & 1, made)) made++;
      };
      flood(100);
      network.rejoin(2);
      flood(4000);
      assert.equal(network.taken.length - taken, 1, network.joinings[2].reason);
      const { counts } = network.members[0];
      assert.ok(counts.value('state_tx_retained') > 0 && made * 16 > 5 * (64 << 10), `${made} notes`);
      assertEqual(network);
      for (const member of network.members) {
        assert.equal(member.counts.value('state_rx_records_skipped'), 0);
        assert.deepEqual(
          member.alarms.filter((alarm) => /snapshot/.test(alarm)),
          [],
        );
      }
    }
  });

  it('is reported once, with how much is retained for it and since when, if its snapshot takes long', () => {
    for (const [settings, snapshotMs, expected] of [
      [{}, 11_000, /^m2 is still joining: since 10 s .* and [1-9]\d* records \(\d\.\d MiB of 128\.0\) are retained/],
      [{ backlogBytesEach: 1 << 20 }, 3000, /^m2 is still joining: since [0-2] s .* \(0\.[23] MiB of 1\.0\)/],
    ] as const) {
      const network = cluster({
        seed: 20,
        members: 2,
        deliveries: ['any-order'],
        settings: { unitLogBytes: 64 << 10, detachMs: 100, ...settings },
      });
      network.snapshotMs = snapshotMs;
      network.crash(1);
      network.rejoin(1);
      const reports = (): readonly string[] =>
        network.members[0].alarms.filter((text) => /is still joining/.test(text));
      const atStart = network.now;
      for (let made = 0; network.now < atStart + snapshotMs + 500; network.run(20)) {
        for (let i = 0; i < 100; i++) if (network.note(0, 0, made)) made++;
        if (network.now < atStart + snapshotMs / 8) assert.deepEqual(reports(), []);
      }
      assert.equal(reports().length, 1, reports().join('\n'));
      assert.match(reports()[0], expected);
      assertEqual(network);
    }
  });

  it('whose units outgrow the memory for them is named in an alarm, and takes another snapshot', () => {
    const network = cluster({
      ...{ seed: 19, members: 3 },
      settings: { unitLogBytes: 64 << 10, detachMs: 100, backlogBytesEach: 200_000 },
    });
    network.snapshotMs = 1500;
    network.crash(2);
    let made = 0;
    const flood = (ms: number, notes: number): void => {
      for (const end = network.now + ms; network.now < end; network.run(2))
        for (let i = 0; i < notes; i++) if (network.note(0, i & 1, made)) made++;
    };
    flood(100, 30);
    network.rejoin(2);
    flood(2500, 30);
    const { alarms } = network.members[0];
    assert.ok(
      alarms.some((text) => /joins more slowly .* raise replication.backlog_bytes/.test(text)),
      alarms.join('\n'),
    );
    assertEqual(network);
    assert.equal(network.members[2].counts.value('state_rx_records_skipped'), 0);
  });

  it('goes to another donor when one dies in the middle', () => {
    const network = cluster({ seed: 20, loss: 0.05 });
    work(network, 20, 100);
    network.crash(3);
    network.rejoin(3);
    const asked: number[] = [];
    network.onTransfer = (_to, from) => {
      asked.push(from);
      if (asked.length === 1) network.crash(from);
    };
    work(network, 100, 200);
    network.rejoin(asked[0]);
    assertEqual(network);
    assert.ok(asked.length >= 2 && asked[0] !== asked[1]);
  });

  it('begins again when it dies itself, at any step', () => {
    const network = cluster({ seed: 21, loss: 0.05 });
    const random = seeded(21);
    work(network, 20, 100);
    for (let life = 0; life < 8; life++) {
      network.crash(3);
      network.rejoin(3);
      work(network, Math.ceil(random() * 25), 1000 * (life + 1));
    }
    assertEqual(network);
  });

  it('takes the state of a donor that completes the life of another', () => {
    for (let seed = 30; seed < 36; seed++) {
      const network = cluster({ seed, members: 5, loss: 0.1 });
      const random = seeded(seed);
      work(network, 20, 100);
      network.crash(4);
      network.rejoin(4);
      // Member 0 dies with its units at some only, somewhere in the middle of the newcomer's
      // joining.
      const dying = Math.ceil(random() * 20);
      work(network, 60, 200, (round) => {
        if (round === dying) network.drop = (from) => from === 0 && random() < 0.6;
        if (round === dying + 3) {
          network.crash(0);
          network.drop = null;
        }
        if (round === 30) network.rejoin(0);
      });
      assertEqual(network);
    }
  });

  it('waits for nobody who cannot be heard', () => {
    const network = cluster({ seed: 40 });
    work(network, 20, 100);
    network.drop = (from, to) => from === 2 || to === 2;
    network.crash(3);
    work(network, 20, 200);
    network.run(1500);
    network.rejoin(3);
    assert.ok(network.runUntil(() => network.isReady(3), 5000));
    work(network, 20, 300);
    network.drop = null;
    assertEqual(network);
  });

  it('joins while another does', () => {
    const network = cluster({ seed: 41, members: 5, loss: 0.1 });
    work(network, 20, 100);
    network.crash(3);
    network.crash(4);
    network.rejoin(3);
    network.rejoin(4);
    work(network, 60, 200);
    assertEqual(network);
    for (const [, donor] of network.taken) assert.ok(donor < 3 || network.taken.length > 2);
  });

  it('takes no snapshot of a member that began without the others’ state, if there is another to ask', () => {
    const settings = { joinWaitMs: 500 };
    // All links to others than member 0 are longer, so that one is the nearest to all.
    const network = cluster({ seed: 43, members: 4, settings });
    network.link = (from, to) => (from === 0 || to === 0 ? 0 : 20);
    work(network, 20, 100);
    network.crash(0);
    network.drop = (_, to) => to === 0;
    network.rejoin(0);
    assert.ok(network.runUntil(() => network.isReady(0), 5000));
    assert.deepEqual(network.joinings[0].unmet, [1, 2, 3]);
    network.drop = null;
    network.run(1000);
    network.crash(3);
    const asked: number[] = [];
    network.onTransfer = (_, from) => asked.push(from);
    network.rejoin(3);
    assert.ok(network.runUntil(() => network.isReady(3), 5000));
    assert.equal(asked[0], 0, 'the nearest');
    assert.notEqual(network.taken.at(-1)?.[1], 0);
    // If it is all there is, it is taken.
    for (const index of [1, 2, 3]) network.crash(index);
    network.rejoin(3);
    assert.ok(network.runUntil(() => network.isReady(3), 5000));
    assert.deepEqual(network.taken.at(-1), [3, 0]);
    assert.ok(network.joinings[3].unmet.includes(1));
  });

  it('is not given a snapshot that leaves a gap', () => {
    // Nothing can be kept apart for it.
    const network = cluster({ seed: 42, members: 3, settings: { unitLogBytes: 64 << 10, backlogBytesEach: 0 } });
    work(network, 20, 100);
    network.crash(2);
    network.snapshotMs = 600;
    network.rejoin(2);
    let transfers = 0;
    network.onTransfer = () => {
      transfers++;
    };
    assert.ok(network.runUntil(() => transfers === 1, 5000));
    network.snapshotMs = 20;
    // Far more than the unit log holds, while the snapshot is under way.
    for (let id = 0; id < 6000; id++) {
      while (!network.note(0, 0, 10_000 + id)) network.run(1);
      if (id % 20 === 0) network.run(0.25);
    }
    assert.ok(network.runUntil(() => transfers === 2, 5000));
    assert.match(network.joinings[2].reason, /snapshot of/);
    work(network, 60, 200);
    assertEqual(network);
    assert.equal(network.members[2].counts.value('state_rx_records_skipped'), 0);
  });
});

describe('an instance that leaves', () => {
  it('is gone when all have all of it, under load', () => {
    for (let seed = 50; seed < 55; seed++) {
      const network = cluster({ seed, loss: 0.1, duplicate: 0.05 });
      work(network, 30, 100);
      network.joinings[3].leave();
      assert.equal(network.isReady(3), false);
      work(network, 20, 200);
      assert.ok(
        network.runUntil(() => network.joinings[3].state === 'left', 5000),
        network.joinings[3].reason,
      );
      network.crash(3);
      network.tell(3, { role: Role.LEFT });
      work(network, 20, 300);
      assertEqual(network);
      const all = network.members[3].objects[0].notes.get(3);
      assert.deepEqual(network.members[0].objects[0].notes.get(3)?.toSorted(), all?.toSorted());
    }
  });

  it('waits for who lacks something of it, and is not stopped by who is silent', () => {
    const network = cluster({ seed: 60 });
    network.drop = (from, to) => from === 3 && to === 0;
    network.note(3, 0, 1);
    network.joinings[3].leave();
    network.run(500);
    assert.equal(network.joinings[3].state, 'leaving');
    assert.match(network.joinings[3].reason, /m1 has everything/);
    network.members[0].up = false;
    assert.ok(network.runUntil(() => network.joinings[3].state === 'left', 3000));
  });

  it('cannot be made to leave by an old message', () => {
    const network = cluster({ seed: 61, members: 2 });
    const recorded: Uint8Array[] = [];
    network.drop = (from, _to, bytes) => {
      if (from === 1) recorded.push(bytes.slice());
      return false;
    };
    network.joinings[1].leave();
    network.run(300);
    network.drop = null;
    // It stays after all.
    network.rejoin(1);
    assert.ok(network.runUntil(() => network.isReady(1), 5000));
    network.run(500);
    for (const message of recorded)
      assert.equal(network.members[0].receiver.receive(message, network.now, 0), 'incarnation');
    network.note(0, 0, 5);
    network.note(1, 0, 6);
    assertEqual(network);
  });
});
