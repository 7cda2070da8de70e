import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseConfig } from '../../../daemon/config/config.js';
import { builtInMiddleboxes } from '../../../daemon/config/middleboxes.js';
import { RIGHT } from '../../conf/fake-nat.js';
import { PROJECT } from '../../testbed/compile.js';

const MANUAL = join(PROJECT, 'docs/nat.md');
const known = { cores: [0, 1, 2, 5] };

describe('configuration of the NAT', () => {
  it('has the same inside as every other in the chain', async () => {
    const middleboxes = await builtInMiddleboxes();
    const second = (inside: string, outside: string) =>
      parseConfig(
        'f',
        `${RIGHT}  - nat: { inside: ${inside}, outside: ${outside}, external: [203.0.113.2] }\n    name: second\n  - idps: {}\n`,
        { ...known, middleboxes },
      ).errors;
    assert.equal(second('inside', 'outside'), undefined);
    assert.deepEqual(second('outside', 'inside'), [
      'f:12:5: middleboxes[1].nat: port outside is on the other side of nat than of nat before it: in one chain the same ports are inside of all',
    ]);
  });

  it('that contradicts itself is told at the line of each option', async () => {
    const middleboxes = await builtInMiddleboxes();
    const wrong = (options: string, external = '[203.0.113.1]'): readonly string[] => {
      const text = RIGHT.replace('[203.0.113.1]', `${external},\n      ${options}`);
      return (parseConfig('f', text, { ...known, middleboxes }).errors ?? []).map((error) => error.slice(2));
    };
    assert.deepEqual(
      wrong(`static: [tcp 203.0.113.1:80 -> 10.0.0.1:80, udp 203.0.113.1:80 -> 10.0.0.1:80,
               tcp 203.0.113.1:80 -> 10.0.0.2:80]`),
      ['13:16: middleboxes[0].nat.static[2]: contradicts tcp 203.0.113.1:80 → 10.0.0.1:80'],
    );
    assert.deepEqual(wrong('static: [203.0.113.2 -> 10.0.0.1, udp 203.0.113.2:53 -> 10.0.0.2:53]'), [
      '12:41: middleboxes[0].nat.static[1]: contradicts 203.0.113.2 → 10.0.0.1',
    ]);
    assert.deepEqual(wrong('static: [203.0.113.2 -> 10.0.0.1, 203.0.113.3 -> 10.0.0.1]'), [
      '12:41: middleboxes[0].nat.static[1]: contradicts 203.0.113.2 → 10.0.0.1',
    ]);
    assert.deepEqual(wrong('static: [203.0.113.1 -> 10.0.0.1]'), [
      '12:16: middleboxes[0].nat.static[0]: 203.0.113.1 is mapped whole to one internal address, so it cannot be shared: take it out of the external addresses',
    ]);
    assert.deepEqual(wrong('hold_members: 5'), [
      '12:21: middleboxes[0].nat.hold_members: 5 other members, of 1 there are',
    ]);
    assert.deepEqual(wrong('first_port: 9, last_port: 3'), [
      '11:5: middleboxes[0].nat: port range 9–3: ports are 1 to 65535, the first not after the last',
    ]);
    assert.deepEqual(wrong('static: [tcp 203.0.113.1:80 -> 10.0.0.1:80], bypass: [192.0.2.0/24]'), []);
  });

  it('has no external address in a network inside, and names both', async () => {
    const middleboxes = await builtInMiddleboxes();
    const wrong = (networks: string, more = ''): readonly string[] => {
      const text = RIGHT.replace('[203.0.113.1]', `[203.0.113.1],\n      inside_networks: ${networks}${more}`);
      return (parseConfig('f', text, { ...known, middleboxes }).errors ?? []).map((error) => error.slice(2));
    };
    const why = 'an external address of this NAT; name networks that contain none';
    assert.deepEqual(wrong('[10.0.0.0/8, 203.0.113.0/24]'), [
      `12:37: middleboxes[0].nat.inside_networks[1]: 203.0.113.0/24 contains 203.0.113.1, ${why}`,
    ]);
    assert.deepEqual(wrong('[203.0.113.1/32]').length, 1);
    assert.deepEqual(wrong('[198.51.100.0/24]', ', static: [198.51.100.9 -> 10.0.0.1]'), [
      `12:25: middleboxes[0].nat.inside_networks[0]: 198.51.100.0/24 contains 198.51.100.9, ${why}`,
    ]);
    assert.deepEqual(wrong('[10.0.0.0/8, 203.0.113.128/25]'), []);
    assert.deepEqual(wrong('[0.0.0.0/0]'), []);
  });

  it('has no networks inside by default, as the manual says', async () => {
    const middleboxes = await builtInMiddleboxes();
    const { config } = parseConfig('f', RIGHT, { ...known, middleboxes });
    assert.deepEqual(config?.middleboxes[0].options['inside_networks'], []);
    const [row] = readFileSync(MANUAL, 'utf8').match(/^\| `inside_networks` \|.*$/m) ?? [];
    assert.match(row ?? '', /By default, if the inside port has no `next_hop`/);
    assert.match(row ?? '', /these are the subnets of all its IPv4 addresses/);
  });

  it('has no loopback address to translate to', async () => {
    const text = RIGHT.replace('[203.0.113.1]', '[203.0.113.1, 127.0.0.1]');
    const { errors } = parseConfig('f', text, { ...known, middleboxes: await builtInMiddleboxes() });
    assert.equal(errors?.length, 1);
    assert.match(errors[0], /nat\.external\[1\]: 127\.0\.0\.1 is a loopback address; expected one/);
  });

  it('takes a flag or a number for clamp_mss, and nothing else', async () => {
    const middleboxes = await builtInMiddleboxes();
    const parse = (value: string) => {
      const text = RIGHT.replace('[203.0.113.1]', `[203.0.113.1], clamp_mss: ${value}`);
      const { config, errors } = parseConfig('f', text, { ...known, middleboxes });
      return errors?.map((error) => error.replace(/^\S+ /, '')) ?? config?.middleboxes[0].options['clamp_mss'];
    };
    assert.deepEqual(['true', 'false', '1360'].map(parse), [true, false, 1360]);
    assert.deepEqual(parse('much'), [
      'middleboxes[0].nat.clamp_mss: expected true, false or a whole number from 88 to 65495, not "much"',
    ]);
    assert.deepEqual(parse('40'), ['middleboxes[0].nat.clamp_mss: must be at least 88, not 40']);
  });
});
