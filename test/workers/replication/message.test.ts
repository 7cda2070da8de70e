import { strict as assert } from 'node:assert';
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { AckBoard, PeerRecord, VectorRecord } from '../../../shm/ack-board.js';
import { recordHeader } from '../../../shm/log.js';
import {
  Datagram,
  ENTRY_WORDS,
  type Envelope,
  HEADER_WORDS,
  MessageReader,
  MessageWriter,
  stampOf,
  UNIT_WORDS,
} from '../../../workers/replication/wire/message.js';
import { seeded } from '../../../workers/transport/fault.js';
import { NOTE } from '../../support/ledger.js';
import { MEANING_HASH, Network, type TestMember } from './network.js';

const ENVELOPE: Envelope = {
  clusterId: 0xdeadbeef,
  meaningHash: [-1, 77],
  view: 4_000_000_000,
  sender: 0xfedc,
  incarnation: 2 ** 52 + 1,
};
const BYTES = 1440;

interface Entry {
  origin: number;
  incarnation: number;
  contiguous: number;
  datagram: number;
  stamp: number;
  ranges: { gap: number; length: number }[];
}
interface Unit {
  first: number;
  records: { op: number; payload: number[] }[];
  merged: number;
}

const number53 = fc.integer({ min: 1, max: 2 ** 52 });
const entries: fc.Arbitrary<Entry[]> = fc.array(
  fc.record({
    origin: fc.integer({ min: 1, max: 0xffff }),
    incarnation: number53,
    contiguous: number53,
    datagram: number53,
    stamp: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    ranges: fc.array(fc.record({ gap: fc.integer({ min: 1, max: 1000 }), length: fc.integer({ min: 1, max: 1000 }) }), {
      maxLength: 8,
    }),
  }),
  { maxLength: 4 },
);
const units: fc.Arbitrary<Unit[]> = fc.array(
  fc.record({
    first: number53,
    records: fc.array(
      fc.record({
        op: fc.integer({ min: 0, max: 255 }),
        payload: fc.array(fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }), { maxLength: 8 }),
      }),
      { minLength: 1, maxLength: 8 },
    ),
    merged: fc.integer({ min: 0, max: 2 ** 31 }),
  }),
  { maxLength: 3 },
);

function vectorOf(entry: Entry): VectorRecord {
  const vector = new VectorRecord();
  vector.incarnation = entry.incarnation;
  vector.contiguous = entry.contiguous;
  vector.datagram = entry.datagram;
  vector.stamp = entry.stamp;
  vector.arrivalMs = 1000;
  let next = entry.contiguous + 1;
  entry.ranges.forEach(({ gap, length }, i) => {
    vector.setRange(i, next + gap, next + gap + length - 1);
    next += gap + length;
  });
  vector.ranges = entry.ranges.length;
  return vector;
}

