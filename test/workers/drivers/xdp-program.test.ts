import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { Umem } from '../../../workers/drivers/umem.js';
import { RANGES_MAX, type XdpFilter, xdpProgram } from '../../../workers/drivers/xdp-program.js';
import {
  bpfCounterCreate,
  bpfCounterTake,
  bpfMapCreate,
  bpfMapUpdate,
  bpfProgramLoad,
  bpfProgramRun,
  closeDescriptor,
  XdpAction,
  xskOpen,
} from '../../../workers/native/index.js';
import { parseIpv6 } from '../../../workers/packet/ipv6.js';
import { needs } from '../../support/require.js';
import { frame6 } from '../support/frames6.js';

const MAC = Uint8Array.of(2, 0, 0, 0xaa, 0xbb, 0xcc);
const raw = (address: string): number => Buffer.from(address.split('.').map(Number)).readInt32LE(0);

/** An Ethernet frame with an IPv4 header, as much of it as the program looks at. */
function frame(destination: number, mac: Uint8Array = MAC, etherType = 0x0800, bytes = 60): Uint8Array {
  const buffer = Buffer.alloc(bytes);
  buffer.set(mac, 0);
  buffer.writeUInt16BE(etherType, 12);
  if (bytes >= 34) buffer.writeInt32LE(destination, 30);
  return buffer;
}

