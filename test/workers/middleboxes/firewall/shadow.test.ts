import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { compileRules } from '../../../../workers/middleboxes/firewall/compile.js';
import { createJudge } from '../../../../workers/middleboxes/firewall/judge.js';
import { PACKET } from '../../../../workers/middleboxes/firewall/program.js';
import { FirewallSite } from '../../support/firewall-site.js';
import { packetWords, ruleText, ZONES } from './rule-texts.js';

const PORTS = ['inside', 'outside'];

function shadows(text: string): string[] {
  const compiled = compileRules(text, { ports: PORTS });
  if (compiled.problems !== undefined) assert.fail(compiled.problems.map(({ message }) => message).join());
  return (compiled.notes ?? [])
    .filter(({ message }) => message.startsWith('no packet comes'))
    .map(({ line, message }) => `${line} by ${/line (\d+)/.exec(message)?.[1]}`);
}

describe('firewall rules that no packet comes to', () => {
  for (const [text, ...expected] of [
    ['accept\ntcp dport 22 drop', '2 by 1'],
    ['tcp dport 22 drop\naccept'],
    ['ip saddr 10.0.0.0/8 drop\nip saddr 10.1.0.0/16 tcp dport { 22, 80 } accept', '2 by 1'],
    ['ip saddr 10.0.0.0/8 drop\nip saddr 10.0.0.0/7 accept'],
    ['tcp dport 1-100 accept\ntcp dport { 22, 80 } drop\ntcp dport { 22, 101 } drop', '2 by 1'],
    ['tcp dport 22 counter\ntcp dport 22 drop'],
    ['limit rate 1/second accept\ntcp dport 22 drop'],
    ['iif { inside, outside } accept\ntcp dport 22 drop', '2 by 1'],
    ['meta nfproto ipv4 drop\nip saddr 10.0.0.1 accept\nip6 saddr ::2 accept', '2 by 1'],
    ['ct state new accept\ntcp dport 22 drop'],
    ['ct state established,related accept\nct state established accept'],
    ['drop\nct state established accept'],
    ['tcp dport vmap { 22 : accept, 80 : drop }\ntcp dport 22 drop\ntcp dport { 22, 81 } drop', '2 by 1'],
    ['chain a { tcp dport 22 accept; drop; count }\njump a\naccept', '1 by 1', '3 by 1'],
    ['chain a { return; accept }\ngoto a\naccept', '1 by 1', '3 by 2'],
    [
      'chain a { ip saddr 10.0.0.1 accept }\nip saddr 10.0.0.0/8 drop\ntcp dport 1 jump a\ntcp dport 2 jump a',
      '1 by 2',
    ],
    ['chain a { tcp dport 22 return; accept }\njump a\ntcp dport 22 accept\ntcp dport 23 accept', '4 by 1'],
    ['chain a { return; accept }\njump a\naccept', '1 by 1'],
  ] as const)
    it(`${JSON.stringify(text)}: ${expected.join() || 'none'}`, () => {
      assert.deepEqual(shadows(text), expected);
    });

  it('are never asked, whatever the rules are', () => {
    const { batch } = new FirewallSite({ rules: '' }).plane;
    let noted = 0;
    fc.assert(
      fc.property(
        fc.array(ruleText, { minLength: 5, maxLength: 40 }),
        fc.array(packetWords, { minLength: 30, maxLength: 60 }),
        (texts, packets) => {
          const possible = texts.filter(
            (text) => compileRules(`${ZONES}${text}`, { ports: PORTS }).problems === undefined,
          );
          const compiled = compileRules(`${ZONES}${possible.join('\n')}`, { ports: PORTS });
          if (compiled.problems !== undefined) return assert.fail();
          const { words, entries, notes = [] } = compiled;
          const lines = new Set(
            notes.filter(({ message }) => message.startsWith('no packet comes')).map(({ line }) => line),
          );
          noted += lines.size;
          const met: number[] = [];
          const judge = createJudge({
            batch,
            rules: { words, base: 0, count: (entry) => met.push(entries[entry].line) },
          });
          for (const { version, words: set } of packets) {
            for (const [at, word] of set) judge.packet[at] = word;
            judge.count(judge.decide(judge.packet[PACKET.state], version === 1 ? 4 : 6), 1);
          }
          for (const line of met) assert.ok(!lines.has(line), `line ${line}`);
        },
      ),
      { numRuns: 60 },
    );
    assert.ok(noted > 20, `${noted} rules`);
  });
});
