import { strict as assert } from 'node:assert';
import { plan, type Topology } from './topology.js';

const TWO: Topology = {
  nodes: {
    left: { routes: ['default via 10.0.0.2'], local: ['10.1.0.0/24'], rules: ['from 10.1.0.2 lookup 100'] },
    right: { forward: true },
  },
  links: [
    {
      name: 'wire',
      ends: [
        { node: 'left', interface: 'to-right', addresses: ['10.0.0.1/30'] },
        { node: 'right', interface: 'to-left', addresses: ['10.0.0.2/30'] },
      ],
    },
  ],
};

describe('testbed/topology', () => {
  it('joins two nodes by a veth pair and enters their neighbours by hand', () => {
    const { links, configure, sysctls } = plan(TWO, (node) => `ns-${node}`);
    assert.deepEqual(links, [
      'link add name to-right netns ns-left address 02:00:00:00:00:01 mtu 1500 ' +
        'type veth peer name to-left netns ns-right address 02:00:00:00:01:01 mtu 1500',
    ]);
    assert.deepEqual(configure.get('left'), [
      'link set dev lo up',
      'link set dev to-right up',
      'addr add 10.0.0.1/30 dev to-right',
      'neigh replace 10.0.0.2 lladdr 02:00:00:00:01:01 dev to-right nud permanent',
      'route add local 10.1.0.0/24 dev lo',
      'route add default via 10.0.0.2',
      'rule add from 10.1.0.2 lookup 100',
    ]);
    assert.equal(sysctls.get('left')?.['ipv4/ip_forward'], 0);
    assert.equal(sysctls.get('right')?.['ipv4/ip_forward'], 1);
  });

  it('leads the ends of a relayed link to the relay, and makes them neighbours across it', () => {
    const wan = {
      name: 'wan',
      relayed: { delay_ms: 50 },
      ends: ['a', 'b', 'c'].map((node, i) => ({ node, interface: 'wan', addresses: [`10.9.0.${i + 1}/24`] })),
    };
    const { nodes, links, configure, segments, interfaces } = plan(
      { nodes: { a: {}, b: {}, c: {} }, links: [wan] },
      (node) => node,
    );
    assert.deepEqual(nodes, ['a', 'b', 'c', 'relay']);
    assert.equal(links.length, 3);
    assert.deepEqual(segments, ['wan=wan.a,wan.b,wan.c']);
    assert.deepEqual(interfaces.get('relay'), ['wan.a', 'wan.b', 'wan.c']);
    const neighbours = configure.get('a')?.filter((command) => command.startsWith('neigh'));
    assert.deepEqual(neighbours, [
      'neigh replace 10.9.0.2 lladdr 02:00:00:00:01:01 dev wan nud permanent',
      'neigh replace 10.9.0.3 lladdr 02:00:00:00:02:01 dev wan nud permanent',
    ]);
  });

  it('refuses what cannot be built, by name', () => {
    const link = TWO.links[0];
    const build = (topology: Topology) => () => plan(topology, (node) => node);
    assert.throws(build({ nodes: { left: {} }, links: [link] }), /no node right/);
    assert.throws(build({ ...TWO, links: [link, link] }), /left\/to-right is there twice/);
    assert.throws(build({ ...TWO, links: [{ ...link, ends: link.ends.slice(1) }] }), /wire has 1 ends/);
    const long = { node: 'left', interface: 'a-name-of-16-chr' };
    assert.throws(build({ ...TWO, links: [{ ...link, ends: [long, link.ends[1]] }] }), /longer than 15/);
  });
});
