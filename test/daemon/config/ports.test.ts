import { strict as assert } from 'node:assert';
import { ipv6Notes } from '../../../daemon/config/ports.js';
import { parseIpv6 } from '../../../workers/packet/ipv6.js';

describe('ports', () => {
  const own = parseIpv6('2001:db8::1');
  const port = { name: 'outside', interface: 'out0' };

  it('note a next hop of IPv6 that no middlebox has a use for', () => {
    assert.match(
      ipv6Notes({ ...port, next_hop6: 'fe80::1' }, false, own).join(),
      /^next_hop6 of port outside is not used/,
    );
    assert.deepEqual(ipv6Notes({ ...port, next_hop6: 'fe80::1' }, true, own), []);
    assert.deepEqual(ipv6Notes({ ...port, next_hop: '10.0.0.1' }, false, own), []);
  });

  it('note that there is none beside one of IPv4, where the link has IPv6', () => {
    const alone = { ...port, next_hop: '10.0.0.1' };
    assert.match(ipv6Notes(alone, true, own).join(), /^port outside has a next hop for IPv4 and none for IPv6/);
    assert.deepEqual(ipv6Notes(alone, true, parseIpv6('fe80::5')), []);
    assert.deepEqual(ipv6Notes(alone, true, null), []);
    assert.deepEqual(ipv6Notes({ ...alone, next_hop6: 'fe80::1' }, true, own), []);
    assert.deepEqual(ipv6Notes(port, true, own), []);
  });
});
