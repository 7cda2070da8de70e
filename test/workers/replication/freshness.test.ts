/**
 * What a message may change, by what it says and when and by whom it was made: the table of
 * docs/state-message.md, cell by cell, on the real receiver behind the real seal. And the attacks
 * that led to it.
 */

import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { AckBoard, PeerFlag, PeerRecord, VectorRecord } from '../../../shm/ack-board.js';
import { DigestRecord, SlotIncarnations } from '../../../shm/board-records.js';
import { recordHeader } from '../../../shm/log.js';
import { MemberTable, MemberTableWriter } from '../../../shm/members.js';
import { createSealBoard, type SealKey } from '../../../shm/seal-board.js';
import { Joining } from '../../../workers/replication/membership/joining.js';
import { laterIncarnation, messageBytes, newIncarnation, startOf } from '../../../workers/replication/settings.js';
import { newKey } from '../../../workers/replication/wire/cluster-key.js';
import { Datagram, FROZEN, MessageWriter } from '../../../workers/replication/wire/message.js';
import { Opener, SEAL_BYTES, Sealer } from '../../../workers/replication/wire/seal.js';
import { NOTE } from '../../support/ledger.js';
import { JoiningNetwork } from './joining-network.js';
import { MEANING_HASH, Network, type TestMember } from './network.js';

/** Slots: who sends, who receives, and a third. */
const [SENDER, SELF, THIRD] = [0, 1, 2];
/**
 * Incarnations of the sender: ended, present, and the next one; of the third: ended, and present.
 */
const [FORMER, PRESENT, NEXT] = [1000, 2000, 3000];
const [THIRD_ENDED, THIRD_PRESENT] = [4000, 5000];
const KEY = newKey(1);
const STATES = ['fresh', 'late', 'former', 'forged'] as const;
type State = (typeof STATES)[number];

/** What is written into a message beside its header. */
type Content = (writer: MessageWriter, about: (slot: number, incarnation: number) => VectorRecord) => void;

interface Message {
  readonly content: Content;
  /** Absent: the present one. */
  readonly incarnation?: number;
  readonly flags?: number;
  readonly floor?: number;
  readonly highest?: number;
  readonly excludesUs?: boolean;
}

/**
 * One receiver that knows: the sender's former and present incarnation, the third's, and has sent
 * two units itself.
 */
class Bench {
  readonly network = new Network({ seed: 1, members: 3, deliveries: ['any-order'] });
  readonly self: TestMember = this.network.members[SELF];
  readonly board = new AckBoard(this.self.board);
  private readonly opener: Opener;
  private readonly sealers = new Map<string, Sealer>();
  private now = 10_000;

  constructor() {
    const { settings, table, sender } = this.self;
    this.opener = new Opener({
      clusterId: settings.clusterId,
      self: settings.self,
      members: table,
      messageBytes: messageBytes(settings),
      board: createSealBoard(3, [KEY]),
      now: this.now,
    });
    for (const note of [1, 2]) {
      this.network.append(SELF, 0, NOTE, note);
      sender.poll(this.now, { claim: () => new Datagram(9216), send: () => {} });
    }
    const answer: Content = (writer, about) => {
      writer.addEntry(SELF + 1, about(SELF, this.board.incarnation), this.now, 0);
    };
    this.take(SENDER, FORMER, 1, { content: () => unit(1) });
    this.take(THIRD, THIRD_ENDED, 1, { content: () => {} });
    this.take(THIRD, THIRD_PRESENT, 1, { content: answer });
    this.take(SENDER, PRESENT, 1, { content: answer, flags: PeerFlag.JOINING });
    this.take(SENDER, PRESENT, 10, {
      content: (writer, about) => {
        answer(writer, about);
        writer.addEntry(THIRD + 1, about(THIRD, THIRD_PRESENT), this.now, 0);
        writer.addUnit(1, 1, unit(7), 0, 2);
      },
      highest: 3,
    });
    this.now += 100;
  }

