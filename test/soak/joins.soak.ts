import { strict as assert } from 'node:assert';
import { joinCycles } from './join-cycles.js';

const JOINS = 10;

describe('joins under load', function () {
  this.timeout(600_000);

  it(`makes each of ${JOINS} fresh sites equal to the busy one`, async () => {
    const log: string[] = [];
    const result = await joinCycles({ joins: JOINS, packetsPerSecond: 5000, say: (text) => log.push(text) });
    assert.equal(result.joins, JOINS);
    assert.equal(result.mismatches, 0, log.join('\n'));
    assert.ok(result.packets > 0);
  });
});
