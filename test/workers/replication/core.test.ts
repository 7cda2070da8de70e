import { strict as assert } from 'node:assert';
import { AckBoard, VectorRecord } from '../../../shm/ack-board.js';
import type { Delivery } from '../../../shm/objects/core/object.js';
import { readPeers } from '../../../workers/replication/membership/peers.js';
import { Datagram } from '../../../workers/replication/wire/message.js';
import { seeded } from '../../../workers/transport/fault.js';
import { ADD, NOTE } from '../../support/ledger.js';
import { Network, type NetworkOptions, type TestMember } from './network.js';

const BOTH: readonly Delivery[] = ['any-order', 'in-order'];

/**
 * Every member notes `count` numbers of its own on each object, in bursts, and adds to shared keys.
 */
function load(network: Network, count: number, random: () => number): void {
  const objects = network.members[0].objects.length;
  const next = network.members.map(() => 0);
  while (next.some((n) => n < count)) {
    network.members.forEach((member, m) => {
      const burst = Math.floor(random() * 40);
      for (let i = 0; i < burst && next[m] < count; i++) {
        const id = next[m]++;
        for (let object = 0; object < objects; object++) {
          while (!member.sender.makeRoom()) network.run(5);
          network.append(m, object, NOTE, id);
          member.sender.append(object, ADD, Int32Array.of(id % 10, 1), 0, 2);
        }
        member.sender.cut();
      }
    });
    network.run(random() * 10);
  }
}

/**
 * Every other member has each of the numbers exactly once, in order where the object wants it, and
 * the right sums.
 */
function checkDelivered(network: Network, count: number): void {
  const all = Array.from({ length: count }, (_, i) => i);
  for (const member of network.members)
    for (const object of member.objects) {
      for (let origin = 0; origin < network.members.length; origin++) {
        if (origin === member.index) continue;
        const notes = object.notes.get(origin) ?? [];
        const got = object.delivery === 'in-order' ? notes : notes.toSorted((a, b) => a - b);
        assert.deepEqual(got, all, `member ${member.index} object ${object.id} origin ${origin}`);
      }
      let sum = 0;
      for (const value of object.sums.values()) sum += value;
      assert.equal(sum, count * (network.members.length - 1));
    }
}

function watchVectors(network: Network): void {
  const highest = new Map<string, number>();
  const record = new VectorRecord();
  const step = network.run.bind(network);
  network.run = (ms) => {
    step(ms);
    for (const member of network.members) {
      const board = new AckBoard(member.board);
      for (let object = 0; object < board.objects; object++)
        for (let origin = 0; origin < board.members; origin++) {
          record.clear();
          board.readReception(object, origin, record);
          const key = `${member.index} ${object} ${origin} ${record.incarnation}`;
          assert.ok(record.contiguous >= (highest.get(key) ?? 0), `vector ${key} went back`);
          highest.set(key, record.contiguous);
        }
    }
  };
}

function deliverAll(options: NetworkOptions, count: number): Network {
  const network = new Network(options);
  watchVectors(network);
  load(network, count, seeded(options.seed + 1));
  assert.ok(
    network.runUntil(() => network.settled, 120_000),
    'not settled',
  );
  checkDelivered(network, count);
  return network;
}

