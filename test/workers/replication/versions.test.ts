import { strict as assert } from 'node:assert';
import { crc32 } from 'node:zlib';
import { AckBoard, PeerFlag, PeerRecord, VectorRecord } from '../../../shm/ack-board.js';
import { recordHeader } from '../../../shm/log.js';
import {
  Datagram,
  FORMAT_VERSION,
  FROZEN,
  MessageReader,
  MessageWriter,
  RETAINS,
} from '../../../workers/replication/wire/message.js';
import { seeded } from '../../../workers/transport/fault.js';
import { NOTE } from '../../support/ledger.js';
import { MEANING_HASH, Network, type TestMember } from './network.js';

/**
 * Messages of member 2 as the last release that spoke version 1 alone wrote them. Never to be
 * recorded again.
 */
const RECORDED = {
  keepalive:
    '434e5354010000002e4f1de0eeffc00067452301dfbc9af80200000000000000020000000001000001000000000000008813000001000000000000000000000000000000',
  units:
    '434e5354010002028a1c4bfceeffc00067452301dfbc9af8020001000000000002000000000100000700000000000000044c0f00010000' +
    '000000000004000000000000000100000101000000000100000000000000000000030000000000000040e20100c4090000030002014d00' +
    '0000000000000500000002000000000000000001000040e20100c409000003000000020000000f00000001000000010000000000000001' +
    '00000002000000010101000b0000000200000000000000030000000500000002020100050000001e000000010101000c000000',
  floor:
    '434e5354010000014ad61118eeffc00067452301dfbc9af8020001000000000002000000000100000800000000000000e0c8100006000000000000000700000000000000070000000000000001000000020000000101010011000000',
} as const;

const INCARNATION = 2 ** 40 + 2;
const bytesOf = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex, 'hex'));
const reader = new MessageReader(0xc0ffee, MEANING_HASH, 2, 1440);

function newWriter(): MessageWriter {
  return new MessageWriter(
    { clusterId: 0xc0ffee, meaningHash: MEANING_HASH, view: 0, sender: 2, incarnation: INCARNATION },
    1440,
  );
}

const VERSION_AT = 4;
const CHECKSUM_AT = 8;
const HEADER_BYTES_1 = 68;
const ENTRY_BYTES = 36;

/**
 * What a release that speaks version 1 alone asks of a message before it believes it, by the words
 * of its specification.
 */
function isVersion1(bytes: Uint8Array): boolean {
  const copy = bytes.slice();
  const words = new Int32Array(copy.buffer, 0, copy.length >> 2);
  const checksum = words[2];
  words[2] = 0;
  if ((words[1] & 0xffff) !== 1 || (crc32(copy) | 0) !== checksum) return false;
  let at = 17;
  for (let i = 0; i < ((words[1] >>> 16) & 0xff); i++) {
    const ranges = (words[at] >>> 16) & 0xff;
    for (const high of [at + 2, at + 4, at + 6]) if (words[high] >>> 0 > 0x1fffff) return false;
    if (words[at] >>> 24 > 1 || ranges > 64 || (words[at + 1] === 0 && words[at + 2] === 0)) return false;
    at += 9 + 2 * ranges;
  }
  for (let i = 0; i < words[1] >>> 24; i++) at += 4 + words[at + 3];
  return at === words.length;
}

/**
 * The message without its announcement, as a member that speaks version 1 alone would have sent it.
 */
function unannounced(bytes: Uint8Array): Uint8Array {
  const old = new Uint8Array(bytes.length - ENTRY_BYTES);
  old.set(bytes.subarray(0, HEADER_BYTES_1));
  old.set(bytes.subarray(HEADER_BYTES_1 + ENTRY_BYTES), HEADER_BYTES_1);
  const view = new DataView(old.buffer);
  old[VERSION_AT + 2]--;
  view.setUint32(CHECKSUM_AT, 0, true);
  view.setUint32(CHECKSUM_AT, crc32(old), true);
  return old;
}

/**
 * Lets the member be of a release that speaks version 1 alone: it writes nothing else, and refuses
 * the rest.
 */
function makeOld(network: Network, member: TestMember): void {
  const { writer } = member.sender as unknown as { writer: MessageWriter };
  Object.defineProperty(writer, 'version', { get: () => 1, set: () => {} });
  const { receiver } = member;
  const receive = receiver.receive.bind(receiver);
  receiver.receive = (bytes, now, coarse) => {
    if (bytes[VERSION_AT] !== 1) return 'version';
    assert.ok(isVersion1(bytes));
    return receive(bytes, now, coarse);
  };
  network.rewrite = (from, bytes) => (from === member.index ? unannounced(bytes) : bytes);
}

const ids = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
const notes = (member: TestMember, object: number, origin: number): number[] => {
  const list = member.objects[object].notes.get(origin) ?? [];
  return member.objects[object].delivery === 'in-order' ? list : list.toSorted((a, b) => a - b);
};

