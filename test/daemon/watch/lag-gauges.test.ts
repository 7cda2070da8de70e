import { strict as assert } from 'node:assert';
import type { LagRow } from '../../../daemon/views/source.js';
import { lagGauges } from '../../../daemon/watch/lag-gauges.js';

describe('gauges of the lag', () => {
  const row = (origin: string, member: string, missing_records: number, lag_ms: number): LagRow => ({
    ...{ object: 'hits', origin, member, missing_records, lag_ms, error_bound: null },
  });

  it('are one per origin and object: of our own records, of who lacks most', () => {
    const lags = [row('a', 'b', 3, 120.4), row('a', 'c', 7, 80), row('b', 'a', 2, 10), row('c', 'a', 0, 0)];
    const gauges = lagGauges(lags, [{ name: 'hits', unacknowledged_records: 7, error_bound: 9 }], 'a');
    assert.deepEqual(Object.fromEntries(gauges.map(({ name, total }) => [name, total])), {
      'state_lag_records{object="hits",origin="a"}': 7,
      'state_lag_ms{object="hits",origin="a"}': 120,
      'state_lag_records{object="hits",origin="b"}': 2,
      'state_lag_ms{object="hits",origin="b"}': 10,
      'state_lag_records{object="hits",origin="c"}': 0,
      'state_lag_ms{object="hits",origin="c"}': 0,
      'state_unacknowledged_records{object="hits"}': 7,
      'state_error_bound{object="hits"}': 9,
    });
    assert.ok(gauges.every(({ kind }) => kind === 'gauge'));
  });

  it('are none where there is nobody else', () => {
    assert.deepEqual(lagGauges([], [{ name: 'hits', unacknowledged_records: 0, error_bound: 0 }], 'a'), []);
  });
});
