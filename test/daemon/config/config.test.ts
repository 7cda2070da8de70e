import { strict as assert } from 'node:assert';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadConfig, parseConfig } from '../../../daemon/config/config.js';
import { parseCoreList } from '../../../daemon/lifecycle/cores.js';
import { fakeFirewall, fakeNat, RIGHT } from '../../conf/fake-nat.js';

const known = { middleboxes: [fakeNat, fakeFirewall], cores: [0, 1, 2, 5] };

function parse(text: string) {
  return parseConfig('/etc/c/site.yaml', text, known);
}

/** The errors of a text, without the file's name. */
function errors(text: string): readonly string[] {
  return (parse(text).errors ?? []).map((error) => error.replace('/etc/c/site.yaml:', ''));
}

/** The errors after replacing a part of the right configuration. */
function errorsOf(part: string, replacement: string): readonly string[] {
  assert.ok(RIGHT.includes(part), `the right configuration has no ${part}`);
  return errors(RIGHT.replace(part, replacement));
}

describe('configuration that is right', () => {
  it('takes how state is shared', () => {
    const shared = (text: string) => parseConfig('f', `${RIGHT}${text}`, known);
    assert.deepEqual(shared('').config?.shared, { form: 'totals', members: 2, seed: '' });
    const seed = '0123456789abcdef';
    assert.deepEqual(shared(`state: { counting: increments, sketch_seed: ${seed} }\n`).config?.shared, {
      form: 'increments',
      members: 2,
      seed,
    });
    assert.deepEqual(shared('state: { counting: sums, sketch_seed: short }\n').errors, [
      'f:12:20: state.counting: expected totals or increments, not "sums"',
      'f:12:39: state.sketch_seed: must have at least 16 characters, such as `openssl rand -hex 16` prints',
    ]);
  });

  it('fills in defaults, resolves names and orders members by id', () => {
    const { config } = parse(RIGHT);
    assert.ok(config);
    assert.deepEqual(
      config.cluster.members.map((member) => member.id),
      [1, 2],
    );
    assert.equal(config.cluster.self.name, 'b');
    assert.equal(config.cluster.self.slot, 1);
    assert.equal(config.cluster.slots, 2);
    assert.equal(config.transport.kind, 'multicast');
    assert.equal(config.transport.fault, undefined);
    assert.deepEqual(config.threads, { workers: [0], idle: 'sleep' });
    assert.deepEqual(config.packet_io, {
      driver: 'af_xdp',
      mode: 'auto',
      ring_size: 4096,
      frames: 16512,
      ports: [
        { name: 'inside', interface: 'in0', next_hop: '02:aa:00:00:00:01', next_hop6: '02:aa:00:00:00:01' },
        { name: 'outside', interface: 'out0', next_hop: undefined, next_hop6: undefined },
      ],
    });
    assert.equal(config.admin.socket, '/run/constellation/constellation.sock');
    assert.deepEqual(config.middleboxes, [
      {
        name: 'nat',
        options: {
          inside: 0,
          outside: 1,
          // 203.0.113.1 as its bytes lie in a packet, read as a little-endian word
          external: [new Int32Array(new Uint8Array([203, 0, 113, 1]).buffer)[0]],
          bypass: [],
          static: [],
          flows: 65_536,
          timeout: 300,
          hairpin: true,
          filtering: 'endpoint',
          note: '',
        },
      },
    ]);
  });

  it('takes no members from the file where they are in etcd', () => {
    const members = / {2}members:\n( {4}- .*\n)+/;
    const etcd = '  membership: { kind: etcd, endpoints: [http://10.0.0.5:2379] }\n';
    const right = RIGHT.replace(members, `  address: 127.0.0.2\n${etcd}`);
    const { cluster } = parse(right).config ?? assert.fail(errors(right).join());
    assert.deepEqual(cluster.membership, {
      kind: 'etcd',
      endpoints: ['http://10.0.0.5:2379'],
      prefix: '/constellation',
      lease_ttl_s: 10,
    });
    assert.deepEqual([cluster.slots, cluster.self.name, cluster.self.address], [8, 'b', '127.0.0.2']);
    const wrong = (text: string) => errors(text).map((error) => error.replace(/^[\d:]+ /, ''));
    assert.deepEqual(wrong(RIGHT.replace('  members:\n', `${etcd}  members:\n`)), [
      'cluster.address: is required with membership by etcd: the IPv4 address of this member',
      'cluster.members: with membership by etcd the members come from there: leave the list out',
    ]);
    assert.deepEqual(wrong(RIGHT.replace(members, '')), ['cluster.members: is required: a list of all members']);
    assert.deepEqual(wrong(right.replace('http:', 'gopher:')), [
      'cluster.membership.endpoints[0]: expected a URL such as http://10.0.0.5:2379, not "gopher://10.0.0.5:2379"',
    ]);
  });

  it('gives members slots in the order of their ids, or those written', () => {
    const slots = (text: string) => {
      const { cluster } = parse(text).config ?? assert.fail();
      return [cluster.slots, ...cluster.members.map(({ slot }) => slot)];
    };
    assert.deepEqual(slots(RIGHT), [2, 0, 1]);
    assert.deepEqual(slots(RIGHT.replace('id: 1,', 'id: 1, slot: 5,')), [7, 5, 6]);
    assert.deepEqual(slots(RIGHT.replace('self: b', 'self: b\n  slots: 16')), [16, 0, 1]);
    assert.deepEqual(slots(RIGHT.replace(/ {4}- { name: a.*\n/, '')), [2, 0]);
  });

  it('can be sent to another thread', () => {
    const { config } = parse(RIGHT);
    assert.deepEqual(structuredClone(config), config);
  });

  it('asks for a key off loopback, unless told that there is none', () => {
    const open = RIGHT.replaceAll('127.0.0.1', '10.255.0.');
    const keyed = parse(open.replace('self: b', 'self: b\n  key_file: keys/cluster.key')).config;
    assert.equal(keyed?.cluster.keyFile, '/etc/c/keys/cluster.key');
    const insecure = parse(open.replace('self: b', 'self: b\n  insecure: true')).config;
    assert.ok(insecure && insecure.cluster.keyFile === null);
    assert.equal(parse(open).config, undefined);
  });

  it('gives ports their index in the order of the file', () => {
    const { config } = parse(RIGHT.replace('inside: inside, outside: outside', 'inside: outside, outside: inside'));
    assert.equal(config?.middleboxes[0].options['inside'], 1);
    assert.equal(config?.middleboxes[0].options['outside'], 0);
  });

  it('resolves capture files and the socket against its own folder', () => {
    const text = `${RIGHT.replace(/ports:[\s\S]*middleboxes:/, 'middleboxes:')}
packet_io: { driver: pcap, pace: recorded }
ports:
  inside: { in: a.pcap, out: /tmp/b.pcap, mac: 02:00:00:00:00:0A, next_hop: 02:00:00:00:00:03 }
  outside: { mac: 02:00:00:00:00:02, next_hop: 02:00:00:00:00:04 }
admin: { socket: run/admin.sock }
`;
    const { config } = parse(text);
    assert.ok(config, errors(text).join('\n'));
    assert.equal(config.admin.socket, '/etc/c/run/admin.sock');
    assert.ok(config.packet_io.driver === 'pcap');
    assert.deepEqual(config.packet_io.ports[0], {
      name: 'inside',
      in: '/etc/c/a.pcap',
      out: '/tmp/b.pcap',
      mac: '02:00:00:00:00:0a',
      next_hop: '02:00:00:00:00:03',
    });
    assert.equal(config.packet_io.ports[1].in, undefined);
  });

  it('takes a section whose settings are all commented out as an empty one', () => {
    assert.deepEqual(errors(`${RIGHT}log:\n  # level: debug\n`), []);
  });

  it('follows anchors', () => {
    const { config } = parse(RIGHT.replace('id: demo', 'id: &id demo').concat('log: { level: info }\n'));
    assert.equal(config?.cluster.id, 'demo');
  });
});

describe('configuration that is wrong', () => {
  const cases: [what: string, part: string, replacement: string, ...expected: string[]][] = [
    [
      'unknown section',
      'cluster:\n',
      'clutser:\n',
      '1:1: clutser: unknown setting "clutser"; did you mean "cluster"?',
      '1:1: cluster: is required: a mapping',
    ],
    ['unknown key', 'self: b', 'self: b\n  slef: b', '4:3: cluster.slef: unknown setting "slef"; did you mean "self"?'],
    [
      'unknown key far from any other',
      'self: b',
      'self: b\n  quux: b',
      '4:3: cluster.quux: unknown setting "quux"; known here: id, self, members, address, membership, key_file, insecure or slots',
    ],
    ['missing key', '  id: demo\n', '', '2:3: cluster.id: is required: text (put it in quotes)'],
    ['a number for text', 'id: demo', 'id: 17', '2:7: cluster.id: expected text (put it in quotes), not 17'],
    ['self is nobody', 'self: b', 'self: c', '3:9: cluster.self: no member is called c; did you mean "b"?'],
    ['self is nobody near', 'self: b', 'self: london', '3:9: cluster.self: no member is called london; there are b, a'],
    [
      'member id twice',
      'id: 1,',
      'id: 2,',
      '6:22: cluster.members[1].id: id 2 is already taken by member b; every member needs its own',
    ],
    [
      'member name twice',
      'name: a',
      'name: b',
      '6:15: cluster.members[1].name: name b is already taken by cluster.members[0]; every member needs its own',
    ],
    [
      'member address twice',
      '127.0.0.11',
      '127.0.0.12',
      '6:34: cluster.members[1].address: address 127.0.0.12 is already taken by member b; every member needs its own',
    ],
    [
      'member address is multicast',
      '127.0.0.11',
      '239.1.1.1',
      '6:34: cluster.members[1].address: 239.1.1.1 is a multicast address; expected the address of a host',
    ],
    [
      'member address is nobody',
      '127.0.0.11',
      '0.0.0.0',
      '6:34: cluster.members[1].address: 0.0.0.0 cannot be the address of a host',
    ],
    [
      'member address is no address',
      '127.0.0.11',
      '127.0.0.256',
      '6:34: cluster.members[1].address: expected an IPv4 address such as 10.0.0.1, not "127.0.0.256"',
    ],
    ['member id too large', 'id: 1,', 'id: 65536,', '6:22: cluster.members[1].id: must be at most 65535, not 65536'],
    [
      'member is no mapping',
      '{ name: a, id: 1, address: 127.0.0.11 }',
      'a',
      '6:7: cluster.members[1]: expected a mapping, not "a"',
    ],
    [
      'fewer slots than members need',
      '  self: b',
      '  self: b\n  slots: 1',
      '6:22: cluster.members[0].id: there is no slot 1: cluster.slots is 1, counted from 0',
    ],
    [
      'slot twice',
      'id: 2,',
      'id: 2, slot: 0,',
      '5:31: cluster.members[0].slot: slot 0 is already that of cluster.members[1]; every member needs its own',
    ],
    [
      'messages that nothing secures',
      '127.0.0.12',
      '10.255.0.2',
      '2:3: cluster: names no key_file, so whoever can reach 10.255.0.2 could change or read the shared state; make one with constellationd --generate-key FILE, or write insecure: true if nobody else is on that network',
    ],
    [
      'insecure, and with a key',
      '  self: b',
      '  self: b\n  key_file: cluster.key\n  insecure: true',
      '5:13: cluster.insecure: has no meaning beside key_file, which secures the messages; take one of the two out',
    ],
    [
      'key file that is no path',
      '  self: b',
      '  self: b\n  key_file: 7',
      '4:13: cluster.key_file: expected a file path, not 7',
    ],
    [
      'no members',
      'members:\n    - { name: b, id: 2, address: 127.0.0.12 }\n    - { name: a, id: 1, address: 127.0.0.11 }',
      'members: []',
      '3:9: cluster.self: no member is called b; there are none',
      '4:12: cluster.members: must have at least 1 entry',
    ],
    [
      'interface twice',
      'interface: out0',
      'interface: in0',
      '9:25: ports.outside.interface: interface in0 is already taken by port inside',
    ],
    [
      'interface name too long',
      'interface: out0',
      'interface: outside-network-0',
      '9:25: ports.outside.interface: expected the name of a network interface, of up to 15 characters, not "outside-network-0"',
    ],
    [
      'port name',
      '  outside: {',
      '  OUT: {',
      '9:3: ports.OUT: expected a name of up to 31 lower-case letters, digits, "-" or "_" that starts with a letter, not "OUT"',
      '11:37: middleboxes[0].nat.outside: no port is called outside; there are inside, OUT',
    ],
    [
      'one port',
      '  outside: { interface: out0 }\n',
      '',
      '8:3: ports: expected two ports, not 1',
      '10:37: middleboxes[0].nat.outside: no port is called outside; there are inside',
    ],
    [
      'next hop',
      '02:AA:00:00:00:01',
      '10.0.0',
      '8:39: ports.inside.next_hop: expected an IPv4 address such as 10.0.0.1, or a MAC address, not "10.0.0"',
    ],
    [
      'unknown port',
      'outside: outside',
      'outside: outsid',
      '11:37: middleboxes[0].nat.outside: no port is called outsid; did you mean "outside"?',
    ],
    [
      'inside is outside',
      'outside: outside',
      'outside: inside',
      '11:37: middleboxes[0].nat.outside: inside is already port inside; they have to be different ports',
    ],
    [
      'external address twice',
      '[203.0.113.1]',
      '[203.0.113.1, 203.0.113.2, 203.0.113.1]',
      '11:83: middleboxes[0].nat.external[2]: 203.0.113.1 is already given as external[0]',
    ],
    ['no external address', '[203.0.113.1]', '[]', '11:56: middleboxes[0].nat.external: must have at least 1 entry'],
    [
      'network',
      '[203.0.113.1]',
      '[203.0.113.1], bypass: [10.0.0.0/8, 10.0.0.0/33]',
      '11:92: middleboxes[0].nat.bypass[1]: expected an IPv4 network such as 10.0.0.0/8, a range such as 10.0.0.1-10.0.0.9, or an address, not "10.0.0.0/33"',
    ],
    [
      'network with bits behind it',
      '[203.0.113.1]',
      '[203.0.113.1], bypass: [10.0.1.0/23]',
      "11:80: middleboxes[0].nat.bypass[0]: 10.0.1.0/23 has bits set behind the network's: write the network's first address, 10.0.0.0/23",
    ],
    [
      'mapping',
      '[203.0.113.1]',
      '[203.0.113.1], static: ["tcp 1.2.3.4:80 > 10.0.0.1:80"]',
      '11:80: middleboxes[0].nat.static[0]: expected a mapping such as "tcp 203.0.113.1:80 -> 10.0.0.5:8080" or "203.0.113.2 -> 10.0.0.6", not "tcp 1.2.3.4:80 > 10.0.0.1:80"',
    ],
    [
      'port of a mapping',
      '[203.0.113.1]',
      '[203.0.113.1], static: ["tcp 1.2.3.4:0 -> 10.0.0.1:80"]',
      '11:80: middleboxes[0].nat.static[0]: "tcp 1.2.3.4:0 -> 10.0.0.1:80" has a port that is none: they are 1 to 65535',
    ],
    [
      'external address missing',
      ', external: [203.0.113.1]',
      '',
      '11:10: middleboxes[0].nat.external: is required: a list',
    ],
    [
      'count out of range',
      '[203.0.113.1]',
      '[203.0.113.1], flows: 1',
      '11:78: middleboxes[0].nat.flows: must be at least 16, not 1',
    ],
    [
      'choice',
      '[203.0.113.1]',
      '[203.0.113.1], filtering: none',
      '11:82: middleboxes[0].nat.filtering: expected endpoint or address, not "none"',
    ],
    [
      'flag',
      '[203.0.113.1]',
      '[203.0.113.1], hairpin: 1',
      '11:80: middleboxes[0].nat.hairpin: expected true or false, not 1',
    ],
    [
      'unknown middlebox',
      '- nat:',
      '- natt:',
      '11:5: middleboxes[0].natt: unknown setting "natt"; did you mean "nat"?',
    ],
    [
      'two middleboxes in one entry',
      '[203.0.113.1] }',
      '[203.0.113.1] }\n    firewall: {}',
      '11:5: middleboxes[0]: expected one middlebox per entry of the list: nat or firewall',
    ],
    [
      'a middlebox twice',
      '  - nat:',
      '  - firewall: {}\n  - firewall: {}\n  - nat:',
      '12:5: middleboxes[1]: firewall is already run by middleboxes[0]; its state and counters carry its name: give this one another, by name: beside it',
    ],
  ];

  for (const [what, part, replacement, ...expected] of cases) {
    it(what, () => assert.deepEqual(errorsOf(part, replacement), expected));
  }

  const added: [what: string, section: string, expected: string][] = [
    [
      'group is not multicast',
      'transport: { group: 10.0.0.0 }',
      'transport.group: 10.0.0.0 is not a multicast address; take one in 239.0.0.0/8, for private use',
    ],
    [
      'group is reserved',
      'transport: { group: 224.0.0.9 }',
      'transport.group: 224.0.0.9 is in 224.0.0.0/24, which is kept for routing protocols; take one in 239.0.0.0/8',
    ],
    [
      'groups run out',
      'transport: { group: 239.255.255.200 }',
      'transport.group: the 256 groups after 239.255.255.200 must be multicast addresses too',
    ],
    ['mtu too small', 'transport: { mtu_bytes: 576 }', 'transport.mtu_bytes: must be at least 1280, not 576'],
    ['mtu too large', 'transport: { mtu_bytes: 9217 }', 'transport.mtu_bytes: must be at most 9216, not 9217'],
    ['kind', 'transport: { kind: broadcast }', 'transport.kind: expected multicast or unicast, not "broadcast"'],
    ['port', 'transport: { port: seven }', 'transport.port: expected a whole number, not "seven"'],
    ['share', 'transport: { fault: { loss: 2 } }', 'transport.fault.loss: must be at most 1, not 2'],
    [
      'acknowledgements later than keepalives',
      'replication: { ack_delay_ms: 300 }',
      'replication.ack_delay_ms: must be below keepalive_ms (200), not 300',
    ],
    ['rare', 'replication: { keepalive_ms: 9s }', 'replication.keepalive_ms: must be at most 1000, not "9s" (9000)'],
    ['no such core', 'threads: { workers: [0, 3] }', 'threads.workers[1]: this machine has no core 3; it has 0-2, 5'],
    ['no such core to send', 'threads: { send: 4 }', 'threads.send: this machine has no core 4; it has 0-2, 5'],
    [
      'core twice',
      'threads: { workers: [1, 1] }',
      'threads.workers[1]: core 1 is already taken by worker 0; every worker needs its own',
    ],
    ['driver', 'packet_io: { driver: dpdk }', 'packet_io.driver: expected af_xdp or pcap, not "dpdk"'],
    ['no driver', 'packet_io: { mode: auto }', 'packet_io.driver: is required: af_xdp or pcap'],
    [
      'ring size',
      'packet_io: { driver: af_xdp, ring_size: 1000 }',
      'packet_io.ring_size: must be a power of two, such as 512 or 1024, not 1000',
    ],
    [
      'frames',
      'packet_io: { driver: af_xdp, frames: 4096 }',
      'packet_io.frames: 2 ports with rings of 4096 need at least 8192 frames, not 4096; ask for more, or for smaller rings',
    ],
    [
      'socket path',
      `admin: { socket: /${'s'.repeat(110)} }`,
      'admin.socket: the path of a Unix socket has at most 107 bytes, and this one, from the root, has 111',
    ],
    [
      'relative socket path',
      `admin: { socket: ${'s'.repeat(100)} }`,
      'admin.socket: the path of a Unix socket has at most 107 bytes, and this one, from the root, has 107',
    ],
    ['level', 'log: { level: loud }', 'log.level: expected trace, debug, info, warn, error or fatal, not "loud"'],
  ];

  for (const [what, section, expected] of added) {
    it(what, () => {
      const found = errors(RIGHT + section);
      if (what === 'relative socket path') assert.deepEqual(found, []);
      else
        assert.deepEqual(
          found.map((error) => error.replace(/^\d+:\d+: /, '')),
          [expected],
        );
    });
  }

  it('files that would destroy each other', () => {
    const text = `${RIGHT.replace(/ports:[\s\S]*middleboxes:/, 'middleboxes:')}
packet_io: { driver: pcap }
threads: { workers: [0, 1] }
ports:
  inside: { in: a.pcap, out: b.pcap, mac: 02:00:00:00:00:0A, next_hop: 02:00:00:00:00:03 }
  outside: { in: ./b.pcap, out: ./b.pcap, mac: 02:00:00:00:00:0a, next_hop: 02:00:00:00:00:04 }
`;
    assert.deepEqual(errors(text), [
      '11:21: threads.workers: a capture file has one queue, so the pcap driver runs one worker, not 2',
      '13:30: ports.inside.out: /etc/c/b.pcap is also read; writing would destroy it',
      '14:33: ports.outside.out: /etc/c/b.pcap is already written by port inside',
      '14:33: ports.outside.out: /etc/c/b.pcap is also read; writing would destroy it',
      '14:48: ports.outside.mac: MAC address 02:00:00:00:00:0a is already taken by port inside',
    ]);
  });

  it('says the settings of the driver asked for', () => {
    const found = errors(`${RIGHT}packet_io: { driver: pcap }\n`);
    assert.ok(
      found.includes('8:13: ports.inside.interface: unknown setting "interface"; known here: in, out, mac or next_hop'),
    );
    assert.ok(found.includes('9:12: ports.outside.mac: is required: a MAC address such as 02:00:00:00:00:01'));
  });

  it('options that contradict each other', () => {
    assert.deepEqual(errorsOf('[203.0.113.1]', '[203.0.113.1], flows: 2000, timeout: 20000'), [
      '11:5: middleboxes[0].nat: so many flows cannot last so long',
    ]);
  });

  it('reports many errors in the order of the file', () => {
    const text = RIGHT.replace('id: demo', 'id: 1')
      .replace('id: 1,', 'id: x,')
      .replace('out0', 'in0')
      .concat('extra: 1\n');
    const found = errors(text);
    assert.deepEqual(
      found.map((error) => error.split(': ')[1]),
      ['cluster.id', 'cluster.members[1].id', 'ports.outside.interface', 'extra'],
    );
  });
});

describe('YAML that is wrong', () => {
  it('duplicate key', () => {
    assert.deepEqual(errors(`${RIGHT}log: {}\nlog: { level: x }\n`), [
      '13:1: the key "log" is given twice in one mapping; remove one of the two',
      '13:15: log.level: expected trace, debug, info, warn, error or fatal, not "x"',
    ]);
  });

  for (const [what, text, place] of [
    ['unclosed bracket', 'cluster: [a, b\n', '2:1'],
    ['tab', 'cluster:\n\tid: x\n', '2:1'],
    ['unclosed quote', 'cluster: "x\n', '2:1'],
    ['two documents', `${RIGHT}---\n${RIGHT}`, '12:1'],
    ['unknown alias', 'cluster: *nobody\n', '1:10'],
    ['unknown tag', `${RIGHT}log: !loud { level: info }\n`, '12:6'],
    ['alias bomb', bomb(), '1:1'],
  ]) {
    it(what, () => {
      const [first = ''] = errors(text);
      assert.match(first, /^\d+:\d+: not valid YAML: /);
      assert.ok(first.startsWith(`${place}:`), first);
    });
  }

  it('empty, a list, a word', () => {
    assert.deepEqual(errors(''), ['1:1: expected a mapping with the configuration; the file is empty']);
    assert.deepEqual(errors('- a'), ['1:1: expected a mapping with the configuration; this is a list']);
    assert.deepEqual(errors('word'), ['1:1: expected a mapping with the configuration; this is a text']);
  });

  it('keys that mean something to JavaScript', () => {
    for (const key of ['__proto__', 'constructor', 'toString', 'hasOwnProperty']) {
      const found = errors(`${RIGHT}${key}: { a: 1 }\n`);
      assert.equal(found.length, 1, key);
      assert.match(found[0], /^12:1: .*unknown setting/);
    }
  });
});

describe('configuration file', () => {
  let folder = '';
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'constellation-config-'));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  it('is read', async () => {
    const file = join(folder, 'right.yaml');
    writeFileSync(file, RIGHT);
    const { config } = await loadConfig(file, known);
    assert.equal(config?.file, file);
  });

  it('that cannot be read is an error, not an exception', async () => {
    const binary = join(folder, 'binary.yaml');
    writeFileSync(binary, Buffer.from([0x63, 0xff, 0xfe, 0x00]));
    const large = join(folder, 'large.yaml');
    writeFileSync(large, '#'.repeat(1024 * 1024 + 1));
    const pipe = join(folder, 'pipe.yaml');
    execFileSync('mkfifo', [pipe]);
    for (const [file, why] of [
      [join(folder, 'none.yaml'), /ENOENT/],
      [folder, /it is not a regular file/],
      ['/dev/zero', /it is not a regular file/],
      [pipe, /it is not a regular file/],
      [binary, /it is not UTF-8 text/],
      [large, /it has \d+ bytes, and may have 1048576 at most/],
    ] as const) {
      const { errors = [] } = await loadConfig(file, known);
      assert.equal(errors.length, 1);
      assert.ok(errors[0].startsWith(`${file}: cannot be read: `));
      assert.match(errors[0], why);
    }
  });
});

describe('list of cores', () => {
  it('is read as the kernel writes it', () => {
    assert.deepEqual(parseCoreList('0-2,5\n'), [0, 1, 2, 5]);
    assert.deepEqual(parseCoreList('0\n'), [0]);
    assert.throws(() => parseCoreList('all'), /not a list of cores/);
  });
});

function bomb(): string {
  const lines = ['a: &a [x, x, x, x, x, x, x, x, x]'];
  for (let i = 1; i < 9; i++) {
    const before = String.fromCharCode(96 + i);
    const name = String.fromCharCode(97 + i);
    lines.push(`${name}: &${name} [${Array.from({ length: 9 }, () => `*${before}`).join(', ')}]`);
  }
  return `${lines.join('\n')}\n`;
}