  /** As it stands, by what the table calls it. */
  get standing(): Record<string, unknown> {
    const { board } = this;
    const peer = new PeerRecord();
    board.readPeer(SENDER, peer);
    const [sender, third] = [SENDER, THIRD].map((slot) => {
      const life = new SlotIncarnations();
      board.readIncarnations(slot, life);
      return life;
    });
    const read = (into: (record: VectorRecord) => void): VectorRecord => {
      const record = new VectorRecord();
      into(record);
      return record;
    };
    const ours = read((record) => board.readVector(0, SENDER, SELF, record));
    const reception = read((record) => board.readReception(0, SENDER, record));
    const digest = new DigestRecord();
    board.readDigest(0, SENDER, digest);
    return {
      heard: peer.heardAt,
      incarnation: [sender.current, sender.former, sender.pending],
      flags: peer.flags,
      acknowledged: [ours.incarnation, ours.contiguous],
      vector: [...read((record) => board.readVector(0, SENDER, THIRD, record)).floats],
      ended: [third.current, third.former],
      dead: board.isDeclaredDead,
      outrun: board.outrun,
      units: [...(this.self.objects[0].notes.get(SENDER) ?? [])],
      repaired: [...(this.self.objects[0].notes.get(THIRD) ?? [])],
      floor: [reception.floor, reception.excludes(SELF)],
      digest: [...digest.floats],
    };
  }

  /** The names of what the message changed. */
  changedBy(state: State, message: Message): string[] {
    const before = this.standing;
    const incarnation = state === 'former' ? FORMER : (message.incarnation ?? PRESENT);
    const number = state === 'late' || state === 'former' ? 5 : 11;
    this.now += 1;
    if (state === 'forged') {
      assert.equal(this.take(SENDER, incarnation, number, message, newKey(KEY.id)), 'seal_forged');
      assert.equal(this.take(SENDER, incarnation, number, message, null), 'unsealed');
    } else this.take(SENDER, incarnation, number, message);
    const after = this.standing;
    return Object.keys(before).filter((name) => JSON.stringify(before[name]) !== JSON.stringify(after[name]));
  }

  private take(
    slot: number,
    incarnation: number,
    datagram: number,
    { content, flags = 0, floor = 1, highest = 3, excludesUs = false }: Message,
    key: SealKey | null = KEY,
  ): string | null {
    const { settings, receiver } = this.self;
    const { clusterId, view } = settings;
    const writer = new MessageWriter(
      { clusterId, meaningHash: MEANING_HASH, view, sender: slot + 1, incarnation },
      messageBytes(settings),
    );
    const into = new Datagram(9216);
    writer.flags = flags;
    writer.begin(into, 0, datagram, this.now);
    content(writer, (about, of) => {
      const vector = new VectorRecord();
      vector.incarnation = of;
      // An answer echoes the latest datagram of ours.
      vector.datagram = about === SELF && of === this.board.incarnation ? this.echo(incarnation) : 0;
      vector.arrivalMs = this.now;
      return vector;
    });
    if (excludesUs) writer.exclude(1 << SELF, 0);
    const length = writer.finish(floor, highest);
    if (key === null) return this.opener.open(into.bytes.slice(0, length), this.now);
    const sealed = new Uint8Array(length + SEAL_BYTES);
    sealed.set(into.bytes.subarray(0, length));
    this.sealer(slot, incarnation, key).seal(sealed, length);
    return this.opener.open(sealed, this.now) ?? receiver.receive(this.opener.message, this.now, 0);
  }

  /** The former incarnation had heard the first of our datagrams only. */
  private echo(incarnation: number): number {
    return incarnation === FORMER ? 1 : this.board.datagram(0) - (incarnation === PRESENT ? 1 : 0);
  }

  private sealer(slot: number, incarnation: number, key: SealKey): Sealer {
    const name = `${slot} ${incarnation} ${Buffer.from(key.secret).toString('hex')}`;
    let sealer = this.sealers.get(name);
    if (sealer === undefined) {
      const { clusterId } = this.self.settings;
      sealer = new Sealer({ clusterId, sender: slot + 1, incarnation, board: createSealBoard(3, [key]) });
      this.sealers.set(name, sealer);
    }
    return sealer;
  }
}

function unit(note: number): Int32Array {
  return Int32Array.of(recordHeader(0, NOTE, 1), note);
}

