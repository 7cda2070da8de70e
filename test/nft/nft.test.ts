import { strict as assert } from 'node:assert';
import { needs } from '../support/require.js';
import { compare } from './compare.js';

/** `npm run nft` draws others each time, and more of them. */
const SEED = 20_000;
const RULESETS = 300;
const PACKETS = 20;

describe('firewall beside nftables', function () {
  this.timeout(120_000);

  before(function () {
    needs(this, 'netns', 'tool:nft', 'tool:cc');
  });

  it('does the same with the same rulesets and packets', () => {
    const report = compare({ rulesets: RULESETS, packets: PACKETS, seed: SEED }, `ct-nft-${process.pid}`);
    assert.deepEqual(report.differences, []);
    assert.ok(report.rulesets === RULESETS && report.packets >= RULESETS * PACKETS);
    // What is compared says something: packets are let through, dropped, and met by rules.
    assert.ok(report.accepted > report.packets / 10 && report.accepted < report.packets * 0.9, `${report.accepted}`);
    assert.ok(report.matched > report.packets / 10, `${report.matched}`);
  });
});
