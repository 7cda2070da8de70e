import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import type { Batch } from '../../../workers/packet/batch.js';
import { parseIpv4, swap16 } from '../../../workers/packet/ipv4.js';
import { rewriteDestination, rewriteSource } from '../../../workers/packet/rewrite.js';
import { checksums, describeFrame, frame } from '../support/frames.js';
import { Plane } from '../support/plane.js';

/** Runs `change` on one packet in wire mode, and returns what came out. */
function rewritten(packet: string, change: (batch: Batch) => void): Uint8Array {
  const plane = new Plane({ route: null });
  plane.open([change]);
  return plane.passFrames({ port: 0, frame: frame(packet) })[0].frame;
}

const to = parseIpv4('203.0.113.9');

describe('packet/rewrite', () => {
  it('changes source or destination, and the columns with it', () => {
    const expect = (packet: string, change: (batch: Batch) => void, out: string) =>
      assert.equal(describeFrame(rewritten(packet, change)), out);
    const source = (batch: Batch) => rewriteSource(batch, 0, to, swap16(99));
    const destination = (batch: Batch) => rewriteDestination(batch, 0, to, swap16(99));
    expect('tcp 10.0.0.5:4000 > 8.8.8.8:80 S len 7', source, 'tcp 203.0.113.9:99 > 8.8.8.8:80 S len 7');
    expect('tcp 10.0.0.5:4000 > 8.8.8.8:80 S len 7', destination, 'tcp 10.0.0.5:4000 > 203.0.113.9:99 S len 7');
    expect('udp 10.0.0.5:4000 > 8.8.8.8:80 len 7', source, 'udp 203.0.113.9:99 > 8.8.8.8:80 len 7');
    expect('udp 10.0.0.5:4000 > 8.8.8.8:80 nosum', destination, 'udp 10.0.0.5:4000 > 203.0.113.9:99 nosum');
    expect('icmp 10.0.0.5 > 8.8.8.8 echo 5 len 7', source, 'icmp 203.0.113.9 > 8.8.8.8 echo 99 len 7');
    expect('icmp 10.0.0.5 > 8.8.8.8 reply 5', destination, 'icmp 10.0.0.5 > 203.0.113.9 reply 99');
    expect('icmp 10.0.0.5 > 8.8.8.8 type 3 len 30', source, 'icmp 203.0.113.9 > 8.8.8.8 type 3 len 30');
    expect('ip 10.0.0.5 > 8.8.8.8 proto 47 len 30', source, 'ip 203.0.113.9 > 8.8.8.8 proto 47 len 30');
    const twice = (batch: Batch) => {
      source(batch);
      assert.deepEqual([batch.source[0], swap16(batch.ports[0] & 0xffff)], [to, 99]);
      rewriteSource(batch, 0, parseIpv4('10.0.0.5'), swap16(4000));
    };
    expect('udp 10.0.0.5:4000 > 8.8.8.8:80 len 7', twice, 'udp 10.0.0.5:4000 > 8.8.8.8:80 len 7');
  });

  it('leaves every checksum as a recomputation has it', () => {
    const packet = fc.constantFrom(
      'tcp 10.0.0.5:4000 > 8.8.8.8:80 S len 7',
      'udp 10.0.0.5:4000 > 8.8.8.8:80 len 8',
      'icmp 10.0.0.5 > 8.8.8.8 echo 5 len 9',
    );
    const half = fc.integer({ min: 0, max: 0xffff });
    fc.assert(
      fc.property(packet, fc.integer(), half, fc.integer(), half, (text, source, port, destination, other) => {
        const out = rewritten(text, (batch) => {
          rewriteSource(batch, 0, source, port);
          rewriteDestination(batch, 0, destination, other);
        });
        assert.deepEqual(checksums(out), { ip: true, transport: true });
      }),
    );
  });

  it('sends a UDP checksum that comes out as 0 as 0xffff, and none as none', () => {
    // With all else equal, one source port of all makes the sum 0.
    const plane = new Plane({ route: null });
    let port = 0;
    plane.open([
      (batch) => {
        for (let i = 0; i < batch.count; i++) rewriteSource(batch, i, to, port++);
      },
    ]);
    const packet = { port: 0, frame: frame('udp 10.0.0.5:4000 > 8.8.8.8:80 len 2') };
    const sums = plane.passFrames(...new Array(0x10000).fill(packet)).map(({ frame: out }) => out[40] | (out[41] << 8));
    assert.equal(sums.filter((sum) => sum === 0).length, 0);
    assert.ok(sums.includes(0xffff));
  });
});