describe('recorded messages of version 1', () => {
  it('are read as they were meant', () => {
    assert.equal(reader.read(bytesOf(RECORDED.keepalive)), null);
    assert.deepEqual(
      [reader.version, reader.speaks, reader.flags, reader.wallMs, reader.sender, reader.object, reader.datagram],
      [1, 1, 0, 0, 2, 0, 1],
    );
    assert.deepEqual(
      [reader.incarnation, reader.unitsOrigin, reader.unitsIncarnation, reader.floor, reader.highest],
      [INCARNATION, 2, INCARNATION, 1, 0],
    );
    for (let slot = 0; slot < 64; slot++) assert.ok(!reader.excludes(slot));

    assert.equal(reader.read(bytesOf(RECORDED.units)), null);
    assert.deepEqual([reader.entries, reader.units, reader.stamp, reader.highest], [2, 2, 1_002_500, 4]);
    reader.entry(0);
    assert.deepEqual(
      [reader.origin, reader.originIncarnation, reader.contiguous, reader.echoValid, reader.echoDatagram],
      [1, 2 ** 40 + 1, 0, true, 3],
    );
    assert.deepEqual([reader.echoStamp, reader.echoDelayUs, reader.ranges, reader.entryFlags], [123_456, 2500, 0, 0]);
    reader.entry(1);
    assert.deepEqual(
      [reader.origin, reader.contiguous, reader.rangeStart(0), reader.rangeEnd(0), reader.rangeStart(1)],
      [3, 2 ** 33 + 5, 2 ** 33 + 8, 2 ** 33 + 9, 2 ** 33 + 20],
    );
    reader.unit(1);
    assert.deepEqual([reader.first, reader.count, reader.recordWords], [2, 3, 5]);
    assert.deepEqual(
      [...reader.words.slice(reader.recordsAt, reader.recordsAt + 5)],
      [recordHeader(1, 2, 2), 5, 30, recordHeader(1, 1, 1), 12],
    );
    assert.equal(reader.read(bytesOf(RECORDED.floor)), null);
    assert.deepEqual([reader.floor, reader.highest], [6, 7]);
  });

  it('are what a member takes units from', () => {
    const network = new Network({ seed: 1, members: 3 });
    const [member, other] = network.members;
    other.up = false;
    network.run(1000);
    assert.equal(member.receiver.receive(bytesOf(RECORDED.units), network.now, 0), null);
    assert.deepEqual([...(member.objects[1].notes.get(1) ?? [])], [11, 12]);
    assert.equal(member.receiver.receive(bytesOf(RECORDED.floor), network.now, 0), null);
    assert.equal(member.counts.value('state_rx_records_skipped'), 1);
    assert.ok(member.receiver.bufferedBytes > 0, 'unit 7 waits for number 6');
    const peer = new PeerRecord();
    new AckBoard(member.board).readPeer(1, peer);
    assert.equal(peer.speaks, 1);
  });

  it('are still what we write, but for the announcement', () => {
    const writer = newWriter();
    writer.version = 1;
    const datagram = new Datagram(1440);
    writer.begin(datagram, 1, 8, 1100);
    writer.addUnit(7, 1, Int32Array.of(recordHeader(1, 1, 1), 17), 0, 2);
    const bytes = datagram.bytes.slice(0, writer.finish(6, 7));
    assert.ok(isVersion1(bytes));
    assert.equal(Buffer.from(unannounced(bytes)).toString('hex'), RECORDED.floor);
  });
});

describe('a message of either version', () => {
  it('says whom it is not for, how the sender is and what its clock shows', () => {
    for (const version of [1, 2]) {
      const writer = newWriter();
      writer.version = version;
      writer.flags = PeerFlag.JOINING;
      writer.wallMs = 1_800_000_000_123;
      const datagram = new Datagram(1440);
      writer.begin(datagram, 1, 8, 1100);
      writer.exclude(0b101, 1 << 31);
      writer.markFolded();
      assert.equal(reader.read(datagram.bytes.subarray(0, writer.finish(1, 0))), null);
      assert.deepEqual(
        [reader.version, reader.speaks, reader.flags, reader.wallMs],
        [version, FORMAT_VERSION, PeerFlag.JOINING, 1_800_000_000_123],
      );
      assert.ok(reader.folded);
      assert.deepEqual(
        Array.from({ length: 64 }, (_, slot) => slot).filter((slot) => reader.excludes(slot)),
        [0, 2, 63],
      );
      writer.begin(datagram, 1, 9, 1100);
      assert.equal(reader.read(datagram.bytes.subarray(0, writer.finish(1, 0))), null);
      assert.ok(!reader.excludes(0) && !reader.folded, 'asked for anew for each message');
    }
  });

  it('speaks for another, holds, freezes and compares, in version 2', () => {
    const writer = newWriter();
    writer.flags = PeerFlag.LEAVING;
    const datagram = new Datagram(1440);
    const vector = new VectorRecord();
    vector.incarnation = 5;
    vector.datagram = 1;
    writer.begin(datagram, 0, 1, 0);
    writer.speakFor(3, 77);
    writer.addDigest(Int32Array.of(1, -2), Int32Array.of(3, -4));
    assert.ok(writer.addEntry(1, vector, 0, 0, RETAINS | FROZEN));
    const length = writer.finish(5, 9);
    assert.equal(reader.read(datagram.bytes.subarray(0, length)), null);
    assert.deepEqual([reader.unitsOrigin, reader.unitsIncarnation, reader.flags], [3, 77, PeerFlag.LEAVING]);
    assert.deepEqual([...reader.vectorHash, ...reader.digest], [1, -2, 3, -4]);
    reader.entry(0);
    assert.deepEqual([reader.echoValid, reader.entryFlags], [true, RETAINS | FROZEN]);
    const malformed = (at: number, value: number): void => {
      const copy = new Datagram(1440);
      copy.words.set(datagram.words);
      copy.words[at] = value;
      copy.words[2] = 0;
      copy.words[2] = crc32(copy.bytes.subarray(0, length));
      assert.equal(reader.read(copy.bytes.subarray(0, length)), 'malformed');
    };
    malformed(1, datagram.words[1] | (8 << 8)); // a flag that is not known
    malformed(18, -1);
    malformed(21, 0);
    malformed(21, 3 | (1 << 16));
    malformed(23, -1);
    malformed(28, datagram.words[28] | (8 << 24));
    const short = datagram.bytes.slice(0, 27 * 4);
    new DataView(short.buffer).setUint32(CHECKSUM_AT, 0, true);
    new DataView(short.buffer).setUint32(CHECKSUM_AT, crc32(short), true);
    assert.equal(reader.read(short), 'malformed', 'shorter than its header');
  });
});

