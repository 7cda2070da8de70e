import { strict as assert } from 'node:assert';
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { MetricCatalogue } from '../../../shm/metrics.js';
import { PCAP_FRAME_BYTES_MAX, PCAP_METRICS, PcapDriver, type PcapPort } from '../../../workers/drivers/pcap.js';
import { PcapReader, PcapWriter } from '../../../workers/drivers/pcap-file.js';
import { Batch } from '../../../workers/packet/batch.js';

interface Packet {
  seconds: number;
  nanoseconds: number;
  bytes: number[];
}

interface Format {
  big?: boolean;
  nano?: boolean;
  link?: number;
  version?: number;
  /** Bytes of the frame by which the capture is short. */
  cut?: number;
}

/** A capture file as bytes, written independently of the code under test. */
function capture(
  packets: Packet[],
  { big = false, nano = false, link = 1, version = 2, cut = 0 }: Format = {},
): Buffer {
  const u32 = (n: number) => {
    const bytes = Buffer.alloc(4);
    if (big) bytes.writeUInt32BE(n);
    else bytes.writeUInt32LE(n);
    return bytes;
  };
  const u16 = (n: number) => (big ? Buffer.from([n >> 8, n & 255]) : Buffer.from([n & 255, n >> 8]));
  const parts = [u32(nano ? 0xa1b23c4d : 0xa1b2c3d4), u16(version), u16(4), u32(0), u32(0), u32(65_535), u32(link)];
  for (const { seconds, nanoseconds, bytes } of packets)
    parts.push(
      u32(seconds),
      u32(nano ? nanoseconds : Math.trunc(nanoseconds / 1000)),
      u32(bytes.length),
      u32(bytes.length + cut),
      Buffer.from(bytes),
    );
  return Buffer.concat(parts);
}

function packet(seconds: number, first: number, length = 60, nanoseconds = 1000): Packet {
  return { seconds, nanoseconds, bytes: [first, ...new Array(length - 1).fill(7)] };
}

