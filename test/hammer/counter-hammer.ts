/** What the counters' hammer and its threads agree on: few cells, so that everything collides. */

import type { LogProducer } from '../../shm/log.js';
import { createJournals, Journal } from '../../shm/objects/core/journal.js';
import { type CounterCells, counterCells, type WireForm } from '../../shm/objects/counting/counter-cells.js';
import { Region } from '../../shm/region.js';

export const HAMMER_ID = 4;
export const CELLS = 64;
export const WORKERS = 4;
export const RECEIVER = WORKERS + 2;
/** Counts pass 2^32 within a second, so that a torn one would show. */
export const STEP = 2 ** 20 + 1;

export const hammered = (form: WireForm) => counterCells({ cells: CELLS, form, members: 2 });

export interface CounterWork {
  readonly id: number;
  readonly form: WireForm;
  readonly region: SharedArrayBuffer;
  readonly local: SharedArrayBuffer;
  readonly journals: SharedArrayBuffer;
  /** Word 0: not 0 when the threads are to end. */
  readonly control: SharedArrayBuffer;
  /** Null for the receiver. */
  readonly ring: SharedArrayBuffer | null;
  /** f64 per worker: adds begun, adds ended. */
  readonly ledger: SharedArrayBuffer;
}

export interface HammerEnd {
  readonly applied: number;
  readonly torn: number;
}

export function openHammered(
  { form, region, local, journals, id }: Omit<CounterWork, 'control' | 'ring' | 'ledger'>,
  log: LogProducer | null,
  member = 0,
): CounterCells {
  return hammered(form).open({
    id: HAMMER_ID,
    region: new Region(region),
    secret: Int32Array.of(1, 2, 3, 4),
    writer: id === 0 ? null : { id, journal: new Journal(journals, id), log },
    memberIndex: member,
    memberCount: 2,
    local: new Region(local),
    stripes: WORKERS,
  });
}

export function hammerMemory(form: WireForm): Pick<CounterWork, 'form' | 'region' | 'local' | 'journals'> {
  const definition = hammered(form);
  return {
    form,
    region: new SharedArrayBuffer(definition.bytes),
    local: new SharedArrayBuffer(definition.localBytes?.(WORKERS) ?? 0),
    journals: createJournals(RECEIVER),
  };
}