describe('members of two releases', () => {
  it('do not wait for what the earlier one cannot say, when one of them starts again', () => {
    const network = new Network({ seed: 4, members: 4 });
    makeOld(network, network.members[3]);
    for (const member of ids(4)) network.append(member, 0, NOTE, member);
    assert.ok(network.runUntil(() => network.settled, 5000));
    network.restart(1);
    network.append(1, 0, NOTE, 9);
    assert.ok(
      network.runUntil(() => ids(4).every((at) => at === 1 || notes(network.members[at], 0, 1).includes(9)), 1000),
    );
    assert.ok(network.runUntil(() => network.settled, 5000));
  });

  it('understand each other, and speak the later format again once the earlier one is gone', () => {
    for (let seed = 1; seed <= 3; seed++) {
      const network = new Network({ seed, members: 3, loss: 0.1, duplicate: 0.1, multicast: seed === 2 });
      makeOld(network, network.members[2]);
      const random = seeded(seed);
      for (const id of ids(100)) {
        for (const object of [0, 1]) for (const member of ids(3)) network.append(member, object, NOTE, id);
        network.run(random() * 10);
      }
      assert.ok(network.runUntil(() => network.settled, 30_000));
      for (const member of network.members)
        for (const object of [0, 1])
          for (const origin of ids(3))
            if (origin !== member.index) assert.deepEqual(notes(member, object, origin), ids(100));
      const speaks = (from: number): number[] => {
        const versions = new Set<number>();
        network.drop = (sender, _to, bytes) => {
          if (sender === from) versions.add(bytes[VERSION_AT]);
          return false;
        };
        network.run(500);
        network.drop = null;
        return [...versions];
      };
      assert.deepEqual(speaks(0), [1]);
      // It starts again as the later release.
      network.rewrite = null;
      network.restart(2);
      network.run(2000);
      assert.deepEqual([speaks(0), speaks(2)], [[2], [2]]);
      network.append(2, 1, NOTE, 7);
      assert.ok(network.runUntil(() => notes(network.members[0], 1, 2).at(-1) === 7, 5000));
    }
  });

  it('are both served when they are away: the earlier goes on at the floor, the later gets all it missed', () => {
    for (const multicast of [false, true]) {
      const network = new Network({ seed: 4, members: 4, multicast, settings: { unitLogBytes: 64 << 10 } });
      const [here, heard, late, early] = network.members;
      makeOld(network, early);
      network.run(500);
      late.up = false;
      network.run(1500);
      let next = 0;
      const make = (count: number): void => {
        for (const end = next + count; next < end; next++)
          assert.ok(network.runUntil(() => network.append(0, 1, NOTE, next), 10_000));
      };
      make(6000);
      early.up = false;
      network.run(1500);
      make(6000);
      // Both come back, and the earlier one has everybody write its version while the other is paid
      // its debt.
      early.up = true;
      late.up = true;
      network.run(500);
      make(100);
      assert.ok(network.runUntil(() => network.settled, 60_000));
      assert.deepEqual(notes(heard, 1, 0), ids(next));
      assert.deepEqual(notes(late, 1, 0), ids(next));
      const got = notes(early, 1, 0);
      assert.equal(new Set(got).size, got.length);
      assert.deepEqual(got.slice(-100), ids(next).slice(-100));
      assert.equal(got.length + early.counts.value('state_rx_records_skipped'), next);
      assert.equal(here.counts.value('state_tx_backlogs_lost'), 1);
      assert.equal(early.counts.value('state_rx_units_overlap'), 0);
    }
  });
});