/** By the first column of the table. */
function messages(bench: Bench, state: State): Record<string, Message> {
  const ours = bench.board.incarnation;
  const entry =
    (slot: number, incarnation: number, contiguous: number, flags = 0): Content =>
    (writer, about) => {
      const vector = about(slot, incarnation);
      vector.contiguous = contiguous;
      writer.addEntry(slot + 1, vector, 0, 0, flags);
    };
  const nothing: Content = () => {};
  // Late and former messages are of a time before what the bench knows.
  const next = state === 'fresh' || state === 'forged' ? { incarnation: NEXT } : {};
  return {
    'is of the present incarnation': { content: nothing },
    'is of a new incarnation, and answers us': { content: entry(SELF, ours, 0), ...next },
    'is of a new incarnation, and answers nothing': { content: nothing, ...next },
    'says JOINING, READY or LEAVING': {
      content: nothing,
      flags: state === 'late' ? PeerFlag.JOINING : PeerFlag.LEAVING,
    },
    'acknowledges our units': { content: entry(SELF, ours, 2) },
    'says what its sender has of another member': { content: entry(THIRD, THIRD_PRESENT, state === 'late' ? 0 : 3) },
    'says that another member’s incarnation has ended': { content: entry(THIRD, THIRD_PRESENT, 0, FROZEN) },
    'says that our incarnation has ended': { content: entry(SELF, ours, 0, FROZEN) },
    'knows a later incarnation of our slot': { content: entry(SELF, ours + 1000, 0) },
    'carries units of its sender that we lack': { content: (writer) => writer.addUnit(2, 1, unit(8), 0, 2) },
    'carries units that we have': { content: (writer) => writer.addUnit(1, 1, unit(7), 0, 2) },
    'passes on units of an incarnation that ended': {
      content: (writer) => {
        writer.speakFor(THIRD + 1, THIRD_ENDED);
        writer.addUnit(1, 1, unit(9), 0, 2);
      },
    },
    'has another floor, or excludes us': { content: nothing, floor: 2 },
    'has a digest': { content: (writer) => writer.addDigest(Int32Array.of(1, 2), Int32Array.of(3, 4)) },
  };
}

/**
 * Rows of the specification's table: what the message is, and names of what each state may change.
 */
function specified(): { message: string; cells: string[][] }[] {
  const text = readFileSync(new URL('../../../../docs/state-message.md', import.meta.url), 'utf8');
  const [, table] = text.split('| the message | fresh | late | former | forged |\n');
  assert.ok(table !== undefined, 'docs/state-message.md has the table');
  return table
    .slice(0, table.indexOf('\n\n'))
    .split('\n')
    .slice(1)
    .map((line) => {
      const [message, ...cells] = line.split('|').slice(1, -1);
      return {
        message: message.trim().replace("'", '’'),
        cells: cells.map((cell) => (cell.trim() === '–' ? [] : cell.trim().split(', '))),
      };
    });
}

describe('what a message may change', () => {
  const rows = specified();

  it('is specified of every kind', () => {
    assert.deepEqual(
      rows.map(({ message }) => message),
      Object.keys(messages(new Bench(), 'fresh')),
    );
    for (const { cells } of rows) assert.equal(cells.length, STATES.length);
  });

  for (const { message, cells } of rows)
    for (const [i, state] of STATES.entries())
      it(`${state}: a message that ${message} changes ${cells[i].join(', ') || 'nothing'}`, () => {
        const bench = new Bench();
        assert.deepEqual(bench.changedBy(state, messages(bench, state)[message]).sort(), cells[i].toSorted());
      });
});

/** What each member was sent by another, as it was on the wire. */
function record(network: Network, from: number, to: number): Uint8Array[] {
  const recorded: Uint8Array[] = [];
  network.drop = (one, other, bytes) => {
    if (one === from && other === to) recorded.push(bytes.slice());
    return false;
  };
  return recorded;
}

function lifeOf({ board }: TestMember, slot: number): SlotIncarnations {
  const life = new SlotIncarnations();
  new AckBoard(board).readIncarnations(slot, life);
  return life;
}