describe('replication core', () => {
  for (const multicast of [true, false])
    for (const members of [2, 3, 5])
      for (const loss of [0, 0.05, 0.5]) {
        const title = `${members} members, ${loss * 100} % loss, ${multicast ? 'multicast' : 'unicast'}`;
        it(`delivers every record exactly once: ${title}`, () => {
          for (let seed = 1; seed <= 3; seed++)
            deliverAll({ seed, members, loss, duplicate: 0.1, delayMs: [1, 20], multicast, deliveries: BOTH }, 150);
        });
      }

  it('delivers over the shortest path MTU there is, too', () => {
    deliverAll({ seed: 6, members: 3, loss: 0.1, settings: { mtu: 1280 } }, 150);
  });

  it('sends nothing twice on a network that loses nothing', () => {
    for (let seed = 1; seed <= 6; seed++) {
      const network = deliverAll({ seed, members: 3, delayMs: [20, 30], multicast: true }, 150);
      for (const { counts } of network.members) {
        assert.equal(counts.value('state_tx_retransmissions'), 0);
        assert.equal(counts.value('state_rx_units_duplicate'), 0);
      }
    }
  });

  for (const [name, firstSequence] of [
    ['2^32', 2 ** 32 - 100],
    ['2^48', 2 ** 48 - 100],
    ['2^53', 2 ** 53 - 1_000_000],
  ] as const)
    it(`counts past ${name}`, () => {
      deliverAll({ seed: 5, members: 3, loss: 0.1, firstSequence }, 150);
    });

  it('merges what waits, and the unit stands for all of it', () => {
    const network = new Network({ seed: 6, members: 2, deliveries: ['any-order'] });
    const [a, b] = network.members;
    a.sender.makeRoom();
    for (let i = 0; i < 100; i++) a.sender.append(0, ADD, Int32Array.of(i % 4, 1), 0, 2);
    a.sender.cut();
    assert.ok(network.runUntil(() => network.settled, 1000));
    assert.equal(a.counts.value('state_tx_units'), 1);
    assert.equal(a.counts.value('state_tx_records_coalesced'), 96);
    assert.equal(b.counts.value('state_rx_records_changed'), 4);
    assert.deepEqual([...b.objects[0].sums.values()], [25, 25, 25, 25]);
    assert.equal(new AckBoard(a.board).sequence(0), 100);
  });

  it('makes good the loss of the very last message', () => {
    const network = new Network({ seed: 7, members: 2 });
    network.run(500);
    let dropped = 0;
    network.drop = (from) => from === 0 && dropped++ === 0;
    network.append(0, 1, NOTE, 42);
    assert.ok(network.runUntil(() => network.settled, 2000));
    assert.ok(dropped > 1);
    assert.deepEqual(network.members[1].objects[1].notes.get(0), [42]);
  });

  it('tells by keepalive what the last message would have brought', () => {
    const network = new Network({
      seed: 8,
      members: 2,
      settings: { retransmitMsMin: 4000, retransmitMsInitial: 4000 },
    });
    network.run(500);
    let dropped = 0;
    network.drop = (from) => from === 0 && dropped++ === 0;
    network.append(0, 0, NOTE, 1);
    network.run(300);
    const status = readPeers(new AckBoard(network.members[1].board), network.members[1].settings, network.now);
    assert.equal(status[0].missing, 1);
    assert.equal(
      readPeers(new AckBoard(network.members[0].board), network.members[0].settings, network.now)[0].unacknowledged,
      1,
    );
  });

  it('waits at least a round trip before it sends again, and measures it right under loss', () => {
    const network = deliverAll({ seed: 9, members: 3, loss: 0.3, delayMs: [50, 55] }, 200);
    for (const member of network.members)
      for (const peer of readPeers(new AckBoard(member.board), member.settings, network.now)) {
        // Two delays each way; the rest is the millisecond the two sides may wait for their turn.
        assert.ok(peer.rttMs !== null && peer.rttMs.minimum >= 100 && peer.rttMs.average <= 112, JSON.stringify(peer));
      }
  });

  it('sends what a silent member lacks as soon as it is heard again, however often it was sent before', () => {
    const network = new Network({ seed: 12, members: 2 });
    network.run(500);
    network.members[1].up = false;
    for (let i = 0; i < 10; i++) {
      network.append(0, 0, NOTE, i);
      network.run(20);
    }
    network.run(60_000);
    // Right after a probe, which is the oldest unit: its next turn would be the furthest away.
    const { counts } = network.members[0];
    const probes = counts.value('state_tx_retransmissions');
    assert.ok(network.runUntil(() => counts.value('state_tx_retransmissions') > probes, 10_000));
    network.run(50);
    network.members[1].up = true;
    // A keepalive, a round trip, and the times that members wait for their turn; the back-off would
    // be 5 s.
    assert.ok(network.runUntil(() => network.members[1].objects[0].applied === 10, 2000));
  });

  it('talks again with a member that started anew, and sends it what is still held', () => {
    const network = new Network({ seed: 11, members: 3, loss: 0.1 });
    for (let i = 0; i < 50; i++) network.append(1, 0, NOTE, i);
    assert.ok(network.runUntil(() => network.settled, 10_000));
    network.members[1].up = false;
    for (let i = 0; i < 20; i++) for (const object of [0, 1]) network.append(0, object, NOTE, 100 + i);
    network.run(300);
    const again = network.restart(1);
    for (let i = 0; i < 20; i++) for (const object of [0, 1]) network.append(1, object, NOTE, 200 + i);
    assert.ok(network.runUntil(() => network.settled, 20_000));
    const held = Array.from({ length: 20 }, (_, i) => 100 + i);
    const fresh = Array.from({ length: 20 }, (_, i) => 200 + i);
    assert.deepEqual(again.objects[1].notes.get(0), held);
    assert.deepEqual(network.members[0].objects[1].notes.get(1), fresh);
    assert.equal(network.members[0].counts.value('state_rx_restarts'), 1);
    assert.equal(network.members[2].objects[0].notes.get(1)?.length, 70);
  });

  it('drops stragglers from an earlier life', () => {
    const network = new Network({ seed: 12, members: 2 });
    const old: Uint8Array[] = [];
    network.drop = (from, _to, bytes) => {
      if (from === 1) old.push(bytes.slice());
      return false;
    };
    network.append(1, 0, NOTE, 1);
    network.run(100);
    const stragglers = old.splice(0);
    network.restart(1);
    network.append(1, 0, NOTE, 2);
    // It is believed once it has answered, and then sends again what was refused.
    network.run(300);
    const [a] = network.members;
    for (const straggler of stragglers) assert.equal(a.receiver.receive(straggler, network.now, 0), 'incarnation');
    assert.deepEqual(a.objects[0].notes.get(1), [1, 2]);
  });

  it('believes an earlier incarnation only when the present one is silent and it answers', () => {
    const network = new Network({ seed: 18, members: 2 });
    const old: Uint8Array[] = [];
    let deaf = false;
    network.drop = (from, _to, bytes) => {
      if (from === 1) old.push(bytes.slice());
      return deaf && from === 0;
    };
    network.append(1, 0, NOTE, 1);
    network.run(1000);
    const stragglers = old.splice(0);
    const [a, first] = network.members;
    const later = network.restart(1, 2 ** 41);
    network.run(1000);
    assert.equal(a.counts.value('state_rx_restarts'), 1);
    const present = old.splice(0);
    later.up = false;
    network.run(3000);
    // Its clock has gone back since. While it hears nothing of us, its messages prove nothing.
    const back = network.restart(1, 2 ** 40 + 1000);
    network.append(1, 0, NOTE, 2);
    deaf = true;
    network.run(5000);
    assert.equal(a.counts.value('state_rx_restarts'), 1);
    deaf = false;
    assert.ok(network.runUntil(() => a.counts.value('state_rx_restarts') === 2, 3000));
    assert.ok(network.runUntil(() => a.objects[0].notes.get(1)?.includes(2) === true, 3000));
    // Neither of the lives that are over is believed again, however long it is heard, and whether
    // it is the later one.
    for (const message of [...stragglers, ...present])
      assert.equal(a.receiver.receive(message, network.now, 0), 'incarnation');
    back.up = false;
    network.run(3000);
    for (const over of [first, later]) {
      network.members[1] = over;
      over.up = true;
      network.run(10_000);
      assert.equal(a.counts.value('state_rx_restarts'), 2);
    }
  });

  it('goes on after either thread was started again on the same memory', () => {
    for (let seed = 20; seed < 30; seed++) {
      const network = new Network({ seed, members: 3, loss: 0.2, duplicate: 0.1 });
      const random = seeded(seed);
      for (let i = 0; i < 200; i++) {
        for (const object of [0, 1]) network.append(0, object, NOTE, i);
        network.run(random() * 3);
        if (random() < 0.1) network.members[0].startSender();
        if (random() < 0.1) network.members[1].startReceiver();
        if (random() < 0.1) network.members[1].startSender();
      }
      assert.ok(network.runUntil(() => network.settled, 60_000));
      for (const member of [network.members[1], network.members[2]] satisfies TestMember[]) {
        const all = Array.from({ length: 200 }, (_, i) => i);
        assert.deepEqual(member.objects[1].notes.get(0), all);
        assert.deepEqual(
          member.objects[0].notes.get(0)?.toSorted((a, b) => a - b),
          all,
        );
      }
    }
  });

  it('rings the bell rarely, and never misses an acknowledgement for it', () => {
    const network = new Network({ seed: 13, members: 2, delayMs: [1, 1] });
    network.run(500);
    const [a, b] = network.members;
    const rings = b.rings;
    for (let i = 0; i < 100; i++) network.append(0, 0, NOTE, i);
    network.run(3);
    assert.equal(b.rings - rings, 1);
    assert.ok(network.runUntil(() => network.settled, 100));
    assert.equal(a.counts.value('state_tx_retransmissions'), 0);
  });

  it('rings the bell when an acknowledgement makes room', () => {
    const network = new Network({ seed: 15, members: 2, delayMs: [5, 5], settings: { unitLogBytes: 64 << 10 } });
    network.run(500);
    let taken = 0;
    while (network.append(0, 0, NOTE, taken)) taken++;
    const [a] = network.members;
    const rings = a.rings;
    assert.ok(network.runUntil(() => network.settled, 1000));
    assert.ok(a.rings > rings);
    assert.ok(network.append(0, 0, NOTE, taken));
    const fed = a.rings;
    assert.ok(network.runUntil(() => network.settled, 1000));
    assert.equal(a.rings, fed, 'and only then');
  });

  it('owes anew what comes while it acknowledges', () => {
    const network = new Network({ seed: 16, members: 2 });
    network.run(500);
    const [a, b] = network.members;
    const messages: Uint8Array[] = [];
    const memory = new Datagram(1500);
    const say = (id: number): void => {
      network.append(0, 0, NOTE, id);
      a.sender.poll(network.now, {
        claim: () => memory,
        send: (datagram, bytes) => messages.push(datagram.bytes.slice(0, bytes)),
      });
    };
    const receive = (): void => {
      for (const message of messages.splice(0)) b.receiver.receive(message, network.now, 0);
    };
    say(1);
    receive();
    b.sender.poll(network.now, { claim: () => null, send: () => {} });
    network.now += 2;
    say(2);
    // The second message comes while the acknowledgement of the first goes out: the bell does not
    // ring for it.
    const rings = b.rings;
    assert.equal(b.sender.poll(network.now, { claim: () => new Datagram(1500), send: receive }), 1);
    assert.equal(b.rings, rings);
    assert.ok(b.sender.deadline <= network.now + 2);
  });

  it('serves a group larger than one message can speak of', () => {
    const network = new Network({ seed: 17, members: 64, loss: 0.02, deliveries: ['in-order'], multicast: true });
    for (let m = 0; m < 64; m++) network.append(m, 0, NOTE, m);
    assert.ok(network.runUntil(() => network.settled, 20_000));
    for (const member of network.members) assert.equal(member.objects[0].applied, 63);
  });

  it('needs nobody', () => {
    const network = new Network({ seed: 14, members: 1 });
    for (let i = 0; i < 100_000; i++) {
      assert.ok(network.append(0, 0, NOTE, i));
      if (i % 100 === 0) network.run(0.25);
    }
    network.run(1);
    assert.ok(network.settled);
    assert.equal(network.sent, 0);
  });
});
