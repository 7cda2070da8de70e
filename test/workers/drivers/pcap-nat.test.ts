import { strict as assert } from 'node:assert';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PCAP_METRICS, PcapDriver } from '../../../workers/drivers/pcap.js';
import { PcapReader, PcapWriter } from '../../../workers/drivers/pcap-file.js';
import { describeFrame, frame } from '../support/frames.js';
import { NatSite } from '../support/nat-site.js';

/** A line is a second, a port and a packet. */
const REQUESTS = `
  1 udp 10.0.0.5:3000 > 8.8.8.8:53 len 20
  3 udp 10.0.0.5:3000 > 9.9.9.9:53 len 21
  5 udp 10.0.0.6:3000 > 8.8.8.8:53 len 22
`;
const REPLIES = `
  0 udp 8.8.8.8:53 > 203.0.113.1:3000 len 30
  2 udp 8.8.8.8:53 > 203.0.113.1:3000 len 31
  4 udp 9.9.9.9:53 > 203.0.113.1:3000 len 32
`;

describe('NAT over capture files', () => {
  let folder = '';
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'pcap-nat-test-'));
  });
  after(() => rmSync(folder, { recursive: true }));

  function write(name: string, lines: string): string {
    const path = join(folder, name);
    const writer = new PcapWriter(path, false);
    for (const line of lines.trim().split('\n')) {
      const [, second, packet] = /^(\d+) (.*)$/.exec(line.trim()) ?? [];
      const bytes = frame(packet);
      writer.write(bytes, 0, bytes.length, Number(second), 0);
    }
    writer.close();
    return path;
  }

  function read(path: string): string[] {
    const reader = new PcapReader(path);
    const lines: string[] = [];
    while (reader.next())
      lines.push(`${reader.seconds} ${describeFrame(reader.buffer.subarray(reader.at, reader.at + reader.bytes))}`);
    reader.close();
    return lines;
  }

  /** Runs both files through a NAT with one external port; returns the paths of what came out. */
  function translate(run: string): { inside: string; outside: string; site: NatSite } {
    const inside = join(folder, `inside-${run}.pcap`);
    const outside = join(folder, `outside-${run}.pcap`);
    const site = new NatSite({
      options: { first_port: 3000, last_port: 3000 },
      plane: {
        metrics: PCAP_METRICS,
        openDriver: (catalogue, row) =>
          new PcapDriver({
            ports: [
              { in: write('requests.pcap', REQUESTS), out: inside },
              { in: write('replies.pcap', REPLIES), out: outside },
            ],
            pace: 'asap',
            catalogue,
            row,
            report: assert.fail,
          }),
      },
    });
    while (site.plane.dataPlane.doWork() > 0);
    site.plane.dataPlane.onClose();
    return { inside, outside, site };
  }

  it('translates a recorded conversation, in the order of its time stamps', () => {
    const { inside, outside, site } = translate('first');
    assert.deepEqual(read(outside), [
      '1 udp 203.0.113.1:3000 > 8.8.8.8:53 ttl 63 len 20',
      '3 udp 203.0.113.1:3000 > 9.9.9.9:53 ttl 63 len 21',
    ]);
    assert.deepEqual(read(inside), [
      '2 udp 8.8.8.8:53 > 10.0.0.5:3000 ttl 63 len 31',
      '4 udp 9.9.9.9:53 > 10.0.0.5:3000 ttl 63 len 32',
      '5 icmp 8.8.8.8 > 10.0.0.6 type 3 len 50',
    ]);
    assert.deepEqual(site.plane.counts(), {
      nat_outbound: 2,
      nat_inbound: 2,
      nat_bound: 1,
      nat_unsolicited: 1,
      nat_refused: 1,
    });
  });

  it('gives the same files, byte for byte, every time', () => {
    const [one, two] = [translate('one'), translate('two')];
    assert.ok(readFileSync(one.inside).equals(readFileSync(two.inside)));
    assert.ok(readFileSync(one.outside).equals(readFileSync(two.outside)));
  });
});
