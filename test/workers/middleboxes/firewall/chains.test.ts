import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { compileRules } from '../../../../workers/middleboxes/firewall/compile.js';
import { createJudge } from '../../../../workers/middleboxes/firewall/judge.js';
import { createLimits } from '../../../../workers/middleboxes/firewall/limits.js';
import { createLookup, type Lookup } from '../../../../workers/middleboxes/firewall/lookup.js';
import { HEAD, PACKET, RULE, RULE_WORDS, VERDICT_SHIFT } from '../../../../workers/middleboxes/firewall/program.js';
import { Verdict } from '../../../../workers/middleboxes/firewall/rule.js';
import { FirewallSite } from '../../support/firewall-site.js';
import { on } from '../../support/plane.js';
import { packetWords } from './rule-texts.js';

const PORTS = ['inside', 'outside'];
const NEW = 1;

/** Programs that are wrong in nothing. */
function program(text: string) {
  const compiled = compileRules(text, { ports: PORTS });
  if (compiled.problems !== undefined)
    return assert.fail(`${text}\n${compiled.problems.map(({ message }) => message).join()}`);
  const { words, entries, notes = [] } = compiled;
  /** Lines of rules that are said to be never asked. */
  const unreached = new Set(notes.filter(({ message }) => message.startsWith('no packet')).map(({ line }) => line));
  return { words, entries, unreached };
}

interface TestRule {
  readonly match: string;
  /** accept, drop, count, return, jump N or goto N. */
  readonly action: string;
}

const match = fc.constantFrom(
  '',
  'tcp dport { 22, 80 }',
  'tcp dport >= 443',
  'tcp dport < 443',
  'udp dport != 1024',
  'ip saddr 10.0.0.0/8',
  'ip saddr != 10.0.0.0/8',
  'ip daddr 192.0.0.0/8',
  'ip6 saddr ::/16',
  'icmp type 8',
  'meta nfproto ipv6',
  'meta l4proto { tcp, udp }',
  'iifname { "inside", "outside" }',
  'iifname "in*"',
  'tcp flags syn / syn,ack',
);

/** Chains that only call later ones: 0 is the top of the file. */
const CHAINS = 5;
const chainOf = (index: number): fc.Arbitrary<TestRule[]> => {
  const later = Array.from({ length: CHAINS - 1 - index }, (_, i) => index + 1 + i);
  const calls = later.flatMap((chain) => [`jump c${chain}`, `goto c${chain}`, `jump c${chain}`]);
  const action = fc.constantFrom('accept', 'drop', 'count', 'return', ...calls, ...calls);
  return fc.array(fc.record({ match, action }), { minLength: 1, maxLength: 6 });
};
const rulesets = fc.tuple(...Array.from({ length: CHAINS }, (_, index) => chainOf(index)));

function textOf(chains: readonly TestRule[][]): string {
  const [top, ...others] = chains.map((rules) => rules.map(({ match, action }) => `${match} ${action}`));
  return [...others.map((rules, i) => `chain c${i + 1} {\n${rules.join('\n')}\n}`), ...top, 'policy reject'].join('\n');
}

/**
 * What chains say as they are written, walked rule by rule: the text of the rule that decides, and
 * those that counted.
 */
function walk(chains: readonly TestRule[][], matches: (match: string) => boolean): { verdict: string; met: string[] } {
  const met: string[] = [];
  function chain(index: number): string | null {
    for (const { match, action } of chains[index]) {
      if (!matches(match)) continue;
      met.push(`${match} ${action}`.trim());
      if (action === 'accept' || action === 'drop') return action;
      if (action === 'return') return null;
      const [how, name] = action.split(' ');
      if (how === 'count') continue;
      const verdict = chain(Number(name.slice(1)));
      if (verdict !== null) return verdict;
      if (how === 'goto') return null;
    }
    return null;
  }
  return { verdict: chain(0) ?? 'reject', met };
}

const VERDICTS = ['count', 'accept', 'drop', 'reject'];