describe('state message', () => {
  const writer = new MessageWriter(ENVELOPE, BYTES);
  const reader = new MessageReader(ENVELOPE.clusterId, ENVELOPE.meaningHash, 9, BYTES);

  it('is read as it was written', () => {
    fc.assert(
      fc.property(entries, units, number53, (entryList, unitList, datagram) => {
        const memory = new Datagram(BYTES);
        writer.begin(memory, 8, datagram, 123_456.789);
        for (const entry of entryList) assert.ok(writer.addEntry(entry.origin, vectorOf(entry), 1002.5, 0));
        const written: { unit: Unit; words: Int32Array }[] = [];
        for (const unit of unitList) {
          const words = Int32Array.from(
            unit.records.flatMap(({ op, payload }) => [recordHeader(8, op, payload.length), ...payload]),
          );
          if (!writer.fits(words.length)) continue;
          writer.addUnit(unit.first, unit.records.length + unit.merged, words, 0, words.length);
          written.push({ unit, words });
        }
        const length = writer.finish(1, 2 ** 53 - 1);
        assert.ok(length <= BYTES);
        assert.equal(reader.read(memory.bytes.subarray(0, length)), null);
        assert.equal(reader.sender, ENVELOPE.sender);
        assert.equal(reader.object, 8);
        assert.equal(reader.view, ENVELOPE.view);
        assert.equal(reader.incarnation, ENVELOPE.incarnation);
        assert.equal(reader.datagram, datagram);
        assert.equal(reader.stamp, stampOf(123_456.789));
        assert.equal(reader.entries, entryList.length);
        entryList.forEach((entry, i) => {
          reader.entry(i);
          const vector = vectorOf(entry);
          assert.equal(reader.origin, entry.origin);
          assert.equal(reader.originIncarnation, entry.incarnation);
          assert.equal(reader.contiguous, entry.contiguous);
          assert.ok(reader.echoValid);
          assert.equal(reader.echoDatagram, entry.datagram);
          assert.equal(reader.echoStamp, entry.stamp);
          assert.equal(reader.echoDelayUs, 2500);
          assert.equal(reader.ranges, entry.ranges.length);
          entry.ranges.forEach((_, r) => {
            assert.equal(reader.rangeStart(r), vector.start(r));
            assert.equal(reader.rangeEnd(r), vector.end(r));
          });
        });
        assert.equal(reader.units, written.length);
        written.forEach(({ unit, words }, i) => {
          reader.unit(i);
          assert.equal(reader.first, unit.first);
          assert.equal(reader.count, unit.records.length + unit.merged);
          assert.deepEqual(reader.words.slice(reader.recordsAt, reader.recordsAt + reader.recordWords), words);
        });
      }),
      { seed: 1, numRuns: 500 },
    );
  });

  it('carries a vector whole, or not where that does not leave the room asked for', () => {
    const vector = new VectorRecord();
    vector.incarnation = 1;
    for (let i = 0; i < 64; i++) vector.setRange(i, 2 * i + 2, 2 * i + 2);
    vector.ranges = 64;
    const memory = new Datagram(BYTES);
    writer.begin(memory, 0, 1, 0);
    const room = (BYTES >> 2) - HEADER_WORDS - ENTRY_WORDS - 2 * 64;
    assert.equal(writer.addEntry(1, vector, 0, room + 1), false);
    assert.ok(writer.addEntry(1, vector, 0, room));
    assert.ok(writer.fits(room - UNIT_WORDS) && !writer.fits(room - UNIT_WORDS + 1));
    assert.equal(reader.read(memory.bytes.subarray(0, writer.finish(1, 0))), null);
    reader.entry(0);
    assert.equal(reader.ranges, 64);
    // Alone in the shortest message there may be, it has room.
    assert.ok(HEADER_WORDS + ENTRY_WORDS + 2 * 64 <= (1280 - 48 - 32) >> 2);
  });

  it('names why it refuses', () => {
    const memory = new Datagram(BYTES);
    const refuses = (why: string | null, change: (words: Int32Array) => void, mend = true): void => {
      writer.begin(memory, 3, 5, 0);
      writer.addUnit(10, 2, Int32Array.of(recordHeader(3, 1, 1), 7), 0, 2);
      const length = writer.finish(10, 11);
      change(memory.words);
      if (mend) {
        memory.words[2] = 0;
        memory.words[2] = crc32(memory.bytes.subarray(0, length));
      }
      assert.equal(reader.read(memory.bytes.subarray(0, length)), why);
    };
    const set = (at: number, value: number) => (words: Int32Array) => {
      words[at] = value;
    };
    refuses(null, () => {});
    refuses('magic', set(0, 0));
    refuses('version', set(1, 3));
    refuses('checksum', set(31, 0), false);
    refuses('cluster', set(3, 0));
    refuses('meaning', set(5, 0));
    refuses('object', set(6, 9 << 16));
    const at = { incarnation: 8, datagram: 10, floor: 13, highest: 15, first: 28, count: 30, words: 31, header: 32 };
    refuses('malformed', set(at.incarnation + 1, -1));
    refuses('malformed', set(at.datagram, 0));
    refuses('malformed', set(at.floor, 0));
    refuses('malformed', set(at.floor, 11));
    refuses('malformed', set(at.highest, 10));
    refuses('malformed', set(at.first, 9));
    refuses('malformed', set(at.count, 0));
    refuses('malformed', set(at.count, -1));
    refuses('malformed', set(at.words, 0));
    refuses('malformed', set(at.words, 1));
    refuses('malformed', set(at.words, 3));
    refuses('malformed', set(at.words, -1));
    refuses('malformed', set(at.header, recordHeader(4, 1, 1)));
    refuses('malformed', set(at.header, recordHeader(3, 1, 2)));
    assert.equal(reader.read(memory.bytes.subarray(0, 64)), 'length');
    assert.equal(reader.read(memory.bytes.subarray(0, 71)), 'length');
    assert.equal(reader.read(new Uint8Array(BYTES + 4)), 'length');
    assert.equal(reader.read(new Uint8Array(0)), 'length');
  });
});

