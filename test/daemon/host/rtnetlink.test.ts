import { strict as assert } from 'node:assert';
import { execFileSync } from 'node:child_process';
import fc from 'fast-check';
import { readHostAddresses, sameAddresses, sortAddresses } from '../../../daemon/host/host-addresses.js';
import {
  addressOf,
  ChangeListener,
  hostAddresses,
  messagesOf,
  removedInterface,
} from '../../../daemon/host/rtnetlink.js';
import { interfaceFacts } from '../../../workers/native/index.js';
import { parseIpv4 } from '../../../workers/packet/ipv4.js';
import { parseIpv6 } from '../../../workers/packet/ipv6.js';
import { needs } from '../../support/require.js';
import { Veth } from '../../workers/native/veth.js';

const ADDRESS = '10.99.250.9';

describe('rtnetlink', () => {
  it('tells of interfaces and addresses that come and go, and lists those of interfaces that are down', function () {
    needs(this, 'netns', 'tool:ethtool');
    const veth = new Veth();
    const listener = new ChangeListener();
    try {
      const { index } = interfaceFacts(veth.near);
      const has = (): boolean =>
        hostAddresses().some((one) => one.index === index && one.address === parseIpv4(ADDRESS));
      execFileSync('ip', ['link', 'set', veth.near, 'down']);
      execFileSync('ip', ['addr', 'add', `${ADDRESS}/32`, 'dev', veth.near]);
      assert.ok(listener.read().any);
      assert.ok(has());
      const network = { own: parseIpv4(ADDRESS), address: parseIpv4(ADDRESS), mask: -1 };
      assert.deepEqual(readHostAddresses().networks4.get(index)?.at(-1), network);
      const before = readHostAddresses();
      execFileSync('ip', ['addr', 'del', `${ADDRESS}/32`, 'dev', veth.near]);
      assert.ok(!has());
      assert.ok(!sameAddresses(before, readHostAddresses()));
      assert.ok(!listener.read().removed.has(index));
      execFileSync('ip', ['link', 'del', veth.near]);
      assert.ok(listener.read().removed.has(index));
    } finally {
      listener.close();
      veth.down();
    }
  });

  it('reads any bytes to their end, and believes no length', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        for (const message of messagesOf(bytes)) {
          removedInterface(message);
          addressOf(message);
        }
      }),
    );
  });

  it('sorts addresses by what they are for', () => {
    const [local, wide] = [parseIpv6('fe80::1'), parseIpv6('2001:db8::1')];
    const [one, two] = ['10.0.0.1', '10.0.0.2'].map(parseIpv4);
    const found = [one, two, one, local, wide].map((address) => ({ index: 3, address, subnet: address, prefix: 24 }));
    const { all4, all6, first4, first6 } = sortAddresses(found);
    assert.deepEqual([all4, all6], [[one, two], [wide]]);
    assert.deepEqual([first4.get(3), first6.get(3)], [one, wide]);
    assert.ok(sameAddresses(sortAddresses(found), sortAddresses(found)));
    const narrower = found.map((entry) => ({ ...entry, prefix: 25 }));
    assert.ok(!sameAddresses(sortAddresses(found), sortAddresses(narrower)), 'a prefix alone has changed');
    const peer = { index: 4, address: one, subnet: parseIpv4('10.9.9.9'), prefix: 20 };
    const network = { own: one, address: parseIpv4('10.9.0.0'), mask: parseIpv4('255.255.240.0') };
    assert.deepEqual(sortAddresses([peer]).networks4.get(4), [network]);
  });
});
