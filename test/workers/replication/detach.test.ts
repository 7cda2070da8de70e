import { strict as assert } from 'node:assert';
import { AckBoard } from '../../../shm/ack-board.js';
import { Attachment, AttachmentRecord } from '../../../shm/board-records.js';
import { Reception } from '../../../workers/replication/units/reception.js';
import { MessageReader } from '../../../workers/replication/wire/message.js';
import { seeded } from '../../../workers/transport/fault.js';
import { ADD, NOTE } from '../../support/ledger.js';
import { MEANING_HASH, Network, type NetworkOptions, type TestMember } from './network.js';

const SMALL = { unitLogBytes: 64 << 10, detachMs: 100 } as const;
const KEYS = 50;

/** Members that each make operations of their own, and know what all must have in the end. */
class Load {
  readonly network: Network;
  /** Of each member: notes made, and what it added to each key; per object. */
  readonly made: number[][];
  readonly added: Map<number, number>[][];
  private readonly random: () => number;

  constructor(network: Network, seed: number) {
    this.network = network;
    this.random = seeded(seed);
    const objects = network.members[0].objects.length;
    this.made = network.members.map(() => new Array<number>(objects).fill(0));
    this.added = network.members.map(() => Array.from({ length: objects }, () => new Map<number, number>()));
  }

  /** A round of a member: some notes, some additions, as far as there is room. */
  round(member: number, notes: number, adds: number): void {
    const { sender, objects } = this.network.members[member];
    if (!sender.makeRoom()) return;
    for (const { id } of objects) {
      let room = true;
      for (let i = 0; room && i < notes; i++)
        room = sender.append(id, NOTE, Int32Array.of(this.made[member][id]++), 0, 1);
      for (let i = 0; room && i < adds; i++) {
        const key = Math.floor(this.random() * KEYS);
        const sums = this.added[member][id];
        sums.set(key, (sums.get(key) ?? 0) + 1);
        room = sender.append(id, ADD, Int32Array.of(key, 1), 0, 2);
      }
    }
    sender.cut();
  }

  /**
   * Every member has each note of the others once, in order where the object wants it, and every
   * sum.
   */
  check(): void {
    const { members } = this.network;
    for (const member of members)
      for (const { id, delivery, notes, sums } of member.objects) {
        const expected = new Map<number, number>();
        for (const other of members) {
          if (other === member) continue;
          const got = notes.get(other.index) ?? [];
          assert.deepEqual(
            delivery === 'in-order' ? got : got.toSorted((a, b) => a - b),
            Array.from({ length: this.made[other.index][id] }, (_, i) => i),
            `member ${member.index} object ${id} origin ${other.index}`,
          );
          for (const [key, sum] of this.added[other.index][id]) expected.set(key, (expected.get(key) ?? 0) + sum);
        }
        const byKey = (a: [number, number], b: [number, number]): number => a[0] - b[0];
        assert.deepEqual([...sums].toSorted(byKey), [...expected].toSorted(byKey));
      }
  }
}

/** A member's memory for units stays within what it was given. */
function checkMemory({ sender, settings, objects }: TestMember): void {
  assert.ok(sender.keptBytes <= settings.unitLogBytes * objects.length);
  assert.ok(sender.backlogBytes <= settings.backlogBytes);
}

function stateOf(member: TestMember, object: number, other: number): Attachment {
  const record = new AttachmentRecord();
  new AckBoard(member.board).readAttachment(object, other, record);
  return record.state;
}

/**
 * Since when the log is full, and from which number on the log's units are for each member:
 * infinite while it is owed.
 */
function insideOf({ sender }: TestMember): { fullSince: number; attachments: { from: Float64Array } } {
  return sender.channels[0] as unknown as ReturnType<typeof insideOf>;
}

function settle(network: Network, load: Load): void {
  assert.ok(
    network.runUntil(() => network.settled, 120_000),
    'not settled',
  );
  network.run(300);
  load.check();
  for (const member of network.members) {
    assert.equal(member.sender.backlogBytes, 0);
    assert.equal(member.counts.value('state_rx_records_skipped'), 0);
    assert.equal(member.counts.value('state_rx_units_overlap'), 0);
    for (const other of network.members)
      for (const { id } of member.objects) assert.equal(stateOf(member, id, other.index), Attachment.ATTACHED);
  }
}