describe('recordings', () => {
  it('of a member that was joining do not make an instance begin without its state', () => {
    const network = new JoiningNetwork({ seed: 1, members: 2, settings: { joinWaitMs: 60_000 } });
    const recorded = record(network, 0, 1);
    assert.ok(network.runUntil(() => network.isReady(0) && network.isReady(1), 5000));
    const start = recorded.splice(0);
    network.note(0, 0, 1);
    network.run(1000);
    network.crash(1);
    network.rejoin(1);
    for (const bytes of start) assert.equal(network.members[1].receiver.receive(bytes, network.now, 0), null);
    network.run(1);
    assert.notEqual(network.joinings[1].state, 'ready');
    assert.ok(network.runUntil(() => network.isReady(1), 5000));
    assert.equal(network.joinings[1].reason, 'has the state of a member');
    assert.deepEqual(network.members[1].objects[0].notes.get(0), [1]);
  });

  it('of an incarnation that ended do not end the one that lives, at a member that never heard the former one', () => {
    const network = new JoiningNetwork({ seed: 2, members: 3, settings: { joinWaitMs: 60_000 } });
    assert.ok(network.runUntil(() => [0, 1, 2].every((index) => network.isReady(index)), 5000));
    const recorded = record(network, 0, 1);
    network.note(0, 0, 1);
    network.run(1000);
    const former = recorded.splice(0);
    network.crash(0);
    network.rejoin(0);
    assert.ok(network.runUntil(() => network.isReady(0), 10_000));
    network.run(3000);
    // The newcomer takes the snapshot of the very member whose former incarnation was recorded.
    network.crash(2);
    network.crash(1);
    network.rejoin(1);
    assert.ok(network.runUntil(() => network.isReady(1), 10_000));
    assert.deepEqual(network.taken.at(-1), [1, 0]);
    const present = new AckBoard(network.members[0].board).incarnation;
    assert.equal(lifeOf(network.members[1], 0).current, present);
    // It hears nothing of that member for longer than the silence limit but the recordings.
    network.drop = (from, to) => from === 0 && to === 1;
    network.run(1100);
    for (const bytes of former) {
      assert.equal(network.members[1].receiver.receive(bytes, network.now, 0), 'incarnation');
      network.run(110);
    }
    network.drop = null;
    network.run(1000);
    assert.equal(lifeOf(network.members[1], 0).current, present);
    assert.equal(new AckBoard(network.members[0].board).isDeclaredDead, false);
  });
});

describe('clocks', () => {
  it('that were put back lock no member out: it takes a later incarnation than the members know', () => {
    const start = Date.UTC(2026, 0, 1);
    const hour = 3_600_000;
    const network = new JoiningNetwork({ seed: 3, members: 3, settings: { joinWaitMs: 60_000 } });
    for (const index of [0, 1, 2]) network.rejoin(index, newIncarnation(start + index));
    assert.ok(network.runUntil(() => [0, 1, 2].every((index) => network.isReady(index)), 5000));
    for (const ahead of [hour, hour + 60_000, 300_000]) {
      network.crash(1);
      network.run(2000);
      network.rejoin(1, newIncarnation(start + ahead));
      assert.ok(
        network.runUntil(() => network.isReady(1), 10_000),
        network.joinings[1].reason,
      );
      assert.ok(network.note(1, 0, ahead));
      network.run(1000);
      for (const { objects } of network.members) assert.equal(objects[0].notes.get(1)?.at(-1), ahead);
    }
    const { incarnation } = new AckBoard(network.members[1].board);
    assert.ok(startOf(incarnation) >= start + hour + 60_000 && startOf(incarnation) < start + hour + 62_000);
    assert.ok(laterIncarnation(incarnation) > incarnation);
  });

  it('of send timestamps turn over without that a member’s LEAVING is ignored', () => {
    for (const minutes of [30, 40, 60, 75]) {
      const network = new Network({ seed: 4, members: 2, deliveries: ['any-order'] });
      network.run(500);
      network.drop = () => true;
      network.run(10);
      network.now += minutes * 60_000;
      network.drop = null;
      network.run(2000);
      const { settings, board, table } = network.members[1];
      const joining = new Joining(settings, new AckBoard(board), new MemberTable(table), network.now);
      joining.leave();
      network.run(1000);
      const peer = new PeerRecord();
      new AckBoard(network.members[0].board).readPeer(1, peer);
      assert.ok(peer.isLeaving, `${minutes} minutes`);
    }
  });
});

describe('two halves that evict each other', () => {
  it('are reported at both, once for each member', () => {
    const network = new Network({ seed: 5, members: 4, deliveries: ['any-order'] });
    network.run(1000);
    network.drop = (from, to) => from < 2 !== to < 2;
    network.run(2000);
    // At one member of each half: the other hears of it there.
    for (const { table, index } of [network.members[0], network.members[2]]) {
      const now = new MemberTable(table);
      const entries = network.members.map(({ board }, slot) => ({
        ...now.entry(slot),
        dead: index < 2 === slot < 2 ? 0 : new AckBoard(board).incarnation,
      }));
      new MemberTableWriter(table).write(now.view + 1, entries);
    }
    network.run(1000);
    network.drop = null;
    network.run(10_000);
    for (const { alarms, counts } of network.members) {
      assert.equal(alarms.length, 2);
      for (const alarm of alarms) assert.match(alarm, /evicted here, and this instance is evicted there/);
      assert.equal(counts.value('state_members_estranged'), 2);
    }
  });
});
