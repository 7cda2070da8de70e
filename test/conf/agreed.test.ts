/** The options that must be the same at all sites: none is left out of what members compare. */

import { strict as assert } from 'node:assert';
import { agreedOptions } from '../../conf/agreed.js';
import { parseConfig } from '../../daemon/config/config.js';
import { builtInMiddleboxes } from '../../daemon/config/middleboxes.js';
import { changeOf, type Options } from '../../options/option.js';
import { ALL_SECTIONS } from '../../options/sections.js';

const CONFIG = `
cluster: { id: test, self: a, members: [{ name: a, id: 1, address: 127.0.0.1 }] }
ports: { inside: { interface: in0 }, outside: { interface: out0 } }
middleboxes:
  - nat: { inside: inside, outside: outside, external: [203.0.113.1] }
  - idps: {}
`;

describe('the options that must be the same at all sites', () => {
  let middleboxes: Awaited<ReturnType<typeof builtInMiddleboxes>>;
  before(async () => {
    middleboxes = await builtInMiddleboxes();
  });

  const optionsAt = (index: number): Options =>
    middleboxes.find(({ name }) => name === ['nat', 'idps'][index])?.options ?? assert.fail();

  function agreed(text: string): Map<string, string> {
    const { config, errors } = parseConfig('/etc/c/site.yaml', text, { middleboxes, cores: [0, 1] });
    assert.deepEqual(errors, undefined);
    return new Map(agreedOptions(config ?? assert.fail(), optionsAt).map(({ name, value }) => [name, value]));
  }

  it('are all compared that have an effect, with values that were left out filled in', () => {
    const found = agreed(CONFIG);
    const expected = ALL_SECTIONS.flatMap(({ path, when, options }) =>
      path.includes('*') || (when !== undefined && when !== 'driver: af_xdp')
        ? []
        : Object.entries(options).flatMap(([name, option]) =>
            changeOf(option).kind === 'all-sites' ? [[...path, name].join('.')] : [],
          ),
    );
    for (const [i, name] of ['nat', 'idps'].entries())
      for (const [option, declared] of Object.entries(optionsAt(i)))
        if (changeOf(declared).kind === 'all-sites') expected.push(`middleboxes[${i}].${name}.${option}`);
    const renamed = expected.map((name) => (name === 'cluster.membership' ? 'cluster.membership.kind' : name));
    assert.deepEqual([...found.keys()].sort(), [...renamed, 'middleboxes'].sort());
    assert.equal(found.get('cluster.slots'), '2');
    assert.equal(found.get('transport.mtu_bytes'), '1500B');
    assert.equal(found.get('middleboxes'), 'nat, idps');
  });

  it('each say why', () => {
    const { config } = parseConfig('/etc/c/site.yaml', CONFIG, { middleboxes, cores: [0, 1] });
    for (const { name, reason } of agreedOptions(config ?? assert.fail(), optionsAt)) assert.notEqual(reason, '', name);
  });

  it('are the same however a value is written, and other ones where it is another', () => {
    const same = agreed(CONFIG.replace('self: a,', 'self: a, slots: 2,').concat('transport: { mtu_bytes: 1500 }\n'));
    assert.deepEqual([...same], [...agreed(CONFIG)]);
    const other = agreed(`${CONFIG}transport: { mtu_bytes: 9000 }\n`);
    assert.equal(other.get('transport.mtu_bytes'), '9000B');
  });

  it('never show a secret, and tell two apart', () => {
    const [one, other] = ['abcdefghijklmnop', 'abcdefghijklmnoq'].map((seed) =>
      agreed(`${CONFIG}state: { sketch_seed: ${seed} }\n`).get('state.sketch_seed'),
    );
    assert.notEqual(one, other);
    assert.match(one ?? '', /^secret [0-9a-f]{16}$/);
  });
});
