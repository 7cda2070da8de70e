/** Names that stand for numbers in rules are those of nftables, with the same numbers. */

import { strict as assert } from 'node:assert';
import { execFileSync } from 'node:child_process';
import * as ours from '../../workers/middleboxes/firewall/vocabulary.js';
import { findTool, needs } from '../support/require.js';

type Names = Readonly<Record<string, number>>;

/** What `nft describe` lists of a field; numbers are decimal or hexadecimal. */
function nftNames(field: string): Map<string, number> {
  const text = execFileSync(findTool('nft') ?? 'nft', ['describe', ...field.split(' ')], { encoding: 'utf8' });
  const rows = text.matchAll(/^\s+(\S+)\s+(0x[0-9a-f]+|\d+)$/gm);
  return new Map([...rows].map(([, name, number]) => [name, Number(number)]));
}

describe('names in firewall rules', () => {
  before(function () {
    needs(this, 'tool:nft');
  });

  for (const [field, names] of [
    ['tcp flags', ours.TCP_FLAGS],
    ['icmp type', ours.ICMP_TYPES],
    ['icmpv6 type', ours.ICMPV6_TYPES],
    ['icmp code', ours.ICMP_CODES],
    ['icmpv6 code', ours.ICMPV6_CODES],
    ['ip dscp', ours.DSCP],
  ] as readonly [string, Names][])
    it(`${field}: those of nftables, all of them`, () => {
      const theirs = nftNames(field);
      assert.ok(theirs.size > 5);
      const sorted = (entries: Iterable<[string, number]>) => [...entries].sort(([a], [b]) => (a < b ? -1 : 1));
      assert.deepEqual(sorted(Object.entries(names)), sorted(theirs));
    });

  it('ct state: those of nftables, all of them', () => {
    assert.deepEqual(Object.keys(ours.STATES).sort(), [...nftNames('ct state').keys()].sort());
  });

  it('protocols: with the numbers of nftables', () => {
    const theirs = nftNames('inet_proto');
    // Keywords of nftables, which are not in /etc/protocols.
    const keywords = ['icmpv6', 'comp'];
    for (const [name, number] of Object.entries(ours.PROTOCOLS))
      if (!keywords.includes(name)) assert.equal(number, theirs.get(name), name);
  });

  it('codes of reject: with the numbers of nftables', () => {
    const { icmpx } = ours.REJECT_CODES;
    assert.deepEqual(Object.keys(icmpx).sort(), [...nftNames('icmpx_code').keys()].sort());
    for (const [code, names] of [
      ['icmp code', ours.REJECT_CODES.icmp],
      ['icmpv6 code', ours.REJECT_CODES.icmpv6],
    ] as const)
      for (const name of Object.keys(names)) assert.ok(nftNames(code).has(name), name);
  });
});
