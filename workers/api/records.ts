/**
 * Records of middleboxes: alerts, new bindings, anything that an operator wants as a line of JSON.
 * A worker writes words of a fixed layout, which costs about as much as a log record. Main renders
 * them as JSON and writes them to the operator's file (daemon/watch/record-log.ts).
 *
 * If main falls behind, records are lost and counted. Records that an attacker can cause in large
 * numbers must be limited by the middlebox itself.
 */

import type { Metric, MetricCatalogue } from '../../shm/metrics.js';
import { RECORD_WORDS_MAX, type RecordWriter } from '../../shm/record-ring.js';
import { columnsOf, counterMetrics } from '../base/counters.js';

const COUNTERS = {
  records_written: 'records of middleboxes handed to main, for the file of records and for show records',
  records_lost: 'records of middleboxes that were lost: main could not follow',
} as const;

export const RECORD_METRICS: Metric[] = counterMetrics(COUNTERS);

/** A value in a line of JSON. */
type RecordValue = string | number | boolean | null | RecordFields | readonly RecordValue[];
export interface RecordFields {
  readonly [name: string]: RecordValue | undefined;
}

/** A kind of record, as a middlebox declares it. Its name is the line's `event_type`. */
export interface RecordKind {
  /** One line. */
  readonly help: string;
  /** Words of a record, 1 to 1024. */
  readonly words: number;
  /** Renders a record as JSON. Main calls it for each record. `words` is reused after the call. */
  render(words: Int32Array): RecordFields;
}

/** Declares a kind of record with this many words. */
export function recordKind(help: string, words: number, render: RecordKind['render']): RecordKind {
  return { help, words, render };
}

export type RecordKinds = Readonly<Record<string, RecordKind>>;

/** Writes records of one kind, in an open middlebox: fill in `words`, then call `write`. */
export interface Recorder {
  readonly words: Int32Array;
  /** Returns false if the record was lost. */
  write(): boolean;
}

/** Why a declaration is invalid; `null` if it is valid. */
export function flawOfKind({ help, words, render }: Partial<RecordKind>): string | null {
  if (typeof help !== 'string') return 'its help is no text';
  if (!Number.isInteger(words) || (words as number) < 1 || (words as number) > RECORD_WORDS_MAX)
    return `its words are not a whole number from 1 to ${RECORD_WORDS_MAX}`;
  return typeof render === 'function' ? null : 'its render is no function';
}

/** What a worker needs to write its records. */
export interface RecordChannel {
  readonly writer: RecordWriter;
  /** The worker's row of metrics. */
  readonly row: Float64Array;
  readonly catalogue: MetricCatalogue;
  /** Unix time in milliseconds. Default: `Date.now`. */
  readonly clock?: () => number;
}

/** `kind` is its index in the declaration. */
export function createRecorder(
  { writer, row, catalogue, clock = Date.now }: RecordChannel,
  kind: number,
  size: number,
): Recorder {
  const { records_written, records_lost } = columnsOf(catalogue, COUNTERS);
  const words = new Int32Array(size);
  return {
    words,
    write() {
      const written = writer.write(kind, clock(), words);
      row[written ? records_written : records_lost]++;
      return written;
    },
  };
}
