/**
 * Members that die with their last units at some of the others only, and what the survivors make of
 * it.
 */

import { strict as assert } from 'node:assert';
import { AckBoard } from '../../../shm/ack-board.js';
import { SlotIncarnations } from '../../../shm/board-records.js';
import { recordHeader } from '../../../shm/log.js';
import { MemberTable, MemberTableWriter, Role, type SlotEntry } from '../../../shm/members.js';
import { messageBytes } from '../../../workers/replication/settings.js';
import { Datagram, MessageReader, MessageWriter } from '../../../workers/replication/wire/message.js';
import { seeded } from '../../../workers/transport/fault.js';
import { NOTE } from '../../support/ledger.js';
import { MEANING_HASH, Network, type NetworkOptions, type TestMember } from './network.js';

const ORIGIN = 0;
const UNITS = 60;

/** Main of every survivor hears that the member's life is over. */
function declareDead(network: Network, slot: number, role: SlotEntry['role'] = Role.EVICTED): void {
  const dead = new AckBoard(network.members[slot].board).incarnation;
  for (const { table, index } of network.members) {
    if (index === slot) continue;
    const now = new MemberTable(table);
    const entries = Array.from({ length: now.slots }, (_, other) => now.entry(other));
    entries[slot] = { ...entries[slot], role, dead };
    new MemberTableWriter(table).write(1, entries);
  }
}

function life(network: Network, at: number, slot: number): SlotIncarnations {
  const record = new SlotIncarnations();
  new AckBoard(network.members[at].board).readIncarnations(slot, record);
  return record;
}

function isClosed(network: Network, at: number, slot: number): boolean {
  return life(network, at, slot).isClosed;
}

function survivors(network: Network, dead: number): number[] {
  return network.members.filter(({ index, up }) => up && index !== dead).map(({ index }) => index);
}

/** What each survivor has of the origin's notes, by object, in a form that can be compared. */
function noted(network: Network, at: number, origin = ORIGIN): (readonly number[])[] {
  return network.members[at].objects.map(({ notes, delivery }) => {
    const all = notes.get(origin) ?? [];
    return delivery === 'in-order' ? all : all.toSorted((a, b) => a - b);
  });
}

function assertEqual(network: Network, at: readonly number[]): void {
  for (const each of at) assert.deepEqual(noted(network, each), noted(network, at[0]), `member ${each} and ${at[0]}`);
  for (const each of at)
    for (const notes of noted(network, each)) assert.equal(new Set(notes).size, notes.length, 'nothing twice');
}

/**
 * The origin sends units of which each reaches a survivor with the probability given, and is no
 * more.
 */
function dieHalfway(network: Network, chance: (to: number) => number, random: () => number): void {
  network.run(500);
  for (let i = 0; i < 20; i++) for (const object of [0, 1]) network.append(ORIGIN, object, NOTE, i);
  assert.ok(network.runUntil(() => network.settled, 5000));
  network.drop = (from, to) => from === ORIGIN && random() >= chance(to);
  for (let i = 20; i < 20 + UNITS; i++) {
    for (const object of [0, 1]) network.append(ORIGIN, object, NOTE, i);
    network.run(0.25);
  }
  network.run(6);
  network.members[ORIGIN].up = false;
  network.drop = null;
}

function crashed(options: Partial<NetworkOptions> & { seed: number }, chance: (to: number) => number): Network {
  const network = new Network({ members: 4, ...options });
  dieHalfway(network, chance, seeded(options.seed));
  return network;
}

