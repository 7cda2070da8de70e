/** Tests the messages and the table of first-packets/ without a network. */

import { strict as assert } from 'node:assert';
import type { Figures } from './first-packets.js';
import { answerDns, answeredDns, answeredStun, answerStun, askDns, askStun, DnsType } from './messages.js';
import { table } from './report.js';

const figures = (roundTripMs: number, lost: number, ms: readonly number[]): Figures => ({
  what: 'dns',
  server: { node: 'near', address: '198.51.100.2', roundTripMs },
  sent: lost + ms.length,
  lost,
  reordered: 0,
  pairs: 0,
  split: 0,
  added: ms.map((value) => ({ ms: value, leftMs: Math.max(0, 50 - roundTripMs) })),
});

describe('first packets', () => {
  it('asks and answers in DNS: A and AAAA, each by its id', () => {
    for (const [type, bytes] of [
      [DnsType.A, 4],
      [DnsType.AAAA, 16],
    ]) {
      const answer = answerDns(askDns(7, type));
      assert.ok(answer !== null);
      assert.equal(answeredDns(answer), 7);
      assert.equal(answer.length, askDns(7, type).length + 12 + bytes, 'one record with an address');
    }
    assert.equal(answerDns(askDns(7, 15)), null, 'MX is not asked for');
    assert.equal(answeredDns(askDns(7, DnsType.A)), -1, 'a question is no answer');
  });

  it('asks and answers in STUN: with the endpoint that the server saw', () => {
    const answer = answerStun(askStun(9), '192.0.2.1', 32853);
    assert.ok(answer !== null);
    // RFC 5769 §2.2 has this endpoint, and these octets of it.
    assert.deepEqual(answeredStun(answer), { id: 9, endpoint: 'a147e112a643' });
    assert.equal(answerStun(answer, '192.0.2.1', 1), null);
    assert.equal(answeredStun(askStun(9)), null);
  });

  it('counts over all servers, and times the nearest', () => {
    const cells = [figures(1, 1, [49, 50, 51]), figures(120, 0, [0, 6])].map((each) => ({
      wanMs: 50,
      remedy: 'off' as const,
      figures: each,
    }));
    const [titles, row] = table(cells);
    assert.deepEqual(titles.split(/ {2,}/), ['new flows by', 'delay', 'sent', 'lost', 'left', 'added', 'late']);
    assert.deepEqual(row.split(/ {2,}/).slice(1), ['50 ms', '6', '1', '49 ms', '50 ms', '1']);
  });
});
