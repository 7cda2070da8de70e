import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { createRejectTable, RejectTable } from '../../shm/reject-table.js';

describe('reject table', () => {
  it('counts by address, with the last reason and time, the most first', () => {
    const buffer = createRejectTable();
    const table = new RejectTable(buffer);
    table.note('192.0.2.1', 3, 10);
    table.note('fe80::1234:5678:9abc:def0%interface-name0', 1, 20);
    table.note('fe80::1234:5678:9abc:def0%interface-name0', 2, 30);
    assert.deepEqual(new RejectTable(buffer).rows(), [
      { address: 'fe80::1234:5678:9abc:def0%interface-name0', count: 2, inherited: 0, reason: 2, at: 30 },
      { address: '192.0.2.1', count: 1, inherited: 0, reason: 3, at: 10 },
    ]);
  });

  it('goes on where a dead writer ended', () => {
    const buffer = createRejectTable();
    for (let i = 0; i < 5; i++) new RejectTable(buffer).note(`192.0.2.${i % 2}`, i, i);
    assert.deepEqual(
      new RejectTable(buffer).rows().map(({ address, count }) => [address, count]),
      [
        ['192.0.2.0', 3],
        ['192.0.2.1', 2],
      ],
    );
  });

  it('keeps whoever sends much, and never counts too little, whatever else comes', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 300 }), { minLength: 500, maxLength: 2000 }), (others) => {
        const table = new RejectTable(createRejectTable());
        const truth = new Map<string, number>();
        const note = (address: string): void => {
          table.note(address, 0, 0);
          truth.set(address, (truth.get(address) ?? 0) + 1);
        };
        others.forEach((other, i) => {
          note(`198.51.100.${other}`);
          if (i % 5 === 0) note('203.0.113.9');
        });
        const rows = table.rows();
        assert.equal(rows.length, Math.min(32, truth.size));
        for (const { address, count, inherited } of rows) {
          const real = truth.get(address) ?? 0;
          assert.ok(count >= real && count - inherited <= real, `${address}: ${count} − ${inherited}, really ${real}`);
        }
        assert.ok(rows.some(({ address }) => address === '203.0.113.9'));
        assert.equal(
          rows.reduce((sum, { count }) => sum + count, 0),
          [...truth.values()].reduce((sum, count) => sum + count, 0),
        );
      }),
      { numRuns: 30 },
    );
  });
});