describe('an origin that dies half-way through a multicast', () => {
  for (const multicast of [true, false])
    for (const members of [3, 4, 6])
      it(`is completed by the survivors: ${members} members, ${multicast ? 'multicast' : 'unicast'}`, () => {
        for (let seed = 1; seed <= 3; seed++) {
          const network = crashed({ seed, members, multicast, loss: 0.1, duplicate: 0.05 }, () => 0.5);
          const left = survivors(network, ORIGIN);
          assert.notDeepEqual(noted(network, left[0]), noted(network, left[1]), 'half of it is somewhere only');
          const had = [...new Set(left.flatMap((at) => noted(network, at)[0]))].toSorted((a, b) => a - b);
          declareDead(network, ORIGIN);
          assert.ok(
            network.runUntil(() => left.every((at) => isClosed(network, at, ORIGIN)), 10_000),
            'not closed',
          );
          assertEqual(network, left);
          assert.deepEqual(noted(network, left[0])[0], had, 'all that any of them had, in any order');
          for (const at of left)
            assert.equal(
              network.members[at].counts.value('state_incarnations_unrepaired'),
              0,
              'by repair, not by patience',
            );
        }
      });

  it('loses, in order, only what lies beyond a hole that nobody can fill', () => {
    const network = new Network({ seed: 4, members: 3 });
    network.run(500);
    // Unit 5 reaches nobody; of the others each reaches one of the two.
    let unit = 0;
    network.drop = (from, to) => from === ORIGIN && (unit === 5 || unit % 2 !== to % 2);
    for (unit = 1; unit <= 9; unit++) {
      network.append(ORIGIN, 1, NOTE, unit);
      network.run(0.25);
    }
    network.members[ORIGIN].up = false;
    network.run(10);
    declareDead(network, ORIGIN);
    assert.ok(network.runUntil(() => [1, 2].every((at) => isClosed(network, at, ORIGIN)), 5000));
    for (const at of [1, 2]) {
      assert.deepEqual(noted(network, at)[1], [1, 2, 3, 4]);
      assert.equal(network.members[at].receiver.bufferedBytes, 0);
    }
  });

  it('is completed though the one that passes it on dies too', () => {
    const network = crashed({ seed: 5 }, (to) => (to === 3 ? 0.1 : 1));
    declareDead(network, ORIGIN);
    // Member 1 would pass everything on; nothing of it gets out any more.
    network.drop = (from) => from === 1;
    network.run(5);
    network.members[1].up = false;
    assert.ok(network.runUntil(() => [2, 3].every((at) => isClosed(network, at, ORIGIN)), 10_000));
    assertEqual(network, [2, 3]);
    assert.equal(noted(network, 3)[0].length, 20 + UNITS);
    assert.ok(network.members[2].counts.value('state_tx_units_repaired') > 0);
  });

  it('is heard of again only after its former life is closed everywhere', () => {
    const network = crashed({ seed: 6 }, () => 0.5);
    network.restart(ORIGIN);
    network.append(ORIGIN, 0, NOTE, 1000);
    let refused = 0;
    assert.ok(
      network.runUntil(() => {
        for (const at of [1, 2, 3]) {
          const { current, former, closedThrough } = life(network, at, ORIGIN);
          if (current === new AckBoard(network.members[ORIGIN].board).incarnation) {
            assert.ok(closedThrough > 0);
            for (const other of [1, 2, 3])
              assert.deepEqual(noted(network, other).map(old), noted(network, at).map(old));
          } else if (former !== 0) refused = network.members[at].counts.value('state_rejected_unclosed');
        }
        return network.settled;
      }, 20_000),
    );
    assert.ok(refused > 0);
    assertEqual(network, [1, 2, 3]);
    for (const at of [1, 2, 3]) assert.ok(noted(network, at)[0].includes(1000));
    // Nobody can lack anything of it any more: nothing is said of it.
    assert.ok(network.runUntil(() => [1, 2, 3].every((at) => life(network, at, ORIGIN).former === 0), 5000));
  });

  it('is named in each message that names its next incarnation, while a member may lack some of it', () => {
    const network = crashed({ seed: 10 }, () => 0.5);
    network.drop = (from, to) => from === 3 || to === 3;
    network.restart(ORIGIN);
    const { settings } = network.members[1];
    const reader = new MessageReader(settings.clusterId, MEANING_HASH, 2, messageBytes(settings));
    let named = 0;
    network.rewrite = (from, bytes) => {
      if (from === ORIGIN) return bytes;
      assert.equal(reader.read(bytes), null);
      const { former, current } = life(network, from, ORIGIN);
      const entries = Array.from({ length: reader.entries }, (_, i) => {
        reader.entry(i);
        return reader.originIncarnation;
      });
      if (former === 0 || !entries.includes(current)) return bytes;
      assert.ok(entries.includes(former), `member ${from} names only the next one`);
      named++;
      return bytes;
    };
    network.run(1500);
    for (let i = 0; i < 200; i++) {
      network.append(ORIGIN, 0, NOTE, 1000 + i);
      network.run(5);
    }
    assert.ok(named > 100);
  });

  it('is named for a while after it is closed, however long that took', () => {
    const network = crashed({ seed: 12 }, () => 0.5);
    const { silentMs } = network.members[1].settings;
    network.restart(ORIGIN);
    network.drop = (_, to) => to === 3;
    network.run(3 * silentMs);
    assert.ok(!isClosed(network, 1, ORIGIN), 'one is heard and has less');
    // Its next life has nothing to say of it. Member 1 hears that at once with what follows: that
    // all others name the next life of the origin.
    network.restart(3);
    network.drop = null;
    const heardAt = network.now + silentMs / 2;
    network.link = (_, to) => (to === 1 ? Math.max(0, heardAt - network.now) : 0);
    network.run(silentMs / 2);
    assert.ok(!isClosed(network, 1, ORIGIN));
    assert.ok(network.runUntil(() => isClosed(network, 1, ORIGIN), 5000));
    const closedAt = network.now;
    assert.ok(network.runUntil(() => life(network, 1, ORIGIN).former === 0, 5000));
    assert.ok(network.now - closedAt >= silentMs, `for ${network.now - closedAt} ms`);
  });

  it('is completed at a member that was cut off meanwhile, when it is heard again', () => {
    for (const [seed, has] of [
      [7, 'less'],
      [8, 'more'],
    ] as const) {
      const network = crashed({ seed }, (to) => (to === 3 ? (has === 'less' ? 0.1 : 1) : has === 'less' ? 1 : 0.4));
      network.drop = (from, to) => from === 3 || to === 3;
      network.run(1500);
      network.restart(ORIGIN);
      network.append(ORIGIN, 0, NOTE, 1000);
      assert.ok(
        network.runUntil(() => noted(network, 1)[0].includes(1000), 5000),
        'nobody waits for who is silent',
      );
      network.run(3000);
      network.drop = null;
      assert.ok(
        network.runUntil(() => network.settled && noted(network, 3)[0].length === 21 + UNITS, 10_000),
        has,
      );
      network.run(2000);
      assertEqual(network, [1, 2, 3]);
      assert.equal(noted(network, 1)[0].length, 21 + UNITS);
    }
  });

  it('is reported when two of its incarnations ended while a member that had more was not heard', () => {
    const network = new Network({ seed: 11, members: 3 });
    network.append(ORIGIN, 0, NOTE, 1);
    assert.ok(network.runUntil(() => network.settled, 5000));
    network.run(500);
    // Member 2 said that it has the same as member 1. Then only it gets more.
    network.drop = (from, to) => (from !== ORIGIN && to !== ORIGIN) || (from === ORIGIN && to === 1);
    network.append(ORIGIN, 0, NOTE, 2);
    network.run(1500);
    assert.equal(noted(network, 2)[0].length, 2);
    for (let restarts = 0; restarts < 2; restarts++) {
      network.restart(ORIGIN);
      network.drop = (from, to) => from === 2 || to === 2;
      network.run(2500);
    }
    network.drop = null;
    network.run(1000);
    assert.equal(noted(network, 1)[0].length, 1);
    assert.match(network.members[1].alarms.join(), /m1 .*not the same everywhere: m3 was away/);
  });

  it('is closed as it is, with an alarm, when nobody has some of it any more', () => {
    const network = crashed({ seed: 9, members: 3 }, (to) => (to === 1 ? 1 : 0.1));
    // The foreign log of the one who has it is lost.
    new Int32Array(network.members[1].foreignLogs).fill(0);
    declareDead(network, ORIGIN);
    assert.ok(network.runUntil(() => [1, 2].every((at) => isClosed(network, at, ORIGIN)), 20_000));
    for (const at of [1, 2]) {
      assert.equal(network.members[at].counts.value('state_incarnations_unrepaired'), 1);
      assert.match(network.members[at].alarms.at(-1) ?? '', /m1 .*not the same everywhere/);
    }
  });

  it('is told that it is taken for dead, if it is not', () => {
    const network = new Network({ seed: 10, members: 3 });
    network.run(500);
    const { board } = network.members[ORIGIN];
    assert.equal(new AckBoard(board).isDeclaredDead, false);
    declareDead(network, ORIGIN, Role.MEMBER);
    assert.ok(network.runUntil(() => new AckBoard(board).isDeclaredDead, 2000));
    network.append(ORIGIN, 0, NOTE, 1);
    network.run(2000);
    for (const at of [1, 2]) assert.deepEqual(noted(network, at)[0], []);
  });

  it('is completed though the threads of the survivors are started again meanwhile', () => {
    const network = crashed({ seed: 11 }, () => 0.5);
    declareDead(network, ORIGIN);
    const random = seeded(11);
    assert.ok(
      network.runUntil(() => {
        const member = network.members[1 + Math.floor(random() * 3)];
        if (random() < 0.5) member.startReceiver();
        else member.startSender();
        network.run(5);
        return [1, 2, 3].every((at) => isClosed(network, at, ORIGIN));
      }, 10_000),
    );
    assertEqual(network, [1, 2, 3]);
  });
});