const detached = (network: Network): number =>
  network.members.reduce((sum, { counts }) => sum + counts.value('state_tx_detached'), 0);

function newNetwork(options: Partial<NetworkOptions> & { seed: number; members: number }): Network {
  return new Network({ ...options, settings: { ...SMALL, ...options.settings } });
}

describe('detached members', () => {
  it('get everything exactly once, whatever links flap, one way or both, with loss', () => {
    let detachments = 0;
    for (let seed = 1; seed <= 12; seed++) {
      const network = newNetwork({
        seed,
        members: 3,
        loss: seed % 3 === 0 ? 0.2 : 0.02,
        duplicate: 0.1,
        delayMs: [1, 15],
        multicast: seed % 2 === 0,
      });
      const load = new Load(network, seed);
      const random = seeded(seed + 100);
      const cut = new Set<number>();
      network.drop = (from, to) => cut.has(3 * from + to);
      for (let phase = 0; phase < 6; phase++) {
        cut.clear();
        for (let link = 0; link < 9; link++) if (random() < 0.4) cut.add(link);
        const rounds = 40 + Math.floor(random() * 60);
        for (let i = 0; i < rounds; i++) {
          for (const member of network.members) load.round(member.index, 40, 20);
          network.run(random() * 30);
          for (const member of network.members) checkMemory(member);
        }
      }
      cut.clear();
      settle(network, load);
      detachments += detached(network);
    }
    assert.ok(detachments > 20, `${detachments} detachments`);
  });

  it('may be the other half of a partition: both work on, and both get what they missed', () => {
    for (const multicast of [false, true]) {
      const network = newNetwork({ seed: 40, members: 4, multicast });
      const load = new Load(network, 40);
      network.run(500);
      network.drop = (from, to) => from < 2 !== to < 2;
      for (let i = 0; i < 150; i++) {
        for (const member of network.members) load.round(member.index, 20, 40);
        network.run(20);
      }
      for (const { sender } of network.members) assert.equal(sender.backlogMembers, 4, 'two members, two objects');
      network.drop = null;
      settle(network, load);
    }
  });

  it('are owed no more than the object holds, however long they are away', () => {
    const network = newNetwork({ seed: 41, members: 3 });
    const load = new Load(network, 41);
    network.run(500);
    const [here, , away] = network.members;
    away.up = false;
    network.run(1500);
    let most = 0;
    for (let i = 0; i < 2000; i++) {
      load.round(0, 0, 100);
      network.run(1);
      if (here.sender.backlogMembers > 0) most = Math.max(most, here.sender.backlogBytes);
    }
    assert.ok(here.sender.backlogMembers > 0);
    // For each object: what the log had when it was full, and one record a key.
    assert.ok(most < 2 * (2 * SMALL.unitLogBytes + (64 << 10)), `${most} bytes`);
    away.up = true;
    settle(network, load);
  });

  it('may be slow: who keeps up loses nothing by it, who does not gets it coalesced', () => {
    const network = newNetwork({ seed: 42, members: 3, deliveries: ['in-order'], delayMs: [2, 4] });
    const load = new Load(network, 42);
    network.run(500);
    const [here, quick, slow] = network.members;
    // A link that carries one datagram in 10 ms.
    let window = 0;
    let carried = 0;
    network.drop = (from, to) => {
      if (from !== 0 || to !== 2) return false;
      if (network.now >= window) {
        window = network.now + 10;
        carried = 0;
      }
      return ++carried > 1;
    };
    for (let i = 0; i < 3000; i++) {
      load.round(0, 1, 400);
      network.run(1);
      checkMemory(here);
    }
    assert.ok(here.counts.value('state_tx_detached') > 0);
    const lag = load.made[0][0] - (quick.objects[0].notes.get(0)?.length ?? 0);
    assert.ok(lag < 100, `the quick one lacks ${lag}`);
    assert.ok((slow.objects[0].notes.get(0)?.length ?? 0) > 0);
    settle(network, load);
  });

  it('are not sent, by unicast, what is not for them', () => {
    const network = newNetwork({ seed: 47, members: 3, deliveries: ['in-order'] });
    const load = new Load(network, 47);
    network.run(500);
    const [here, , away] = network.members;
    away.up = false;
    network.run(1500);
    let bytes = [0, 0, 0];
    network.drop = (from, to, message) => {
      if (from === 0) bytes[to] += message.length;
      return false;
    };
    while (here.sender.backlogMembers === 0) {
      load.round(0, 200, 5);
      network.run(2);
    }
    bytes = [0, 0, 0];
    for (let i = 0; i < 300; i++) {
      load.round(0, 40, 5);
      network.run(2);
    }
    assert.ok(bytes[2] < bytes[1] / 10, `${bytes[2]} bytes, ${bytes[1]} to the other`);
    away.up = true;
    settle(network, load);
  });

  it('may have any slot', () => {
    const network = newNetwork({ seed: 43, members: 40, deliveries: ['in-order'], multicast: true });
    const load = new Load(network, 43);
    network.run(500);
    for (const index of [3, 31, 32, 39]) network.members[index].up = false;
    network.run(1500);
    for (let i = 0; i < 80; i++) {
      load.round(0, 200, 5);
      network.run(2);
    }
    assert.equal(network.members[0].sender.backlogMembers, 4);
    for (const member of network.members) member.up = true;
    settle(network, load);
  });

  it('that started again get what is held, and no debt of their old life', () => {
    const network = newNetwork({ seed: 44, members: 3 });
    const load = new Load(network, 44);
    network.run(500);
    const [here, , away] = network.members;
    away.up = false;
    network.run(1500);
    for (let i = 0; i < 400; i++) {
      load.round(0, 40, 5);
      network.run(2);
    }
    assert.ok(here.sender.backlogMembers > 0);
    const again = network.restart(2);
    network.run(500);
    assert.equal(here.sender.backlogMembers, 0);
    assert.equal(here.sender.backlogBytes, 0);
    load.round(0, 1, 0);
    assert.ok(network.runUntil(() => network.settled, 10_000));
    assert.equal(again.objects[1].notes.get(0)?.at(-1), load.made[0][1] - 1);
  });

  it('that are detached again while they are paid get each unit in one form, under one number', () => {
    const reader = new MessageReader(0xc0ffee, MEANING_HASH, 1, 9216);
    let again = 0;
    let folded = 0;
    for (let seed = 60; seed < 64; seed++) {
      const network = newNetwork({ seed, members: 3, deliveries: ['any-order'], delayMs: [20, 21] });
      const load = new Load(network, seed);
      const random = seeded(seed);
      const forms = new Map<number, boolean>();
      let isCut = false;
      network.drop = (from, to, bytes) => {
        if (from === 0 && to === 1 && reader.read(bytes) === null && !reader.excludes(1)) {
          for (let i = 0; i < reader.units; i++) {
            reader.unit(i);
            assert.equal(forms.get(reader.first) ?? reader.folded, reader.folded, `unit ${reader.first}`);
            forms.set(reader.first, reader.folded);
          }
          if (reader.folded && random() < 0.3) return true;
        }
        return isCut && (from === 1 || to === 1);
      };
      const { from } = insideOf(network.members[0]).attachments;
      network.run(500);
      for (let phase = 0; phase < 4; phase++) {
        isCut = true;
        network.run(1100);
        for (let i = 0; i < 250; i++) {
          load.round(0, 60, 0);
          network.run(1);
        }
        isCut = false;
        // Until all of it is in flight, but not all acknowledged.
        assert.ok(network.runUntil(() => from[1] < Number.POSITIVE_INFINITY, 20_000));
        network.run(random() * 10);
      }
      settle(network, load);
      again += detached(network);
      for (const form of forms.values()) if (form) folded++;
    }
    assert.ok(again >= 12 && folded > 100, `${again} detachments, ${folded} folded units`);
  });

  it('in the poll in which the last of their backlog is acknowledged lose nothing', () => {
    const network = newNetwork({
      ...{ seed: 65, members: 3, deliveries: ['any-order', 'any-order'], delayMs: [20, 21] },
      settings: { silentMs: 3000 },
    });
    const [here] = network.members;
    const reader = new MessageReader(0xc0ffee, MEANING_HASH, 2, 9216);
    let made = 0;
    const batch = (notes: number): boolean => {
      if (!here.sender.makeRoom()) return false;
      for (let i = 0; i < notes; i++) here.sender.append(0, NOTE, Int32Array.of(made++), 0, 1);
      here.sender.cut();
      return true;
    };
    let isCut = false;
    let acknowledgement: Uint8Array | null = null;
    let keepAcknowledgements = false;
    let loseFrom = Number.POSITIVE_INFINITY;
    network.drop = (from, to, bytes) => {
      if (isCut && (from === 1 || to === 1)) return true;
      if (reader.read(bytes) !== null || reader.object !== 0) return false;
      if (from === 1 && to === 0 && keepAcknowledgements) {
        acknowledgement = bytes.slice();
        return true;
      }
      for (let i = 0; from === 0 && to === 1 && !reader.excludes(1) && i < reader.units; i++) {
        reader.unit(i);
        if (reader.first >= loseFrom) return true;
      }
      return false;
    };
    network.run(500);
    batch(10);
    isCut = true;
    network.run(3500);
    for (let i = 0; i < 340; i++) while (!batch(60)) network.run(1);
    network.run(100);
    isCut = false;
    const inside = insideOf(here);
    const { from } = inside.attachments;
    assert.ok(network.runUntil(() => from[1] < Number.POSITIVE_INFINITY, 60_000));
    keepAcknowledgements = true;
    batch(1);
    network.run(60);
    loseFrom = made + 1;
    const filled = (): boolean => network.now + 0.25 - inside.fullSince >= SMALL.detachMs;
    while (!filled()) {
      while (batch(60));
      network.run(0.25);
    }
    assert.equal(detached(network), 1);
    assert.ok(acknowledgement !== null);
    here.receiver.receive(acknowledgement, network.now, 0);
    network.run(0.25);
    assert.equal(detached(network), 2);
    keepAcknowledgements = false;
    loseFrom = Number.POSITIVE_INFINITY;
    assert.ok(network.runUntil(() => network.settled, 60_000));
    const notes = network.members[1].objects[0].notes.get(0) ?? [];
    assert.equal(notes.length, made);
    assert.equal(new Set(notes).size, made);
    assert.ok(!here.alarms.some((alarm) => /needs a snapshot/.test(alarm)));
  });

  it('that took numbers over from a snapshot amid their backlog are told so, and go on behind it', () => {
    const network = newNetwork({ seed: 66, members: 2, deliveries: ['any-order'], delayMs: [20, 21] });
    const load = new Load(network, 66);
    const [here, away] = network.members;
    const board = new AckBoard(away.board);
    const vector = new Reception();
    network.run(500);
    network.drop = () => true;
    network.run(1500);
    for (let i = 0; i < 300; i++) {
      load.round(0, 60, 0);
      network.run(1);
    }
    network.drop = null;
    const through = new AckBoard(here.board).numbered(0);
    const has = (): number => {
      board.readReception(0, 0, vector);
      return vector.contiguous;
    };
    assert.ok(network.runUntil(() => has() > through - 4000, 20_000));
    assert.equal(stateOf(here, 0, 1), Attachment.BACKLOG);
    // As earlier versions did with every snapshot that they joined with their state. A unit of the
    // backlog spans its end.
    load.round(0, 50, 0);
    vector.advance(through);
    board.writeReception(0, 0, vector);
    board.noteChange(0);
    away.startReceiver();
    assert.ok(network.runUntil(() => away.counts.value('state_rx_records_skipped') > 0, 30_000));
    assert.equal(here.counts.value('state_tx_backlogs_lost'), 1);
    assert.match(here.alarms.at(-1) ?? '', /m2 needs a snapshot: the numbers that it took over/);
    load.round(0, 1, 0);
    assert.ok(network.runUntil(() => network.settled, 10_000));
    assert.equal(away.objects[0].notes.get(0)?.at(-1), load.made[0][0] - 1);
  });

  it('are sent a lost window of their backlog again at one timeout, not a part of it at each', () => {
    const TIMEOUT_MS = 1000;
    for (const silence of [50, 400]) {
      const settings = { retransmitMsMin: TIMEOUT_MS, retransmitMsInitial: TIMEOUT_MS, retransmitMsMax: 4000 };
      const network = newNetwork({ seed: 51, members: 2, deliveries: ['any-order'], delayMs: [10, 11], settings });
      const load = new Load(network, 51);
      network.run(500);
      const [here, away] = network.members;
      away.up = false;
      network.run(1500);
      for (let i = 0; i < 500; i++) {
        load.round(0, 50, 0);
        network.run(2);
      }
      assert.equal(stateOf(here, 0, 1), Attachment.BACKLOG);
      away.up = true;
      const before = away.objects[0].applied;
      assert.ok(network.runUntil(() => away.objects[0].applied > before + 500, 20_000));
      // All that is under way now is lost, whatever the window has grown to.
      network.drop = (from) => from === 0;
      network.run(silence);
      network.drop = null;
      const lostAt = network.now;
      const retransmissions = here.counts.value('state_tx_retransmissions');
      settle(network, load);
      const settledMs = network.now - lostAt - 300;
      assert.ok(here.counts.value('state_tx_retransmissions') > retransmissions + 20, 'a window was lost');
      assert.ok(settledMs < 1.7 * TIMEOUT_MS, `${settledMs} ms after ${silence} ms without a message`);
    }
  });

  it('are lost to a send thread that dies: they go on behind what is lost, which both sides count', () => {
    for (const heard of [false, true]) {
      const network = newNetwork({ seed: 45, members: 3, deliveries: ['in-order'] });
      const load = new Load(network, 45);
      network.run(500);
      const [here, , away] = network.members;
      away.up = false;
      network.run(1500);
      for (let i = 0; i < 300; i++) {
        load.round(0, 40, 5);
        network.run(2);
      }
      away.up = true;
      // It dies before anything is paid back, or in the midst of it.
      if (heard) {
        const before = away.objects[0].applied;
        assert.ok(network.runUntil(() => away.objects[0].applied > before + 2000, 20_000));
      }
      assert.equal(stateOf(here, 0, 2), Attachment.BACKLOG);
      here.startSender();
      assert.equal(stateOf(here, 0, 2), Attachment.ABSENT);
      assert.equal(here.counts.value('state_tx_backlogs_lost'), 1);
      assert.match(here.alarms.at(-1) ?? '', /m3 needs a snapshot/);
      network.run(2000);
      const first = load.made[0][0];
      for (let i = 0; i < 20; i++) {
        load.round(0, 10, 0);
        network.run(2);
      }
      assert.ok(network.runUntil(() => network.settled, 20_000));
      assert.equal(stateOf(here, 0, 2), Attachment.ATTACHED);
      const notes = away.objects[0].notes.get(0) ?? [];
      assert.deepEqual(
        notes.slice(-200),
        Array.from({ length: 200 }, (_, i) => first + i),
      );
      assert.equal(new Set(notes).size, notes.length, 'nothing twice');
      assert.ok(away.counts.value('state_rx_records_skipped') > 0);
      assert.equal(here.sender.backlogBytes, 0);
    }
  });

  it('whose debt outgrows its bound need a snapshot, and memory stays within it', () => {
    for (const settings of [{ backlogBytes: 300_000 }, { backlogBytesEach: 100_000 }]) {
      const network = newNetwork({ seed: 46, members: 3, deliveries: ['any-order'], settings });
      const load = new Load(network, 46);
      network.run(500);
      const [here, heard, away] = network.members;
      away.up = false;
      network.run(1500);
      for (let i = 0; i < 500; i++) {
        load.round(0, 50, 0);
        network.run(2);
        checkMemory(here);
      }
      assert.equal(here.counts.value('state_tx_backlogs_lost'), 1);
      assert.equal(stateOf(here, 0, 2), Attachment.ABSENT);
      assert.equal(here.sender.backlogBytes, 0);
      network.run(100);
      assert.equal(heard.objects[0].notes.get(0)?.length, load.made[0][0]);
      away.up = true;
      network.run(1000);
      assert.equal(stateOf(here, 0, 2), Attachment.ATTACHED);
      assert.ok(away.counts.value('state_rx_records_skipped') > 0);
    }
  });
});