describe('the XDP program, run by the kernel', () => {
  let mapFd = -1;
  let counterFd = -1;
  const opened: number[] = [];

  before(function () {
    needs(this, 'root', 'af_xdp');
    mapFd = bpfMapCreate(1, 'test');
    counterFd = bpfCounterCreate('test');
    // A socket in the map, or every frame for the data plane would be dropped.
    const socket = xskOpen('test', new Umem(64, 2048).memory.u8, 2048, 2, 64, false).fd;
    bpfMapUpdate(mapFd, 0, socket);
    opened.push(mapFd, counterFd, socket);
  });
  after(() => {
    for (const fd of opened) closeDescriptor(fd);
  });

  /** Asks a filter about frames: whether the data plane gets each. */
  function takes(filter: XdpFilter, frames: readonly Uint8Array[]): boolean[] {
    const program = bpfProgramLoad(xdpProgram(filter, MAC, mapFd, counterFd), 'test');
    try {
      return frames.map((bytes) => {
        const verdict = bpfProgramRun(program, bytes);
        assert.ok(verdict === XdpAction.REDIRECT || verdict === XdpAction.PASS, `verdict ${verdict}`);
        return verdict === XdpAction.REDIRECT;
      });
    } finally {
      closeDescriptor(program);
    }
  }

  it('to: takes untagged IPv4 to these addresses and this interface', () => {
    const [outside, other] = [raw('203.0.113.7'), raw('203.0.113.8')];
    assert.deepEqual(
      takes({ mode: 'to', addresses: [outside] }, [
        frame(outside),
        frame(other),
        frame(outside, MAC, 0x0806),
        frame(outside, MAC, 0x86dd),
        frame(outside, MAC, 0x8100),
        frame(outside, Uint8Array.of(2, 0, 0, 0xaa, 0xbb, 0xcd)),
        frame(outside, Uint8Array.of(3, 0, 0, 0xaa, 0xbb, 0xcc)),
        frame(outside, new Uint8Array(6).fill(0xff)),
        frame(outside, MAC, 0x0800, 34),
        frame(outside, MAC, 0x0800, 33),
        frame(outside, MAC, 0x0800, 14),
      ]),
      [true, false, false, false, false, false, false, false, true, false, false],
    );
  });

  it('not-to: takes what is for neither the host nor a group', () => {
    const host = raw('192.168.1.1');
    const destinations = ['192.168.1.1', '192.168.1.2', '8.8.8.8', '224.0.0.1', '255.255.255.255', '223.255.255.255'];
    assert.deepEqual(
      takes(
        { mode: 'not-to', addresses: [host] },
        destinations.map((address) => frame(raw(address))),
      ),
      [false, true, true, false, false, true],
    );
  });

  it('takes IPv6 from one host to another where it is asked to, and leaves the link’s own and the host’s to the kernel', () => {
    const own = parseIpv6('fd00:1::1');
    const packets = [
      'udp fd00:1::5 1 > 2001:db8::1 2',
      'udp fd00:1::5 1 > fd00:1::1 2',
      'udp fd00:1::5 1 > fd00:1::2 2',
      'udp fd00:1::5 1 > fd00:1::1:1 2',
      'udp fe80::5 1 > 2001:db8::1 2',
      'udp fd00:1::5 1 > fe80::1 2',
      'icmp fd00:1::5 > ff02::1:ff00:1 type 135',
      'udp fd00:1::5 1 > ff0e::1 2',
    ].map((text) => Uint8Array.of(...MAC, ...frame6(text).subarray(6)));
    const other = Uint8Array.of(...MAC.subarray(0, 5), 0, ...packets[0].subarray(6));
    const frames = [...packets, other, packets[0].subarray(0, 53), frame(raw('8.8.8.8'))];
    const expected = [true, false, true, true, false, false, false, false, false, false];
    for (const mode of ['to', 'not-to'] as const) {
      const addresses = [raw('203.0.113.1')];
      assert.deepEqual(takes({ mode, addresses, ipv6NotTo: [own] }, frames), [...expected, mode === 'not-to']);
      assert.deepEqual(
        takes({ mode, addresses }, packets),
        packets.map(() => false),
      );
    }
    const many = Array.from({ length: 257 }, (_, i) => parseIpv6(`fd00::${i.toString(16)}`));
    takes({ mode: 'not-to', addresses: [], ipv6NotTo: many.slice(1) }, []);
    assert.throws(() => xdpProgram({ mode: 'not-to', addresses: [], ipv6NotTo: many }, MAC, 1, 2), /at most 256/);
  });

  it('all: takes every frame', () => {
    const frames = [frame(1), frame(1, MAC, 0x0806), frame(1, new Uint8Array(6).fill(0xff), 0x86dd, 14)];
    assert.deepEqual(takes({ mode: 'all' }, frames), [true, true, true]);
  });

  it('drops and counts what is for the data plane if its queue has no socket, whatever the filter', () => {
    const [outside, inside] = [raw('203.0.113.7'), raw('8.8.8.8')];
    const own = parseIpv6('fd00:1::1');
    const v6 = Uint8Array.of(...MAC, ...frame6('udp fd00:1::5 1 > 2001:db8::1 2').subarray(6));
    const arp = frame(outside, MAC, 0x0806);
    const filters: [filter: XdpFilter, taken: Uint8Array[], left: Uint8Array[]][] = [
      [{ mode: 'all' }, [frame(outside), v6, arp], []],
      [{ mode: 'to', addresses: [outside] }, [frame(outside)], [frame(inside), v6, arp]],
      [{ mode: 'not-to', addresses: [outside], ipv6NotTo: [own] }, [frame(inside), v6], [frame(outside), arp]],
    ];
    const [empty, counter] = [bpfMapCreate(1, 'empty'), bpfCounterCreate('empty')];
    try {
      for (const [filter, taken, left] of filters) {
        const program = bpfProgramLoad(xdpProgram(filter, MAC, empty, counter), 'test');
        const verdicts = (frames: Uint8Array[]): number[] => frames.map((bytes) => bpfProgramRun(program, bytes));
        try {
          assert.deepEqual(
            verdicts(taken),
            taken.map(() => XdpAction.DROP),
          );
          assert.deepEqual(
            verdicts(left),
            left.map(() => XdpAction.PASS),
          );
          assert.equal(bpfCounterTake(counter), taken.length);
          assert.equal(bpfCounterTake(counter), 0, 'each is counted once');
        } finally {
          closeDescriptor(program);
        }
      }
    } finally {
      closeDescriptor(empty);
      closeDescriptor(counter);
    }
    assert.equal(bpfCounterTake(counterFd), 0, 'and none that a socket gets');
  });

  it('agrees with a set, whatever the addresses', () => {
    // Few distinct bytes, so that neighbours, ranges and both ends of the address space come up.
    const byte = fc.constantFrom(0, 1, 2, 3, 127, 128, 223, 224, 254, 255);
    const address = fc.tuple(byte, byte, byte, byte).map((bytes) => Buffer.from(bytes).readInt32LE(0));
    fc.assert(
      fc.property(
        fc.constantFrom('to' as const, 'not-to' as const),
        fc.array(address, { minLength: 1, maxLength: 60 }),
        fc.array(address, { maxLength: 40 }),
        (mode, addresses, others) => {
          const wanted = new Set(addresses);
          const asked = [...addresses, ...others];
          const group = (word: number): boolean => (word & 0xff) >= 224;
          assert.deepEqual(
            takes(
              { mode, addresses },
              asked.map((word) => frame(word)),
            ),
            asked.map((word) => (mode === 'to' ? wanted.has(word) : !wanted.has(word) && !group(word))),
          );
        },
      ),
      { numRuns: 60 },
    );
  });

  it('holds as many separate addresses as it promises, and says so beyond', () => {
    const addresses = (count: number): number[] =>
      Array.from({ length: count }, (_, i) => {
        const bytes = Buffer.alloc(4);
        bytes.writeUInt32BE(0x0a000000 + 2 * i);
        return bytes.readInt32LE(0);
      });
    const many = addresses(RANGES_MAX);
    assert.deepEqual(
      takes({ mode: 'to', addresses: many }, [frame(many[0]), frame(many[4095]), frame(raw('10.0.0.1'))]),
      [true, true, false],
    );
    assert.throws(() => xdpProgram({ mode: 'to', addresses: addresses(RANGES_MAX + 1) }, MAC, 1, 2), /use blocks/);
    assert.throws(() => xdpProgram({ mode: 'to', addresses: [] }, MAC, 1, 2), /without addresses/);
  });
});