describe('an origin whose life goes on', () => {
  it('speaks for itself: what others pass on of it is refused', () => {
    const network = new Network({ seed: 12, members: 3 });
    network.run(500);
    const [here, passing, living] = network.members;
    const memory = new Datagram(1440);
    const incarnationOf = ({ board }: TestMember): number => new AckBoard(board).incarnation;
    const writer = new MessageWriter(
      { clusterId: 0xc0ffee, meaningHash: MEANING_HASH, view: 0, sender: 2, incarnation: incarnationOf(passing) },
      1440,
    );
    for (const [datagram, incarnation] of [incarnationOf(living), incarnationOf(living) + 1].entries()) {
      writer.begin(memory, 0, 1000 + datagram, network.now);
      writer.speakFor(3, incarnation);
      writer.addUnit(1, 1, Int32Array.of(recordHeader(0, NOTE, 1), 666), 0, 2);
      const message = memory.bytes.slice(0, writer.finish(1, 1));
      assert.equal(here.receiver.receive(message, network.now, 0), null);
      assert.equal(here.counts.value('state_rx_units_refused'), 1 + datagram);
    }
    assert.equal(here.objects[0].applied, 0);
  });
});

describe('a survivor whose receive thread died', () => {
  it('still has the units that it had buffered until their turn', () => {
    const network = new Network({ seed: 4, members: 3, deliveries: ['in-order'] });
    network.run(500);
    // Of three units, one survivor misses the first, and the other the last two.
    for (const [note, lackedBy] of [
      [1, 1],
      [2, 2],
      [3, 2],
    ]) {
      network.drop = (from, to) => from === ORIGIN && to === lackedBy;
      network.append(ORIGIN, 0, NOTE, note);
      network.run(3);
    }
    network.members[ORIGIN].up = false;
    network.drop = null;
    network.members[1].startReceiver();
    declareDead(network, ORIGIN);
    assert.ok(network.runUntil(() => [1, 2].every((at) => isClosed(network, at, ORIGIN)), 10_000));
    assertEqual(network, [1, 2]);
    assert.deepEqual(noted(network, 1), [[1, 2, 3]]);
  });
});

function old(notes: readonly number[]): readonly number[] {
  return notes.filter((id) => id < 1000);
}
