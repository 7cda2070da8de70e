import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { importNft } from '../../../../workers/middleboxes/firewall/import/import-nft.js';
import { parseRules } from '../../../../workers/middleboxes/firewall/parser.js';
import { PROJECT } from '../../../testbed/compile.js';
import { FirewallSite } from '../../support/firewall-site.js';
import { on } from '../../support/plane.js';

const PROGRAM = fileURLToPath(new URL('../../../../daemon/constellation.js', import.meta.url));
const RULESETS = join(PROJECT, 'test', 'nft', 'rulesets');
const PORTS = new Map([
  ['eth0', 'outside'],
  ['eth1', 'inside'],
]);

const OPEN = 'ct state established,related accept';

/** The rules of a chain of hook forward, without the head and what lets open connections pass. */
function translated(rules: string, rest = ''): { lines: string[]; leftOut: string[] } {
  const text = `table inet filter {\n${rest}\nchain forward {\ntype filter hook forward priority 0; policy drop;\n${OPEN}\n${rules}\n}\n}`;
  const { text: made, leftOut } = importNft(text, { ports: PORTS });
  const lines = made
    .split('\n')
    .filter((line) => line !== '' && line !== OPEN && (!line.startsWith('#') || line.includes('left out')));
  return { lines, leftOut: leftOut.map(({ line, why, changes }) => `${line}${changes ? '!' : ''} ${why}`) };
}

/** What a chain of hook forward with the policy drop becomes, and what is reported as a change. */
function imported(rules: string): { lines: string[]; leftOut: string[] } {
  const { text, leftOut } = importNft(
    `table inet f { chain c { type filter hook forward priority 0; policy drop; ${rules} } }`,
  );
  return {
    lines: text.split('\n').filter((line) => line !== '' && !line.startsWith('#')),
    leftOut: leftOut.filter(({ changes }) => changes).map(({ why }) => why),
  };
}

