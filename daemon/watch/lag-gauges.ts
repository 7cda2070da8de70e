/**
 * The lag as gauges by origin and object. So their number grows with the number of members, not
 * with its square.
 */

import type { CounterRow, LagRow, ObjectRow } from '../views/source.js';

const HELP = {
  state_lag_records:
    'Records of the origin that a member lacks: of another origin, this member; of this one, who lacks most.',
  state_lag_ms: 'For how long that member has not had everything, to a tenth of a second.',
  state_unacknowledged_records:
    'Records of this member that not every member has acknowledged, of those that were numbered.',
  state_error_bound: 'By how much what some member reads may be below what was counted here, of objects that count.',
} as const;

export type Owed = Pick<ObjectRow, 'name' | 'unacknowledged_records' | 'error_bound'>;

/** `self`: this member's name. */
export function lagGauges(lags: readonly LagRow[], objects: readonly Owed[], self: string): CounterRow[] {
  const gauges = new Map<string, CounterRow>();
  const note = (name: keyof typeof HELP, labels: string, value: number): void => {
    const key = `${name}{${labels}}`;
    const total = Math.max(value, gauges.get(key)?.total ?? 0);
    gauges.set(key, { name: key, help: HELP[name], kind: 'gauge', total, threads: [] });
  };
  for (const { object, origin, missing_records, lag_ms } of lags) {
    const labels = `object="${object}",origin="${origin}"`;
    note('state_lag_records', labels, missing_records);
    note('state_lag_ms', labels, Math.round(lag_ms));
  }
  if (lags.some(({ origin }) => origin === self))
    for (const { name, unacknowledged_records, error_bound } of objects) {
      note('state_unacknowledged_records', `object="${name}"`, unacknowledged_records);
      if (error_bound !== null) note('state_error_bound', `object="${name}"`, error_bound);
    }
  return [...gauges.values()];
}
