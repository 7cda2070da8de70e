import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { expandAddresses, expandPrefixes, ipv4Text, numericIpv4, parseSpan } from '../../options/addresses.js';

const address = fc.nat(2 ** 32 - 1);

describe('lists of addresses', () => {
  it('take addresses, networks and ranges', () => {
    assert.deepEqual(expandAddresses(['192.0.2.5', '192.0.2.8/30', '192.0.2.1-192.0.2.3']), [
      '192.0.2.5',
      ...['192.0.2.8', '192.0.2.9', '192.0.2.10', '192.0.2.11'],
      ...['192.0.2.1', '192.0.2.2', '192.0.2.3'],
    ]);
    assert.equal(
      parseSpan('192.0.2.9-192.0.2.1'),
      '192.0.2.9-192.0.2.1 ends before it begins: write 192.0.2.1-192.0.2.9',
    );
  });

  it('make the fewest networks of a range, which hold its addresses and no other', () => {
    assert.deepEqual(expandPrefixes(['0.0.0.0-255.255.255.255', '10.0.0.0/8']), ['0.0.0.0/0', '10.0.0.0/8']);
    fc.assert(
      fc.property(address, fc.nat(300), (from, size) => {
        const first = Math.min(from, 2 ** 32 - 1 - size);
        const networks = expandPrefixes([`${ipv4Text(first)}-${ipv4Text(first + size)}`]);
        const held = networks.flatMap((network) => expandAddresses([network]));
        assert.deepEqual(
          held.map(numericIpv4),
          Array.from({ length: size + 1 }, (_, i) => first + i),
        );
        assert.ok(networks.length <= 2 * Math.ceil(Math.log2(size + 2)));
      }),
    );
  });
});
