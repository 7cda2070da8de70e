import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { compileRules } from '../../../../workers/middleboxes/firewall/compile.js';
import { createLookup } from '../../../../workers/middleboxes/firewall/lookup.js';
import { packetWords, ruleText, ZONES } from './rule-texts.js';

const PORTS = ['inside', 'outside'];

/** The rules that can be matched at all, compiled together. */
function compiled(texts: readonly string[]): Int32Array {
  const possible = texts.filter((text) => compileRules(`${ZONES}${text}`, { ports: PORTS }).problems === undefined);
  const { words } = compileRules(`${ZONES}${possible.join('\n')}`, { ports: PORTS });
  return words ?? assert.fail('what is right alone is wrong together');
}

describe('firewall lookup', () => {
  it('finds the rules that a list finds, one after the other, wherever the program lies', () => {
    let found = 0;
    fc.assert(
      fc.property(
        fc.array(ruleText, { minLength: 1, maxLength: 60 }),
        fc.array(packetWords, { minLength: 20, maxLength: 60 }),
        fc.nat(100),
        (texts, packets, base) => {
          const program = compiled(texts);
          const words = new Int32Array(base + program.length);
          words.set(program, base);
          const lookup = createLookup(words);
          for (const { version, words: set } of packets) {
            for (const [at, word] of set) lookup.packet[at] = word;
            let after = -1;
            do {
              const expected = lookup.findLinear(base, version, after);
              assert.equal(lookup.find(base, version, after), expected);
              after = expected;
              if (expected >= 0) found++;
            } while (after >= 0);
          }
        },
      ),
      { numRuns: 150 },
    );
    assert.ok(found > 1000, `${found} matches tell something`);
  });

  it('finds one rule of thousands, and looks at few', () => {
    const texts = Array.from({ length: 4000 }, (_, i) => {
      const at = `10.${i >> 8}.${i & 255}.0/24`;
      return i % 2 === 0
        ? `ip saddr ${at} tcp dport ${1 + (i % 1000)} accept`
        : `ip6 daddr fd00:${i.toString(16)}::/32 accept`;
    });
    const { words = new Int32Array(0), entries = [] } = compileRules(texts.join('\n'), { ports: PORTS });
    assert.equal(entries.length, 4001);
    const lookup = createLookup(words);
    fc.assert(
      fc.property(packetWords, fc.integer({ min: 0, max: 0xfff }), ({ version, words: set }, low) => {
        for (const [at, word] of set) lookup.packet[at] = word;
        if (version === 1) lookup.packet[0] = ((10 << 24) | (low << 8)) ^ 0x8000_0000;
        else lookup.packet[4] = ((0xfd00 << 16) | low) ^ 0x8000_0000;
        assert.equal(lookup.find(0, version, -1), lookup.findLinear(0, version, -1));
      }),
      { numRuns: 500 },
    );
    assert.ok(words.length < 4001 * 64, `${words.length} words`);
  });
});
