/**
 * Rulesets of common shapes: the kernel loads them, import-nft translates what nft lists of them,
 * and both do the same.
 */

import { strict as assert } from 'node:assert';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { importNft } from '../../workers/middleboxes/firewall/import/import-nft.js';
import { needs } from '../support/require.js';
import { PROJECT } from '../testbed/compile.js';
import { compareWhole } from './compare.js';
import { KernelFirewall } from './kernel.js';

const FOLDER = join(PROJECT, 'test', 'nft', 'rulesets');
const PACKETS = 400;
/** In the namespace the interfaces have the names that the rulesets have. */
const PORTS = new Map(['inside', 'outside'].map((name) => [name, name]));

/**
 * The ruleset as one of a machine that forwards. For that, chains about a host itself are about
 * what is forwarded to it, which comes by the port outside, and from it. Addresses are not
 * translated, which is not the firewall's part. What such a ruleset does not say about invalid
 * packets is said here: our rules drop them, and the kernel accepts them.
 */
function forwarding(listed: string): { text: string; inserted: { chain: string; text: string }[] } {
  const inserted: { chain: string; text: string }[] = [];
  let table = '';
  let chain = '';
  const isHost = !/hook forward/.test(listed);
  const lines = listed.split('\n').map((line) => {
    table = /^table (\S+ \S+) \{/.exec(line)?.[1] ?? table;
    chain = /^\tchain (\S+) \{/.exec(line)?.[1] ?? chain;
    const hook = /type filter hook (\w+)/.exec(line)?.[1];
    const insert = (text: string): void => void inserted.push({ chain: `${table} ${chain}`, text });
    if (hook === 'forward') insert('');
    if (!isHost || (hook !== 'input' && hook !== 'output')) return line;
    if (hook === 'input') insert('iifname inside ct state != invalid accept');
    else {
      insert('iifname outside accept');
      insert('ct state invalid drop');
    }
    return line.replace(/hook (input|output)/, 'hook forward');
  });
  return { text: lines.filter((line) => !line.includes('masquerade')).join('\n'), inserted };
}

describe('rulesets of common shapes', function () {
  this.timeout(120_000);
  let kernel: KernelFirewall;

  before(function () {
    needs(this, 'netns', 'tool:nft', 'tool:cc');
    kernel = new KernelFirewall(`ct-sets-${process.pid}`);
  });

  after(() => kernel?.close());

  for (const [n, file] of readdirSync(FOLDER).entries())
    it(`${file}: the kernel and the rules that it is translated to do the same`, () => {
      const listed = kernel.loadWhole(readFileSync(join(FOLDER, file), 'utf8'));
      const { text: rules, leftOut } = importNft(listed, { ports: PORTS });
      assert.deepEqual(
        leftOut.filter(({ changes }) => changes),
        [],
      );
      const { text, inserted } = forwarding(listed);
      kernel.loadWhole(text);
      kernel.insert(inserted, 1 + n);
      const seed = Math.floor(Date.now() / 10) % 1_000_000_000;
      const { differences, accepted, packets } = compareWhole(kernel, rules, {
        seed,
        packets: PACKETS,
        first: n * 4096,
      });
      assert.deepEqual(differences, [], `seed ${seed}\n${rules}`);
      assert.ok(accepted > 0 && accepted < packets, `${accepted} of ${packets} accepted`);
    });
});
