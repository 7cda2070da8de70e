import { strict as assert } from 'node:assert';
import { needs } from '../support/require.js';
import { compare } from './compare.js';

const RULESETS = 150;
const PACKETS = 40;

describe('firewall beside nftables', function () {
  this.timeout(120_000);

  before(function () {
    needs(this, 'netns', 'tool:nft', 'tool:cc');
  });

  it('does the same with the same rulesets and packets, drawn anew', () => {
    const seed = Math.floor(Date.now() / 10) % 1_000_000_000;
    const report = compare({ rulesets: RULESETS, packets: PACKETS, seed }, `ct-nft-${process.pid}`);
    assert.deepEqual(report.differences, [], `first seed ${seed}`);
    assert.ok(report.rulesets === RULESETS && report.packets >= RULESETS * PACKETS);
    // What is compared says something: packets are let through, dropped, and met by rules.
    assert.ok(report.accepted > report.packets / 10 && report.accepted < report.packets * 0.9, `${report.accepted}`);
    assert.ok(report.matched > report.packets / 10, `${report.matched}`);
  });
});
