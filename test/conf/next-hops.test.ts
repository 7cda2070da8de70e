import { strict as assert } from 'node:assert';
import type { AfXdpPortConfig } from '../../conf/config.js';
import { parseConfig } from '../../daemon/config/config.js';
import { fakeNat, RIGHT } from './fake-nat.js';

function parse(hops: string) {
  const known = { middleboxes: [fakeNat], cores: [0] };
  return parseConfig('f', RIGHT.replace('next_hop: 02:AA:00:00:00:01', hops), known);
}

describe('next hops in the configuration', () => {
  it('are one for each IP version; a MAC address is for both, unless there are two', () => {
    const hopsOf = (written: string) => {
      const { next_hop, next_hop6 } = parse(written).config?.packet_io.ports[0] as AfXdpPortConfig;
      return [next_hop, next_hop6];
    };
    const mac = '02:aa:00:00:00:01';
    assert.deepEqual(hopsOf('next_hop: 10.0.1.2'), ['10.0.1.2', undefined]);
    assert.deepEqual(hopsOf('next_hop6: FE80::1'), [undefined, 'fe80::1']);
    assert.deepEqual(hopsOf('next_hop: 10.0.1.2, next_hop6: 2001:db8::1'), ['10.0.1.2', '2001:db8::1']);
    assert.deepEqual(hopsOf(`next_hop: ${mac}`), [mac, mac]);
    assert.deepEqual(hopsOf(`next_hop: ${mac}, next_hop6: 2001:db8::1`), [mac, '2001:db8::1']);
    assert.deepEqual(hopsOf('next_hop6: 02:AA:00:00:00:01'), [undefined, mac]);
  });

  const hop6 = 'expected an IPv6 address such as 2001:db8::1 or fe80::1, or a MAC address, not';
  for (const [written, ...errors] of [
    [
      'next_hop: fe80::1',
      '8:39: ports.inside.next_hop: expected an IPv4 address such as 10.0.0.1, or a MAC address; write next_hop6: fe80::1 for IPv6',
    ],
    ['next_hop6: 10.0.0.1', `8:40: ports.inside.next_hop6: ${hop6} "10.0.0.1"`],
    ['next_hop6: fe80::1%in0', `8:40: ports.inside.next_hop6: ${hop6} "fe80::1%in0"`],
    ['next_hop6: 1:2:3:4:5:6:7', `8:40: ports.inside.next_hop6: ${hop6} "1:2:3:4:5:6:7"`],
    [
      'next_hop: 224.0.0.1, next_hop6: FF02::2',
      '8:39: ports.inside.next_hop: 224.0.0.1 is a multicast address; expected the address of a host',
      '8:61: ports.inside.next_hop6: FF02::2 is a multicast address; expected the address of a host',
    ],
    [
      'next_hop: 127.0.0.1',
      '8:39: ports.inside.next_hop: 127.0.0.1 is a loopback address; expected one that packets can be sent to',
    ],
    ['next_hop6: 0:0::1', '8:40: ports.inside.next_hop6: 0:0::1 cannot be the address of a host on a link'],
    ["next_hop6: '::'", '8:40: ports.inside.next_hop6: :: cannot be the address of a host on a link'],
  ])
    it(`${written} is wrong`, () =>
      assert.deepEqual(
        parse(written).errors,
        errors.map((error) => `f:${error}`),
      ));
});