describe('drivers/pcap', () => {
  let folder = '';
  let files = 0;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'pcap-test-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  function file(content: Uint8Array): string {
    const path = join(folder, `${files++}.pcap`);
    writeFileSync(path, content);
    return path;
  }

  function readAll(path: string): Packet[] {
    const reader = new PcapReader(path);
    const packets: Packet[] = [];
    while (reader.next())
      packets.push({
        seconds: reader.seconds,
        nanoseconds: reader.nanoseconds,
        bytes: [...reader.buffer.subarray(reader.at, reader.at + reader.bytes)],
      });
    reader.close();
    return packets;
  }

  describe('files', () => {
    const packets = [packet(1, 1), packet(0xffff_ffff, 2, 1514, 999_999_000), packet(3, 3, 1)];

    for (const big of [false, true])
      for (const nano of [false, true])
        it(`are read in ${big ? 'big' : 'little'}-endian order with ${nano ? 'nano' : 'micro'}seconds`, () => {
          assert.deepEqual(readAll(file(capture(packets, { big, nano }))), packets);
        });

    it('are written as they are read', () => {
      const written = fc
        .tuple(fc.nat(0xffff_ffff), fc.nat(999_999_999), fc.array(fc.nat(255), { maxLength: 300 }))
        .map(([seconds, nanoseconds, bytes]): Packet => ({ seconds, nanoseconds, bytes }));
      fc.assert(
        fc.property(fc.array(written, { maxLength: 30 }), (list) => {
          const path = join(folder, 'out.pcap');
          const writer = new PcapWriter(path, true);
          for (const { bytes, seconds, nanoseconds } of list)
            writer.write(Uint8Array.of(9, ...bytes), 1, bytes.length, seconds, nanoseconds);
          writer.close();
          assert.deepEqual(readAll(path), list);
          assert.ok(
            readFileSync(path)
              .subarray(24)
              .equals(capture(list, { nano: true }).subarray(24)),
          );
        }),
        { numRuns: 30 },
      );
    });

    it('are read with bounded memory, however long', () => {
      const many = Array.from({ length: 20_000 }, (_, i) => packet(i, i & 255, 60 + (i % 90)));
      assert.deepEqual(readAll(file(capture(many))), many);
    });

    it('lose the frame check sequence that their header tells of', () => {
      const link = (1 | 0x0400_0000 | (2 << 28)) >>> 0;
      const [whole] = readAll(file(capture([packet(1, 1, 64)], { link })));
      assert.equal(whole.bytes.length, 60);
      const [cut] = readAll(file(capture([packet(1, 1, 64)], { link, cut: 100 })));
      assert.equal(cut.bytes.length, 64);
    });

    for (const [what, content, why] of [
      ['an empty file', Buffer.alloc(0), /at byte 0: the file ends within its header/],
      ['half a header', capture([]).subarray(0, 20), /at byte 20: the file ends within its header/],
      ['another file', Buffer.from('#!/bin/sh\necho hello, world\n'), /at byte 0: the magic number 23212f62 is not/],
      ['pcapng', Buffer.from(`0a0d0d0a${'00'.repeat(24)}`, 'hex'), /at byte 0: a pcapng file.*editcap/],
      ['another version', capture([], { version: 3 }), /at byte 4: format version 3\.4; 2\.4 is read/],
      ['another link type', capture([], { link: 113 }), /at byte 20: link type 113; only Ethernet/],
    ] as const) {
      it(`refuse ${what}, saying where and why`, () => {
        const path = file(content);
        assert.throws(
          () => new PcapReader(path),
          (error: Error) => error.message.startsWith(`${path}: `) && why.test(error.message),
        );
      });
    }

    it('that are folders or are not there are errors too', () => {
      assert.throws(() => new PcapReader(folder), /not a regular file/);
      assert.throws(() => new PcapReader(join(folder, 'none')), /ENOENT.*none/);
    });

    for (const [what, at, value, why] of [
      ['length', 8, 0x7fff_ffff, /at byte 108: a record of 2147483647 bytes/],
      ['lengths', 8, 61, /at byte 108: 61 bytes captured of a frame of 60/],
      ['time', 4, 1_000_000, /at byte 104: 1000000 parts of a second/],
    ] as const) {
      it(`with a damaged ${what} in a record say where, and end there`, () => {
        const content = capture([packet(1, 1), packet(2, 2), packet(3, 3)]);
        content.writeUInt32LE(value, 24 + 76 + at);
        const reader = new PcapReader(file(content));
        assert.ok(reader.next());
        assert.throws(() => reader.next(), why);
        assert.ok(!reader.next());
        reader.close();
      });
    }
  });

  class Rig {
    readonly driver: PcapDriver;
    readonly batch: Batch;
    readonly problems: string[] = [];
    readonly row = new Float64Array(PCAP_METRICS.length);
    private readonly catalogue = new MetricCatalogue(PCAP_METRICS);
    now = 0;

    constructor(ports: PcapPort[], pace: 'asap' | 'recorded' = 'asap') {
      const report = (problem: string) => this.problems.push(problem);
      const clock = () => this.now;
      this.driver = new PcapDriver({ ports, pace, catalogue: this.catalogue, row: this.row, report, clock });
      this.batch = new Batch(this.driver.memory, this.row);
    }

    /** One batch, sent to the other of two ports, or nowhere: `port:first byte` of each. */
    round(egress = (port: number) => 1 - port): string[] {
      const { batch, driver } = this;
      driver.receive(batch);
      const seen: string[] = [];
      for (let i = 0; i < batch.count; i++) {
        assert.equal(batch.start[i] % 4, 2);
        seen.push(`${batch.port[i]}:${driver.memory.u8[batch.start[i]]}`);
        batch.egress[i] = egress(batch.port[i]);
      }
      driver.transmit(batch);
      return seen;
    }

    count(name: string): number {
      return this.row[this.catalogue.column(name)];
    }
  }

  describe('driver', () => {
    it('merges the files of all ports by time', () => {
      const rig = new Rig([
        { in: file(capture([packet(1, 1), packet(3, 3), packet(5, 5)])) },
        { in: file(capture([packet(2, 2), packet(3, 33), packet(4, 4)], { big: true, nano: true })) },
        {},
      ]);
      assert.deepEqual(rig.round(), ['0:1', '1:2', '0:3', '1:33', '1:4', '0:5']);
      assert.ok(rig.driver.exhausted);
      assert.deepEqual(rig.round(), []);
      rig.driver.close();
    });

    it('writes with the time stamps it read, and whole at exhaustion', () => {
      const packets = Array.from({ length: 200 }, (_, i) => packet(i, i));
      const out = join(folder, 'out.pcap');
      const rig = new Rig([{ in: file(capture(packets)) }, { out }]);
      while (rig.round().length > 0);
      assert.deepEqual(readAll(out), packets, 'while the driver is still open');
      rig.driver.close();
      assert.deepEqual(readAll(out), packets);
    });

    it('writes a frame that was held back with the time stamp of the last that was read', () => {
      const out = join(folder, 'out.pcap');
      const rig = new Rig([{ in: file(capture([packet(1, 1), packet(2, 2)])) }, { out }]);
      rig.round(() => -1);
      const { bytes } = packet(0, 9);
      assert.ok(rig.driver.send(1, Uint8Array.from([0, 0, ...bytes, 0]), 2, bytes.length));
      rig.round();
      assert.deepEqual(readAll(out), [packet(2, 9)]);
      rig.driver.close();
    });

    it('writes nothing of what is dropped, and keeps nanoseconds only where it read some', () => {
      const out = join(folder, 'out.pcap');
      const rig = new Rig([{ in: file(capture([packet(1, 1, 60, 123_456)])) }, { out }]);
      rig.round(() => -1);
      rig.driver.close();
      assert.equal(readFileSync(out).length, 24);
      assert.equal(readFileSync(out).readUInt32LE(0), 0xa1b2c3d4);
    });

    it('passes over frames longer than a packet buffer, and counts them', () => {
      const path = file(capture([packet(1, 1), packet(2, 2, PCAP_FRAME_BYTES_MAX + 1), packet(3, 3)]));
      const rig = new Rig([{ in: path }, {}]);
      assert.deepEqual(rig.round(), ['0:1', '0:3']);
      assert.equal(rig.count('pcap_oversized'), 1);
      rig.driver.close();
    });

    it('counts a file that ends within a record, wherever it is cut', () => {
      const content = capture([packet(1, 1), packet(2, 2)]);
      for (let cut = 101; cut < content.length; cut++) {
        const rig = new Rig([{ in: file(content.subarray(0, cut)) }, {}]);
        assert.deepEqual(rig.round(), ['0:1']);
        assert.equal(rig.count('pcap_truncated'), 1);
        assert.match(rig.problems[0], /ends within its last record/);
        rig.driver.close();
      }
    });

    it('goes on with the other files when one is damaged', () => {
      const damaged = capture([packet(1, 1), packet(2, 2)]);
      damaged.writeUInt32LE(0xffff_ffff, 24 + 76 + 8);
      const rig = new Rig([{ in: file(damaged) }, { in: file(capture([packet(5, 5)])) }]);
      assert.deepEqual(rig.round(), ['0:1', '1:5']);
      assert.equal(rig.count('pcap_damaged'), 1);
      assert.match(rig.problems[0], /\.pcap: at byte 108: a record of 4294967295 bytes; the file is read no further/);
      rig.driver.close();
    });

    it('never fails on files damaged anyhow', () => {
      const whole = capture(Array.from({ length: 5 }, (_, i) => packet(i, i)));
      fc.assert(
        fc.property(fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255))), (edits) => {
          const content = Buffer.from(whole);
          for (const [at, value] of edits) content[at] = value;
          let rig: Rig;
          try {
            rig = new Rig([{ in: file(content) }, {}]);
          } catch (error) {
            assert.match((error as Error).message, /^\/.*\.pcap: at byte \d+: /);
            return;
          }
          while (rig.round().length > 0);
          assert.ok(rig.driver.exhausted);
          rig.driver.close();
        }),
      );
    });

    it('keeps the recorded pace', () => {
      const path = file(capture([packet(10, 1), packet(10, 2, 60, 500_000_000), packet(20, 3)]));
      const rig = new Rig([{ in: path }, {}], 'recorded');
      rig.now = 777;
      assert.deepEqual(rig.round(), ['0:1']);
      rig.now += 499;
      assert.deepEqual(rig.round(), []);
      rig.now += 1.5;
      assert.deepEqual(rig.round(), ['0:2']);
      assert.ok(!rig.driver.exhausted);
      rig.now += 60_000;
      assert.deepEqual(rig.round(), ['0:3']);
      rig.driver.close();
    });

    it('will not write a file that it reads, or write one twice', () => {
      const path = file(capture([packet(1, 1)]));
      const link = join(folder, 'link.pcap');
      symlinkSync(path, link);
      assert.throws(() => new Rig([{ in: path }, { out: link }]), /link\.pcap: would be written, but is read already/);
      assert.equal(readAll(path).length, 1, 'nothing was destroyed');
      const out = join(folder, 'out.pcap');
      assert.throws(() => new Rig([{ out }, { out }]), /out\.pcap: would be written, but is written already/);
    });

    it('says at once when a file cannot be written, and later counts what it could not write', () => {
      assert.throws(() => new Rig([{}, { out: '/dev/full' }]), /\/dev\/full: at byte 0: ENOSPC/);
      assert.throws(() => new Rig([{}, { out: join(folder, 'no', 'where') }]), /ENOENT.*where/);
    });
  });
});
