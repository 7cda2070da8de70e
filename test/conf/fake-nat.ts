import type { MiddleboxDeclaration } from '../../conf/middleboxes.js';

/** A declaration with an option of every kind. */
export const fakeNat: MiddleboxDeclaration = {
  name: 'nat',
  help: 'Translates addresses.',
  options: {
    inside: { kind: 'port', help: 'port on the private side' },
    outside: { kind: 'port', help: 'port on the public side' },
    external: { kind: 'addresses', help: 'public addresses' },
    bypass: { kind: 'prefixes', help: 'networks left alone', default: [] },
    static: { kind: 'mappings', help: 'endpoints by hand', default: [] },
    flows: { kind: 'count', help: 'flows held at most', default: 65_536, min: 16, max: 1 << 24 },
    timeout: { kind: 'seconds', help: 'idle time of a flow', default: 300, min: 120, unit: 's' },
    hairpin: { kind: 'flag', help: 'whether clients reach each other by external address', default: true },
    filtering: { kind: 'choice', help: 'who may answer', choices: ['endpoint', 'address'], default: 'endpoint' },
    note: { kind: 'text', help: 'a remark', default: '' },
  },
  state({ flows, timeout }) {
    if (Number(flows) > 1000 && Number(timeout) > 10_000) throw new RangeError('so many flows cannot last so long');
    return {};
  },
};

export const fakeFirewall: MiddleboxDeclaration = { name: 'firewall', help: 'Filters.', options: {} };

/** A right configuration, to be changed by tests. */
export const RIGHT = `cluster:
  id: demo
  self: b
  members:
    - { name: b, id: 2, address: 127.0.0.12 }
    - { name: a, id: 1, address: 127.0.0.11 }
ports:
  inside: { interface: in0, next_hop: 02:AA:00:00:00:01 }
  outside: { interface: out0 }
middleboxes:
  - nat: { inside: inside, outside: outside, external: [203.0.113.1] }
`;
