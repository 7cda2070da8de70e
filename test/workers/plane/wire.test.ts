import { strict as assert } from 'node:assert';
import { wireMtuNotes } from '../../../daemon/config/ports.js';
import { checksums, describeFrame, frame } from '../support/frames.js';
import { describe6, frame6 } from '../support/frames6.js';
import { on, Plane } from '../support/plane.js';

const PACKET = 'udp 10.0.0.5:4000 > 198.51.100.7:53';

const wire = (...wireMtus: number[]): Plane => new Plane({ route: null, wireMtus });

describe('a wire whose ports have different MTUs', () => {
  it('drops what is too long for the other port, and does not count it as sent', () => {
    const plane = wire(1500, 1400);
    assert.deepEqual(plane.pass(on(0, `${PACKET} len 1373`)), []);
    assert.equal(plane.pass(on(0, `${PACKET} len 1372`), on(1, `${PACKET} len 1472`)).length, 2);
    assert.deepEqual(plane.counts(), { wire_mtu: 1 });
    assert.equal(plane.metrics.total('port1_tx_packets'), 1);
    assert.equal(plane.metrics.total('port1_tx_bytes'), 1414);
  });

  it('tells a sender that forbids fragments, in the name of its destination, in the framing it used', () => {
    const plane = wire(1500, 1400);
    const [out] = plane.passFrames(on(0, `${PACKET} len 1400 df vlan 7`));
    assert.equal(out.port, 0);
    assert.equal(describeFrame(out.frame), 'icmp 198.51.100.7 > 10.0.0.5 type 3 len 548 vlan 7');
    assert.deepEqual([...out.frame.subarray(38, 40)], [3, 4]);
    assert.equal((out.frame[44] << 8) | out.frame[45], 1400);
    assert.ok(checksums(out.frame).ip && checksums(out.frame).transport);
    const [six] = plane.passFrames({ port: 0, frame: frame6('tcp 2001:db8::5 4000 > fd00::8 80 A len 1400') });
    assert.equal(describe6(six.frame), 'icmp fd00::8 > 2001:db8::5 type 2 len 1232');
    assert.equal(new DataView(six.frame.buffer, six.frame.byteOffset).getUint32(58), 1400);
    assert.deepEqual(plane.counts(), { wire_mtu: 2, wire_icmp_errors: 2 });
  });

  it('counts one VLAN tag on top of the MTU, and names what a second one leaves of it', () => {
    const plane = wire(1500, 1400);
    assert.equal(plane.pass(on(0, `${PACKET} len 1372 vlan 7`)).length, 1);
    const [out] = plane.passFrames(on(0, `${PACKET} len 1372 df vlan 7.8`));
    assert.equal((out.frame[48] << 8) | out.frame[49], 1396);
    assert.equal(plane.pass(on(0, `${PACKET} len 1368 df vlan 7.8`)).length, 1);
  });

  it('says nothing about ICMP errors, padding, or frames that nobody parsed', () => {
    const plane = wire(1500, 1000);
    assert.deepEqual(plane.pass(on(0, 'icmp 10.0.0.5 > 198.51.100.7 type 3 len 1000 df')), []);
    const padded = new Uint8Array(1200);
    padded.set(frame(`${PACKET} df`));
    const arp = new Uint8Array(1200);
    arp.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 6]);
    assert.deepEqual(plane.passFrames({ port: 0, frame: padded }, { port: 0, frame: arp }), []);
    assert.deepEqual(plane.counts(), { wire_mtu: 3, ...linkControl(plane) });
  });

  it('loses count of nothing where its own error is too long', () => {
    const plane = wire(300, 68);
    assert.deepEqual(plane.pass(on(0, `${PACKET} len 260 df`)), []);
    assert.deepEqual(plane.counts(), { wire_mtu: 2, wire_icmp_errors: 1 });
  });

  it('is named at the start', () => {
    const [note] = wireMtuNotes([
      { name: 'left', mtu: 9000 },
      { name: 'right', mtu: 1500 },
    ]);
    assert.match(note, /^right has MTU 1500 and left has MTU 9000: .*\(wire_mtu\).*ip link set right mtu 9000/);
    for (const mtu of [1500, null])
      assert.deepEqual(
        wireMtuNotes([
          { name: 'left', mtu: 1500 },
          { name: 'right', mtu },
        ]),
        [],
      );
  });
});

/** Frames that keep the link going are counted. */
function linkControl(plane: Plane): Record<string, number> {
  const { link_control } = plane.counts();
  return link_control === undefined ? {} : { link_control };
}