describe('a receiver under hostile datagrams', () => {
  /** Messages of all kinds, as they were sent to member 0. */
  function recorded(seed: number): { network: Network; messages: Uint8Array[] } {
    const network = new Network({ seed, members: 3, loss: 0.2, multicast: true });
    const messages: Uint8Array[] = [];
    network.drop = (_from, to, bytes) => {
      if (to === 0) messages.push(bytes.slice());
      return false;
    };
    for (let i = 0; i < 100; i++) {
      network.append(i % 3, i % 2, NOTE, i);
      network.run(2);
    }
    network.runUntil(() => network.settled, 10_000);
    network.drop = null;
    return { network, messages };
  }

  const stateOf = ({ objects, board, unitLogs }: TestMember): string =>
    JSON.stringify([
      objects.map((object) => [[...object.notes], [...object.sums]]),
      Buffer.from(board.slice(0)).toString('base64'),
      Buffer.from(unitLogs.slice(0)).toString('base64'),
    ]);

  function mutate(message: Uint8Array, random: () => number): Uint8Array {
    const at = (n: number): number => Math.floor(random() * n);
    switch (at(4)) {
      case 0:
        message[at(message.length)] ^= 1 << at(8);
        return message;
      case 1:
        for (let i = at(8); i >= 0; i--) message[at(message.length)] = at(256);
        return message;
      case 2:
        return message.subarray(0, at(message.length));
      default: {
        const noise = new Uint8Array(at(1500));
        for (let i = 0; i < noise.length; i++) noise[i] = at(256);
        return noise;
      }
    }
  }

  it('changes nothing for 100,000 damaged or random ones', () => {
    const { network, messages } = recorded(1);
    const [member] = network.members;
    const random = seeded(2);
    const before = stateOf(member);
    for (let i = 0; i < 100_000; i++) {
      const original = messages[Math.floor(random() * messages.length)];
      const message = mutate(original.slice(), random);
      if (message.length === original.length && Buffer.compare(message, original) === 0) continue;
      assert.notEqual(member.receiver.receive(message, network.now, 0), null);
    }
    assert.equal(stateOf(member), before);
  });

  it('survives 100,000 forged ones whose checksum is right, and keeps to its bounds', () => {
    const { network, messages } = recorded(3);
    const [member] = network.members;
    const random = seeded(4);
    const sink = new Datagram(1500);
    let accepted = 0;
    for (let i = 0; i < 100_000; i++) {
      const original = messages[Math.floor(random() * messages.length)];
      const message = mutate(original.slice(), random);
      if (message.length >= 68) {
        const view = new DataView(message.buffer, message.byteOffset, message.length);
        // One forged life of a member would have all that follows refused at once, and that is not
        // looked for here.
        message.set(original.subarray(24, 40), 24);
        if (random() < 0.5) message.set(original.subarray(0, 24));
        view.setUint32(8, 0, true);
        view.setUint32(8, crc32(message), true);
      }
      if (member.receiver.receive(message, network.now, 0) === null) accepted++;
      member.sender.poll(network.now, { claim: () => sink, send: () => {} });
      network.now += 0.01;
    }
    assert.ok(accepted > 1000);
    assert.ok(member.receiver.bufferedBytes <= member.settings.reorderBytes * 4);
    assert.ok(member.counts.value('state_rejected_ack_unsent') > 0);
    assert.ok(member.counts.value('state_rejected_malformed') > 1000);
  });

  /**
   * A message about object 1 (in order) from member 1 to member 0, as its sender would have made
   * it.
   */
  function forge(
    datagram: number,
    floor: number,
    units: readonly (readonly [first: number, id: number])[],
    vector: VectorRecord | null = null,
  ): Uint8Array {
    const memory = new Datagram(1440);
    const envelope = { clusterId: 0xc0ffee, meaningHash: MEANING_HASH, view: 0, sender: 2, incarnation: 2 ** 40 + 2 };
    const writer = new MessageWriter(envelope, 1440);
    writer.begin(memory, 1, datagram, 0);
    if (vector !== null) writer.addEntry(1, vector, 0, 0);
    for (const [first, id] of units) writer.addUnit(first, 1, Int32Array.of(recordHeader(1, NOTE, 1), id), 0, 2);
    return memory.bytes.slice(0, writer.finish(floor, 1000));
  }

  it('passes over what its origin cannot send any more, and goes on behind it', () => {
    const [member] = new Network({ seed: 6, members: 2 }).members;
    const receive = (message: Uint8Array) => member.receiver.receive(message, 1000, 0);
    assert.equal(receive(forge(1, 1, [[5, 55]])), null);
    assert.equal(receive(forge(2, 1, [[8, 88]])), null);
    assert.equal(member.objects[1].notes.get(1), undefined);
    assert.equal(receive(forge(3, 5, [])), null);
    assert.deepEqual(member.objects[1].notes.get(1), [55]);
    assert.equal(member.counts.value('state_rx_records_skipped'), 4);
    assert.equal(receive(forge(4, 7, [[7, 77]])), null);
    assert.deepEqual(member.objects[1].notes.get(1), [55, 77, 88]);
    assert.equal(member.counts.value('state_rx_records_skipped'), 5);
    assert.equal(member.receiver.bufferedBytes, 0);
  });

  it('believes the latest acknowledgement, not the one that came last', () => {
    const network = new Network({ seed: 7, members: 2 });
    const [member] = network.members;
    network.members[1].up = false;
    for (let i = 0; i < 9; i++) network.append(0, 1, NOTE, i);
    network.run(10);
    const vector = new VectorRecord();
    vector.incarnation = 2 ** 40 + 1;
    vector.contiguous = 3;
    vector.setRange(0, 6, 7);
    vector.ranges = 1;
    assert.equal(member.receiver.receive(forge(9, 1, [], vector), network.now, 0), null);
    vector.contiguous = 2;
    vector.ranges = 0;
    assert.equal(member.receiver.receive(forge(8, 1, [], vector), network.now, 0), null);
    const read = new VectorRecord();
    new AckBoard(member.board).readVector(1, 1, 0, read);
    assert.deepEqual([read.contiguous, read.ranges, read.start(0), read.end(0)], [3, 1, 6, 7]);
    assert.equal(member.counts.value('state_rx_acks_stale'), 1);
    const reception = new VectorRecord();
    new AckBoard(member.board).readReception(1, 1, reception);
    assert.equal(reception.datagram, 9, 'and it is the latest that is echoed');
    vector.incarnation = 2 ** 40;
    vector.contiguous = 9;
    assert.equal(member.receiver.receive(forge(10, 1, [], vector), network.now, 0), null);
    assert.equal(member.counts.value('state_rx_acks_stale'), 2, 'of an earlier life of ours');
  });

  it('takes one round trip from each of its datagrams, however often it is echoed', () => {
    const network = new Network({ seed: 9, members: 2 });
    const [member] = network.members;
    network.members[1].up = false;
    network.run(10);
    const vector = new VectorRecord();
    vector.incarnation = 2 ** 40 + 1;
    vector.datagram = 1;
    vector.stamp = (network.now - 5) * 1000;
    const peer = new PeerRecord();
    for (let datagram = 1; datagram <= 3; datagram++) {
      network.now += 10;
      assert.equal(member.receiver.receive(forge(datagram, 1, [], vector), network.now, 0), null);
      new AckBoard(member.board).readPeer(1, peer);
      assert.deepEqual([peer.samples, peer.latest], [1, 15]);
    }
  });

  it('lets no defect of an object stop it', () => {
    const [member] = new Network({ seed: 8, members: 2 }).members;
    const { apply } = member.objects[1];
    member.objects[1].apply = () => {
      throw new Error('defect');
    };
    assert.equal(member.receiver.receive(forge(1, 1, [[1, 11]]), 1000, 0), null);
    member.objects[1].apply = apply;
    assert.equal(member.receiver.receive(forge(2, 1, [[2, 22]]), 1000, 0), null);
    assert.deepEqual(member.objects[1].notes.get(1), [22]);
    assert.equal(member.counts.value('state_rx_records_failed'), 1);
  });

  it('rejects what acknowledges the never sent, and does not believe the rest of it', () => {
    const { network } = recorded(5);
    const [member, liar] = network.members;
    const memory = new Datagram(1440);
    const lie = (contiguous: number, range: number, echo: number): Uint8Array => {
      const writer = new MessageWriter(
        {
          clusterId: liar.settings.clusterId,
          meaningHash: MEANING_HASH,
          view: 0,
          sender: 2,
          incarnation: 2 ** 40 + 2,
        },
        1440,
      );
      writer.begin(memory, 0, 1_000_000, network.now);
      const vector = new VectorRecord();
      vector.incarnation = 2 ** 40 + 1;
      vector.contiguous = contiguous;
      vector.datagram = echo;
      if (range > 0) {
        vector.setRange(0, range, range);
        vector.ranges = 1;
      }
      writer.addEntry(1, vector, network.now, 0);
      writer.addUnit(1_000, 1, Int32Array.of(recordHeader(0, NOTE, 1), 666), 0, 2);
      return memory.bytes.slice(0, writer.finish(1, 1_000));
    };
    const before = stateOf(member);
    assert.equal(member.receiver.receive(lie(10_000, 0, 0), network.now, 0), 'ack_unsent');
    assert.equal(member.receiver.receive(lie(1, 10_000, 0), network.now, 0), 'ack_unsent');
    assert.equal(member.receiver.receive(lie(1, 0, 10_000_000), network.now, 0), 'ack_unsent');
    assert.equal(stateOf(member), before);
    assert.equal(member.receiver.receive(lie(1, 0, 1), network.now, 0), null);
  });
});
