/**
 * Replication: records end to end, a new flow beside conntrackd (FTFW mode, from Debian's package),
 * and what coalescing saves. Needs root for the namespaces.
 */

import { findTool } from '../support/require.js';
import { type Coalesced, coalescing, traces } from './coalescing.js';
import { type NewFlowCost, newFlows } from './new-flows.js';
import { measureRecords, type RecordFigures } from './records.js';
import type { Bench, BenchResult } from './result.js';

/** Records per second; 0: as fast as possible. */
const RATES = [10_000, 100_000, 0];
const WAN_MS = 50;
/**
 * Least time for new flows, s. The first seconds, while code is compiled, must be only a part of
 * it, because a new flow costs as much as the batch that it arrives in.
 */
const NEW_FLOWS_S_MIN = 5;

export const run: Bench = async ({ seconds }) => {
  const lan = await measureRecords(0, RATES, seconds);
  const wan = await measureRecords(WAN_MS, RATES, seconds);
  return [
    ...RATES.flatMap((rate, i) => recordResults('LAN', rate, lan[i], null)),
    ...RATES.flatMap((rate, i) => recordResults(`${WAN_MS} ms`, rate, wan[i], WAN_MS * 1000)),
    ...newFlowResults(await newFlows(Math.max(seconds, NEW_FLOWS_S_MIN), findTool('conntrackd') !== null)),
    ...traces().flatMap((trace) => coalescing(trace).map(coalescingResult)),
  ];
};

/** `delayUs`: delay of the path, the baseline of a record's time. */
function recordResults(where: string, rate: number, figures: RecordFigures, delayUs: number | null): BenchResult[] {
  const { recordsPerS, sendNs, receiveNs, bytes, lag } = figures;
  const load = rate === 0 ? 'as fast as it goes' : `${rate / 1000} k/s`;
  const figure = (what: string, value: number, unit: string, baseline: number | null = null): BenchResult => ({
    name: `replication/${where}, ${load}, ${what}`,
    value,
    unit,
    baseline,
    ratio: baseline === null ? null : baseline / value,
  });
  return [
    figure('records', recordsPerS / 1000, 'k/s'),
    figure('CPU to send', sendNs / 1000, 'µs/record'),
    figure('CPU to receive', receiveNs / 1000, 'µs/record'),
    figure('on the wire', bytes, 'B/record'),
    figure('lag, median', lag.median / 1000, 'ms', delayUs && delayUs / 1000),
    figure('lag, 99 %', lag.p99 / 1000, 'ms', delayUs && delayUs / 1000),
    figure('lag, most', lag.most / 1000, 'ms', delayUs && delayUs / 1000),
  ];
}

function newFlowResults({ ours, conntrackd }: { ours: NewFlowCost; conntrackd: NewFlowCost | null }): BenchResult[] {
  const rows: readonly [string, string, (cost: NewFlowCost) => number][] = [
    ['CPU to send', 'µs/flow', (cost) => cost.sendNs / 1000],
    ['CPU to receive', 'µs/flow', (cost) => cost.receiveNs / 1000],
    ['on the wire', 'B/flow', (cost) => cost.bytes],
    ['packets', '/flow', (cost) => cost.packets],
  ];
  return rows.flatMap(([what, unit, of]): BenchResult[] => {
    const name = `replication/new flow, ${what}`;
    if (conntrackd === null) return [{ name, value: of(ours), unit, baseline: null, ratio: null }];
    const [value, baseline] = [of(ours), of(conntrackd)];
    return [
      { name: `${name}, conntrackd`, value: baseline, unit, baseline: null, ratio: null },
      { name, value, unit, baseline, ratio: baseline / value },
    ];
  });
}

function coalescingResult({ sketch, trace, windowMs, marks, records }: Coalesced): BenchResult {
  const name = `replication/${sketch}, ${trace}, window ${windowMs} ms`;
  return { name, value: marks / records, unit: 'marks/record', baseline: 1, ratio: marks / records };
}
