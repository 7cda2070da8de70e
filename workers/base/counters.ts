/**
 * Counters declared as data: a record of name → one-sentence help. It gives the metric catalogue's
 * entries, and, once the catalogue is known, the column of each counter.
 */

import type { Metric, MetricCatalogue } from '../../shm/metrics.js';

type CounterNames = Readonly<Record<string, string>>;

/** Catalogue entries for declared counters. `prefix` and an underscore precede each name. */
export function counterMetrics(declared: CounterNames, prefix = ''): Metric[] {
  return Object.entries(declared).map(([name, help]) => ({ name: prefixed(prefix, name), help, kind: 'counter' }));
}

export type Columns<Declared extends CounterNames> = { readonly [Name in keyof Declared]: number };

/** Column of each declared counter. Throws if the catalogue was made without them. */
export function columnsOf<const Declared extends CounterNames>(
  catalogue: MetricCatalogue,
  declared: Declared,
  prefix = '',
): Columns<Declared> {
  const columns: Record<string, number> = {};
  for (const name of Object.keys(declared)) columns[name] = catalogue.column(prefixed(prefix, name));
  return columns as Columns<Declared>;
}

function prefixed(prefix: string, name: string): string {
  return prefix === '' ? name : `${prefix}_${name}`;
}