describe('firewall chains', () => {
  it('decide and count as a walk through them does', () => {
    const singles = new Map<string, Int32Array>();
    let decided = 0;
    fc.assert(
      fc.property(rulesets, fc.array(packetWords, { minLength: 10, maxLength: 30 }), (chains, packets) => {
        const { words, entries, unreached } = program(textOf(chains));
        const counted: string[] = [];
        const judge = createJudge({
          batch: batchStub(),
          rules: {
            words,
            base: 0,
            count: (entry) => {
              counted.push(entries[entry].text);
              assert.ok(!unreached.has(entries[entry].line), textOf(chains));
            },
          },
        });
        for (const { version, words: set } of packets) {
          for (const [at, word] of set) judge.packet[at] = word;
          judge.packet[PACKET.state] = NEW;
          const matches = (match: string): boolean => {
            const single = singles.get(match) ?? program(`${match} count`).words;
            singles.set(match, single);
            const lookup: Lookup = createLookup(single);
            lookup.packet.set(judge.packet);
            return lookup.findLinear(0, version, -1) === 0;
          };
          const expected = walk(chains, matches);
          counted.length = 0;
          const place = judge.decide(NEW, version === 1 ? 4 : 6);
          judge.count(place, 100);
          assert.equal(VERDICTS[judge.verdict(place)], expected.verdict, textOf(chains));
          const policy = expected.verdict === 'reject' ? ['policy reject'] : [];
          assert.deepEqual(counted, [...expected.met, ...policy], textOf(chains));
          if (policy.length === 0) decided++;
        }
      }),
      { numRuns: 120 },
    );
    assert.ok(decided > 300, `${decided} decided by chains`);
  });

  /** `createJudge` reads the batch only to fill in packets, which this test does itself. */
  function batchStub(): Parameters<typeof createJudge>[0]['batch'] {
    return new FirewallSite({ rules: '' }).plane.batch;
  }

  it('are one counter for each written rule, however often it is called', () => {
    const site = new FirewallSite({
      rules: `chain web { tcp dport 80 accept; count }
        ip saddr 10.0.0.5 jump web
        ip saddr 10.0.0.6 jump web`,
    });
    for (const host of [5, 6, 7]) site.pass(on(0, `tcp 10.0.0.${host}:4000 > 198.51.100.7:80 S`));
    site.pass(on(0, 'tcp 10.0.0.6:4000 > 198.51.100.7:81 S'));
    assert.deepEqual(
      Array.from({ length: 5 }, (_, entry) => site.boards[0].count(entry).packets),
      [2, 1, 1, 2, 2],
    );
  });

  it('stay small: a rule of a chain is looked for only among packets that come to it', () => {
    const { words } = program('chain web { tcp dport 80 accept }\nudp dport 53 jump web\naccept');
    // The call alone: no packet of UDP has a port of TCP.
    assert.equal(words[HEAD.count], 3);
    const verdicts = [0, 1, 2].map(
      (rule) => (words[words[HEAD.rules] + rule * RULE_WORDS + RULE.what] >>> VERDICT_SHIFT) & 7,
    );
    assert.deepEqual(verdicts, [Verdict.CONTINUE, Verdict.ACCEPT, Verdict.DROP]);
  });

  it('are refused if they come to themselves, or are missing', () => {
    const told = (text: string): string[] =>
      compileRules(text, { ports: PORTS }).problems?.map(
        ({ line, column, message }) => `${line}:${column}: ${message}`,
      ) ?? [];
    assert.deepEqual(told('chain a { jump b }\nchain b { goto a }\njump a'), [
      '2:16: chain "a" comes to itself: a → b → a',
    ]);
    assert.deepEqual(told('chain a { jump a }'), ['1:16: chain "a" comes to itself: a → a']);
    assert.deepEqual(told('tcp dport 22 jump ssh'), ['1:19: there is no chain "ssh"']);
    assert.deepEqual(told('chain a { acept; tcp dport x drop }\njump a'), [
      '1:11: "acept" is nothing that a rule says',
      '1:28: "x" is no port, such as 443, https or 8000-8080',
    ]);
    assert.deepEqual(told('chain a { accept'), ['1:9: this brace is never closed']);
    assert.deepEqual(told('chain a { accept }\nchain a { drop }'), ['2:7: chain "a" was already given in line 1']);
  });

  it('may not grow beyond what there is room for', () => {
    const chains = Array.from(
      { length: 16 },
      (_, i) => `chain c${i} { ip saddr 10.0.0.0/8 jump c${i + 1}; jump c${i + 1} }`,
    );
    const text = [...chains, 'chain c16 { udp dport 1 accept }', 'jump c0'].join('\n');
    const { problems = [] } = compileRules(text, { ports: PORTS });
    assert.deepEqual(
      problems.map(({ message }) => message),
      [
        'more than 32000 rules with this one: each element of a map is a rule, and each jump stands for the rules of its chain',
      ],
    );
  });

  it('may not grow beyond that without chains either', () => {
    const line = 'log tcp dport 22 log ip saddr 10.0.0.5 accept\n';
    const { problems = [] } = compileRules(line.repeat(10_667), { ports: PORTS });
    assert.deepEqual(
      problems.map(({ line, column, message }) => `${line}:${column}: ${message.slice(0, 35)}`),
      ['10667:1: more than 32000 rules with this one'],
    );
  });

  it('are refused where they are too deep, in whatever order they are written', () => {
    for (const [chains, ok] of [
      [32, true],
      [33, false],
      [6000, false],
    ] as const)
      for (const isReverse of [false, true]) {
        const lines = Array.from(
          { length: chains },
          (_, i) => `chain c${i} { ${i + 1 < chains ? `jump c${i + 1}` : 'accept'} }`,
        );
        const tops = isReverse ? lines.map((_, i) => `jump c${chains - 1 - i}`) : ['jump c0'];
        const { problems } = compileRules([...lines, ...tops].join('\n'), { ports: PORTS });
        assert.equal(
          problems?.length ?? 0,
          ok ? 0 : 1,
          `${chains} ${isReverse} ${JSON.stringify(problems?.slice(0, 2))}`,
        );
        if (!ok) assert.match(problems?.[0].message ?? '', /^chains are more than 32 deep with this jump to "c/);
      }
  });

  it('and definitions that stand in each other by the thousand are refused', () => {
    const lines = Array.from({ length: 5000 }, (_, i) => `define d${i + 1} = { $d${i} }`);
    const { problems = [] } = compileRules(`define d0 = 22\n${lines.join('\n')}\ntcp dport $d5000 accept`, {
      ports: PORTS,
    });
    assert.match(problems[0]?.message ?? '', /^"d\d+" is defined by more than 256 others, one in the other$/);
  });
});

describe('firewall limits', () => {
  function bucket(text: string): { matches: (ms: number) => boolean } {
    const { words } = program(`limit rate ${text} accept`);
    let now = 0;
    const limits = createLimits(words, () => now);
    const at = words[words[HEAD.rules] + RULE.limit];
    return {
      matches(ms) {
        now = ms;
        return limits.matches(at, 0);
      },
    };
  }

  /**
   * The token bucket of nftables, in exact numbers: tokens are time, of which a packet takes the
   * cost.
   */
  function reference(rate: number, periodMs: number, burst: number): (ms: number) => boolean {
    const cost = periodMs / rate;
    let tokens = cost * burst;
    let last = 0;
    return (ms) => {
      tokens = Math.min(cost * burst, tokens + ms - last);
      last = ms;
      if (tokens < cost - 1e-3) return false;
      tokens -= cost;
      return true;
    };
  }

  it('let through as many packets as the token bucket of nftables', () => {
    const units = { second: 1000, minute: 60_000, hour: 3_600_000, day: 86_400_000 } as const;
    fc.assert(
      fc.property(
        fc.constantFrom(1, 3, 10, 400, 10_000),
        fc.constantFrom('second', 'minute', 'hour', 'day'),
        fc.constantFrom(1, 5, 100),
        fc.array(fc.double({ min: 0, max: 8, noNaN: true }), { minLength: 20, maxLength: 200 }),
        fc.double({ min: 1, max: 1e9, noNaN: true }),
        (rate, unit, burst, gaps, from) => {
          const ours = bucket(`${rate}/${unit} burst ${burst} packets`);
          const theirs = reference(rate, units[unit], burst);
          let ms = from;
          let passed = 0;
          let expected = 0;
          for (const gap of gaps) {
            ms += (gap ** 3 / 64) * (units[unit] / rate);
            passed += Number(ours.matches(ms));
            expected += Number(theirs(ms));
          }
          // Ticks are rounded: at most one packet is on the other side of an edge.
          assert.ok(Math.abs(passed - expected) <= 1, `${passed} of ${expected}`);
        },
      ),
      { numRuns: 200 },
    );
  });

  it('hold for as long as any limit that can be written takes to fill', () => {
    for (const unit of ['day', 'week']) {
      const { matches } = bucket(`1/${unit} burst 30000 packets`);
      const passed = Array.from({ length: 30_100 }, (_, i) => matches(1e6 + i)).filter(Boolean);
      assert.equal(passed.length, 30_000, unit);
    }
  });

  it('are full again after any idle time, also when the clock of ticks has gone round', () => {
    for (const idleMs of [60_000, 268_435, 600_000, 4_294_967, 1e9, 3e9]) {
      const { matches } = bucket('10/second burst 2 packets');
      assert.deepEqual(
        [1, 1, 1].map(() => matches(5)),
        [true, true, false],
      );
      assert.deepEqual(
        [1, 1, 1].map(() => matches(5 + idleMs)),
        [true, true, false],
        `${idleMs}`,
      );
    }
  });

  it('are asked once for each packet, after all matches, and again where the next rules are', () => {
    const site = new FirewallSite({
      rules: `tcp dport 22 limit rate 3/hour burst 3 packets accept
        tcp dport 23 limit rate over 2/hour burst 2 packets drop
        tcp dport 23 accept
        chain slow { tcp dport 25 accept }
        tcp dport { 25, 26 } limit rate 1/hour burst 1 packets jump slow
        tcp dport 26 accept`,
    });
    const passed = (port: number, count: number): number =>
      Array.from(
        { length: count },
        (_, i) => site.pass(on(0, `tcp 10.0.0.5:${4000 + i} > 198.51.100.7:${port} S`)).length,
      ).reduce((a, b) => a + b, 0);
    assert.equal(passed(80, 10), 0);
    assert.equal(passed(22, 10), 3);
    assert.equal(passed(23, 10), 2);
    assert.equal(passed(25, 10), 1);
    assert.equal(passed(26, 10), 10);
  });

  it('are the same for all workers', () => {
    const { words } = program('limit rate 10/hour burst 10 packets accept');
    const workers = [0, 1].map(() => createLimits(words, () => 5));
    const at = words[words[HEAD.rules] + RULE.limit];
    const passed = Array.from({ length: 30 }, (_, i) => workers[i % 2].matches(at, 0)).filter(Boolean);
    assert.equal(passed.length, 10);
  });
});