describe('import-nft', () => {
  for (const file of readdirSync(RULESETS))
    it(`makes rules that load of ${file}`, () => {
      const { text, ports, leftOut } = importNft(readFileSync(join(RULESETS, file), 'utf8'));
      const { set, notes } = parseRules(text, ports);
      assert.ok((set?.written.length ?? 0) >= 3, text);
      assert.deepEqual(
        notes?.map(({ line, message }) => `${line}: ${message}`),
        [],
      );
      // One ruleset writes a prefix with bits behind it, which nft itself does not print so.
      const changing = leftOut.filter(({ changes }) => changes).map(({ why }) => why);
      assert.ok(
        changing.every((why) => why.includes('has bits set behind its prefix')),
        changing.join(),
      );
    });

  for (const [rule, ...expected] of [
    ['iifname "eth1" accept', 'iifname "inside" accept'],
    ['iifname { "eth0", "eth1" } accept', 'iifname { "outside", "inside" } accept'],
    ['iifname { "eth1", "docker0" } accept', 'iifname "inside" accept'],
    ['meta oifname "eth*" accept', 'meta oifname { "outside", "inside" } accept'],
    ['iifname != "lo" tcp dport 22 accept', 'tcp dport 22 accept'],
    ['iifname != { "lo", "eth0" } accept', 'iifname != "outside" accept'],
    ['meta iifname != "lo" udp dport 53 accept', 'udp dport 53 accept'],
    [
      'iifname vmap { "lo" : accept, "eth0": drop, "eth1" : accept }',
      'iifname vmap { "outside": drop, "inside" : accept }',
    ],
    ['iifname ne "lo" tcp dport 22 accept', 'tcp dport 22 accept'],
    ['iifname vmap { * : drop, "eth1" : accept }', 'iifname vmap { * : drop, "inside" : accept }'],
    ['tcp dport 22 accept # of the administrators', 'tcp dport 22 accept'],
    ['tcp dport 22 counter # handle 7', 'tcp dport 22 counter'],
    ['log prefix "x" group 2 snaplen 100 level info drop', 'log prefix "x" level info drop'],
    ['log flags tcp sequence,options flags ip options counter name "c" drop', 'log counter drop'],
  ] as const)
    it(`translates ${rule}`, () => {
      assert.deepEqual(translated(rule).lines, ['policy drop', ...expected]);
    });

  for (const [rule, ...expected] of [
    ['iifname "lo" accept', '5 no packet comes by this interface'],
    ['ct status dnat accept', '5! "ct status" is not possible: of a connection only its state can be asked'],
    ['meta mark set 0x1', '5 "meta mark" is not possible: packets have no marks here'],
    ['xt match "comment" drop', '5! "xt" is not possible: an extension of iptables has no text: write what it matches'],
    [
      'iifname . oifname { "eth0" . "eth1" } drop',
      '5! a concatenation (".") is not possible: write a rule for each pair',
    ],
    ['fib saddr . iif oif missing drop', '5! a concatenation (".") is not possible: write a rule for each pair'],
    [
      'fib daddr type local iifname "lo" drop',
      '5! "fib" is not possible: routes are not asked: write the addresses that can come in by a port (ip saddr != 10.0.0.0/8 drop)',
    ],
    ['iifname { $lan, "lo" } drop', '5! "lan" stands among interfaces: write the names'],
    ['iif & 1 == 1 drop', '5! "&" is no name of an interface'],
    [
      'ip saddr 10.0.0.0/8 # xt_set counter packets 0 bytes 0 accept',
      '5! "# xt_set counter packets 0 bytes 0 ac..." may be a part of a rule that nft could not print',
    ],
    ['# xt_set counter packets 0 bytes 0 drop', '5! may be a part of a rule that nft could not print'],
    ['ct state established drop', '5! what is established passes without asking the rules: the rule would do nothing'],
    [
      'ct state established counter',
      '5 what is established passes without asking the rules: the rule would do nothing',
    ],
    ['tcp dport 22 jump nowhere', '5! there is no chain "nowhere" in its table'],
    [
      'ip saddr @dyn drop',
      '3 "update" is not possible: rules change no sets: write its elements, and reload the rules to change them',
      '10! it uses "dyn", which was left out: "update" is not possible: rules change no sets: write its elements, and reload the rules to change them',
    ],
  ] as const)
    it(`leaves out ${rule}, and says why`, () => {
      const rest = rule.includes('@dyn')
        ? 'set dyn {\ntype ipv4_addr\nsize 100\nflags dynamic,timeout\ntimeout 1h\n}'
        : '';
      const { leftOut } = translated(rule, rest);
      assert.deepEqual(
        leftOut.map((each) => each.replace(/^\d+/, '')),
        expected.map((each) => each.replace(/^\d+/, '')),
      );
    });

  it('leaves the branch for open connections out of a map, and says that the others decide', () => {
    const { lines, leftOut } = translated('ct state vmap { established : drop, related : accept, new : accept }');
    assert.deepEqual(lines, ['policy drop', 'ct state vmap { related : accept, new : accept }']);
    assert.deepEqual(leftOut, ['6! what is established passes without asking the rules: the rule would do nothing']);
  });

  for (const [what, changes, rest] of [
    ['a drop in prerouting', true, 'chain c { type filter hook prerouting priority raw; ip saddr 10.0.0.0/8 drop }'],
    ['a reject behind a jump', true, 'chain d { reject }\nchain c { type filter hook postrouting priority 0; jump d }'],
    [
      'a drop in a map',
      true,
      'map m { type inet_service : verdict; elements = { 22 : drop } }\nchain c { type filter hook prerouting priority 0; tcp dport vmap @m }',
    ],
    ['a policy', true, 'chain c { type filter hook ingress device "eth0" priority 0; policy drop; }'],
    ['a drop in a comment', true, 'chain c { type filter hook prerouting priority 0\n# xt_set counter drop\n}'],
    ['an accept', false, 'chain c { type filter hook prerouting priority 0; tcp dport 22 accept }'],
    ['what is about the host', false, 'chain c { type filter hook input priority 0; policy drop; }'],
    ['a bridge', true, '}\ntable bridge b { chain c { type filter hook forward priority 0; ip saddr 10.0.0.1 drop }'],
    [
      'frames to the host',
      false,
      '}\ntable bridge b { chain c { type filter hook input priority 0; ip saddr 10.0.0.1 drop }',
    ],
    ['a device', true, '}\ntable netdev n { chain c { type filter hook ingress device "eth0" priority 0; drop }'],
  ] as const)
    it(`says whether chains of other hooks refuse packets: ${what}`, () => {
      const { leftOut } = importNft(
        `table inet f {\nchain f { type filter hook forward priority 0; accept }\n${rest}\n}`,
      );
      assert.deepEqual(
        [...new Set(leftOut.map((each) => each.changes))].includes(true),
        changes,
        JSON.stringify(leftOut),
      );
      assert.ok(leftOut.length > 0);
    });

  it('keeps names of interfaces that end with "*", where no word says which are ports', () => {
    const { text, ports, leftOut } =
      importNft(`table inet f { chain f { type filter hook forward priority 0; policy accept
 ${OPEN}
 iifname "ppp*" tcp dport 22 drop\niifname != "wg*" tcp dport 23 drop\niifname "eth1" oifname "eth*" drop } }`);
    assert.deepEqual(
      text.split('\n').filter((line) => line !== '' && !line.startsWith('#')),
      [
        'policy accept',
        OPEN,
        'iifname "ppp*" tcp dport 22 drop',
        'iifname != "wg*" tcp dport 23 drop',
        'iifname "eth1" oifname "eth*" drop',
      ],
    );
    assert.deepEqual(ports, ['eth1', 'ppp0', 'wg0']);
    assert.deepEqual(leftOut, []);
  });

  it('has a packet accepted by all base chains, in the order of their priority, each for its IP version', () => {
    const { text } =
      importNft(`table ip a { chain fwd { type filter hook forward priority filter + 5; policy drop; tcp dport 80 accept } }
table inet b { chain fwd { type filter hook forward priority -10; jump c; tcp dport 22 drop }
 chain c { udp dport 53 accept } }`);
    assert.deepEqual(
      text.split('\n').filter((line) => line !== '' && !line.startsWith('#')),
      [
        'chain fwd {',
        '  tcp dport 80 accept',
        '  ct state related drop',
        '  drop',
        '}',
        'chain after-fwd {',
        '  meta nfproto ipv4 goto fwd',
        '  meta nfproto ipv6 accept',
        '}',
        'chain c {',
        '  udp dport 53 goto after-fwd',
        '}',
        'chain b-fwd {',
        '  jump c',
        '  tcp dport 22 drop',
        '  goto after-fwd',
        '}',
        'policy drop',
        'goto b-fwd',
      ],
    );
  });

  it('has what leaves a base chain early meet its policy, and prints maps for those that use them', () => {
    const { text, ports, leftOut } = importNft(`table inet f {
 map m { type inet_service : verdict; elements = { 22 : jump own, 23 : accept } }
 chain own { tcp sport 1000 accept }
 chain first { type filter hook forward priority 0; policy accept; ${OPEN}; tcp dport 80 return; udp dport 53 goto short; tcp dport 81 drop }
 chain short { udp sport 53 drop }
 chain second { type filter hook forward priority 1; policy drop; ${OPEN}; ip saddr 10.0.0.5 tcp dport vmap @m; tcp dport 80 accept; udp dport 53 accept }
 chain third { type filter hook forward priority 2; policy drop; ${OPEN}; tcp dport vmap @m; tcp dport 80 accept; udp dport 53 accept }
}`);
    assert.deepEqual(leftOut, []);
    assert.match(text, /chain first-rules \{\n {2}ct state established,related goto second\n {2}tcp dport 80 return\n/);
    assert.match(text, /chain first \{\n {2}jump first-rules\n {2}goto second\n\}/);
    assert.deepEqual(ports, ['inside', 'outside']);
    const passes = ['udp 53 1', 'udp 53 53', 'tcp 80 1', 'tcp 81 1', 'tcp 22 1000', 'tcp 22 1', 'tcp 23 1'].map(
      (packet) => {
        const [protocol, dport, sport] = packet.split(' ');
        const end = protocol === 'tcp' ? ' S' : '';
        return new FirewallSite({ rules: text }).pass(
          on(0, `${protocol} 10.0.0.5:${sport} > 198.51.100.7:${dport}${end}`),
        ).length;
      },
    );
    assert.deepEqual(passes, [1, 0, 1, 0, 1, 0, 1]);
  });

  it('takes the only interface of a host for its port outside, and asks if there are several', () => {
    const input = (rules: string): string =>
      `table ip f { chain in { type filter hook input priority 0; policy drop; ${OPEN}; ${rules} } }`;
    for (const name of ['eth0', 'eth*']) {
      const { text, ports, leftOut } = importNft(input(`iifname "${name}" tcp dport 22 accept`));
      assert.match(text, /\n {2}iifname "outside" tcp dport 22 accept\n/);
      assert.deepEqual([ports, leftOut], [['inside', 'outside'], []]);
    }
    assert.throws(() => importNft(input('iifname { "eth0", "eth1" } accept')), {
      message: 'which of eth0, eth1 is the port outside? Say it, as in eth0=outside',
    });
  });

  it('joins blocks of one name, and reads bridges whatever their priorities are called', () => {
    const { text, leftOut } =
      importNft(`table inet f { chain c { type filter hook forward priority 0; policy drop; ${OPEN}; } }
table bridge b { chain c { type filter hook postrouting priority out; policy accept; } }
table inet f { chain c { tcp dport 22 accept; jump d } }
table inet f { chain d { tcp dport 23 accept } }`);
    assert.match(
      text,
      /chain d \{\n {2}tcp dport 23 accept\n\}\n\npolicy drop\nct state established,related accept\ntcp dport 22 accept\njump d\n$/,
    );
    assert.deepEqual(
      leftOut.map(({ what, changes }) => [what, changes]),
      [['table bridge b', false]],
    );
  });

  for (const [rules, ...expected] of [
    [`${OPEN}; ip saddr 10.0.0.1 drop`],
    ['ct state vmap { established : accept, related : accept, invalid : drop }; ip saddr 10.0.0.1 drop'],
    ['jump open; ip saddr 10.0.0.1 drop'],
    ['ip saddr 10.0.0.1 accept; ip saddr 10.0.0.1 tcp dport 22 drop; jump open'],
    ['ct state { new, invalid } ip saddr 10.0.0.1 drop; jump open'],
    ['ip saddr 10.0.0.1 drop; jump open', 'ip saddr 10.0.0.1 drop: established and related'],
    ['tcp dport 22 jump deny; jump open', 'drop: established and related'],
    ['ct state established accept; tcp dport 22 drop; jump open', 'tcp dport 22 drop: related'],
    [
      'tcp dport 1 return; jump open; tcp dport 1-9 drop',
      'policy drop: established and related',
      'tcp dport 1-9 drop: established and related',
    ],
    [
      'ct state established,new tcp dport 22 drop; jump open',
      'ct state established,new tcp dport 22 drop: established',
    ],
    ['ip saddr 10.0.0.1 jump open', 'policy drop: established and related'],
  ] as const)
    it(`says which refusals packets of open connections do not meet: ${rules}`, () => {
      const { leftOut } = importNft(`table inet f {
 chain open { ${OPEN} }\nchain deny { drop }
 chain c { type filter hook forward priority 0; policy drop; ${rules} } }`);
      const told = leftOut.flatMap(({ what, why, changes }) => {
        const states = /^packets that are (.*) do not meet it here/.exec(why)?.[1];
        return states !== undefined && changes ? [`${what}: ${states}`] : [];
      });
      assert.deepEqual(told.toSorted(), expected.toSorted());
    });

  it('has related packets meet the policy where no rule names them', () => {
    const { lines, leftOut } = imported('ct state established accept; icmp type echo-request accept');
    assert.deepEqual(lines.slice(-2), ['icmp type echo-request accept', 'ct state related drop']);
    assert.deepEqual(leftOut, [
      'no rule names related packets: they meet it, also those that a rule without a state accepts',
    ]);
    assert.deepEqual(imported('ct state established accept; ct state new tcp dport 22 accept').leftOut, []);
    assert.deepEqual(imported(`${OPEN}; tcp dport 22 accept`).lines, ['policy drop', OPEN, 'tcp dport 22 accept']);
  });

  it('takes what a host allows to come in and to go out, for an instance in front of it', () => {
    const { text, ports, leftOut } = importNft(
      `table inet f {
 chain in { type filter hook input priority 0; policy drop; ${OPEN}; iifname "lo" accept; tcp dport 22 accept; }
 chain fw { type filter hook forward priority 0; policy drop; }
 chain out { type filter hook output priority 0; policy accept; }
}`,
      { hook: 'host' },
    );
    assert.match(
      text,
      /chain in \{\n.*\n.*"lo".*\n {2}tcp dport 22 accept\n {2}drop\n\}\n\niifname "outside" goto in\n/,
    );
    assert.match(text, /chain out \{\n {2}accept\n\}\n\niifname "inside" goto out\n/);
    assert.deepEqual(ports, ['inside', 'outside']);
    assert.deepEqual(
      leftOut.map(({ what }) => what),
      ['iifname "lo" accept', 'chain fw'],
    );
  });

  it('is a command that needs no instance', () => {
    const run = (input: string, ...words: string[]): { status: number | null; stdout: string; stderr: string } => {
      const { status, stdout, stderr } = spawnSync(process.execPath, [PROGRAM, 'import-nft', ...words], {
        input,
        encoding: 'utf8',
      });
      return { status, stdout, stderr };
    };
    const good = run('', join(RULESETS, 'office.nft'));
    assert.equal(good.status, 0, good.stderr);
    assert.match(good.stdout, /\nchain lan_to_wan \{\n/);
    assert.match(good.stderr, /office\.nft: ports of the configuration: inside, outside\n$/);
    const partly = run(
      'table inet f {\nchain c {\ntype filter hook forward priority 0;\nmeta mark 1 drop\n}\n}',
      '-',
      'eth0=inside',
    );
    assert.equal(partly.status, 1);
    assert.match(
      partly.stderr,
      /^-:4: left out: meta mark 1 drop: "meta mark" is not possible: packets have no marks here\n/,
    );
    assert.match(partly.stdout, /\n# line 4: meta mark 1 drop -- left out: /);
    for (const [status, says, ...words] of [
      [2, /which file\?/],
      [2, /"eth0" is no INTERFACE=PORT/, '-', 'eth0'],
      [2, /hook is forward or host, not "input"/, '-', 'hook=input'],
      [1, /there is no table/, '-'],
      [1, /ENOENT/, '/nowhere.nft'],
    ] as const) {
      const { status: code, stderr } = run('', ...words);
      assert.equal(code, status, stderr);
      assert.match(stderr, says);
    }
  });
});
