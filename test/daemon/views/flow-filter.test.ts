import { strict as assert } from 'node:assert';
import { UsageError } from '../../../daemon/base/command-errors.js';
import { matchesFlow, parseFlowFilter } from '../../../daemon/views/flow-filter.js';
import { flow } from '../admin/fake-source.js';

const flows = Array.from({ length: 1000 }, (_, i) => flow(i));

function count(text: string): number {
  const filter = parseFlowFilter(text.split(' ').filter((word) => word !== ''));
  return flows.filter((row) => matchesFlow(filter, row)).length;
}

describe('filter of show flows', () => {
  it('takes what every term holds for', () => {
    assert.equal(count(''), 1000);
    assert.equal(count('proto=tcp'), 500);
    assert.equal(count('proto=UDP'), 500);
    assert.equal(count('proto=6'), 500);
    assert.equal(count('proto=icmp'), 0);
    assert.equal(count('inside=10.0.0.5'), 1);
    assert.equal(count('inside=10.0.0.5 proto=tcp'), 0);
    assert.equal(count('inside=10.0.0.5:1029'), 1);
    assert.equal(count('inside=10.0.0.5:1030'), 0);
    assert.equal(count('inside=10.0.1.0/24'), 256);
    assert.equal(count('inside=10.0.0.200/31'), 2);
    assert.equal(count('inside=10.0.0.0/16'), 1000);
    assert.equal(count('inside=0.0.0.0/0'), 1000);
    assert.equal(count('external=203.0.113.1:2049'), 1);
    assert.equal(count('remote=198.51.100.7'), 666);
    assert.equal(count('port=80'), 666);
    assert.equal(count('port=1024'), 1);
    assert.equal(count('state=new'), 200);
    assert.equal(count('object=nat.bindings'), 1000);
    assert.equal(count('object=other'), 0);
    assert.equal(parseFlowFilter(['limit=20']).limit, 20);
  });

  it('does not take IPv6 for an IPv4 block', () => {
    const row = { ...flow(1), inside: { address: '2001:db8::1', port: 1 } };
    assert.equal(matchesFlow(parseFlowFilter(['inside=0.0.0.0/0']), row), false);
    assert.equal(matchesFlow(parseFlowFilter(['port=1']), row), true);
    assert.equal(matchesFlow(parseFlowFilter(['inside=::/0']), flow(1)), false);
  });

  it('takes IPv6 addresses and blocks, with a port too', () => {
    const row = { ...flow(1), inside: { address: '2001:db8::1', port: 80 } };
    for (const [term, holds] of [
      ['2001:db8::1', true],
      ['2001:db8:0::1', true],
      ['2001:db8::2', false],
      ['2001:db8::/32', true],
      ['2001:db9::/32', false],
      ['::/0', true],
      ['[2001:db8::1]:80', true],
      ['[2001:db8::1]:81', false],
      ['[2001:db8::]/64:80', true],
    ] as const)
      assert.equal(matchesFlow(parseFlowFilter([`inside=${term}`]), row), holds, term);
  });

  it('says what is wrong with a term', () => {
    for (const [term, message] of [
      ['prto=tcp', 'unknown term "prto"; did you mean "proto"?'],
      ['tcp', 'unknown term "tcp"; known: proto, inside, external, remote, port, state, object, limit'],
      ['__proto__=1', 'unknown term "__proto__"; known: proto, inside, external, remote, port, state, object, limit'],
      ['proto', 'proto needs a value: proto=…'],
      ['proto=', 'proto needs a value: proto=…'],
      ['proto=tpc', 'proto=tpc: expected tcp, udp, icmp or a protocol number'],
      ['proto=256', 'proto=256: expected tcp, udp, icmp or a protocol number'],
      ['port=65536', 'port=65536: expected a port'],
      ['port=-1', 'port=-1: expected a port'],
      ['inside=10.0.0', 'inside=10.0.0: expected an IPv4 or IPv6 address, perhaps with /BITS or :PORT behind it'],
      ['inside=2001:db8::1/129', 'inside=2001:db8::1/129: expected at most 128 bits'],
      ['inside=[10.0.0.1', 'inside=[10.0.0.1: expected an IPv4 or IPv6 address, perhaps with /BITS or :PORT behind it'],
      ['inside=10.0.0.1/33', 'inside=10.0.0.1/33: expected at most 32 bits'],
      ['inside=10.0.0.1:99999', 'inside=10.0.0.1:99999: expected a port'],
      [
        'state=establised',
        'state=establised: expected new, answered, established, closing, closed, shared, dead, static',
      ],
      ['limit=many', 'limit=many: expected a number of rows'],
    ]) {
      assert.throws(
        () => parseFlowFilter([term]),
        (error) => {
          assert.ok(error instanceof UsageError);
          assert.equal(error.message, message);
          return true;
        },
      );
    }
    assert.throws(() => parseFlowFilter(['port=1', 'port=2']), /port= is given twice/);
  });
});
