/**
 * Records of middleboxes: alerts, bindings made, whatever an operator wants a line of JSON about. A
 * worker writes words of a fixed layout, which costs about as much as a log record; main turns them
 * into JSON and writes them to the operator's file (daemon/records.ts).
 *
 * A record is lost, and counted, when main cannot follow. What an attacker can cause many of, the
 * middlebox limits itself.
 */

import type { Metric, MetricCatalogue } from '../shm/metrics.js';
import { RECORD_WORDS_MAX, type RecordWriter } from '../shm/record-ring.js';
import { columnsOf, counterMetrics } from './counters.js';

const COUNTERS = {
  records_written: 'records of middleboxes handed to main, for the file of records and for show records',
  records_lost: 'records of middleboxes that were lost: main could not follow',
} as const;

export const RECORD_METRICS: Metric[] = counterMetrics(COUNTERS);

/** A value in a line of JSON. */
export type RecordValue = string | number | boolean | null | RecordFields | readonly RecordValue[];
export interface RecordFields {
  readonly [name: string]: RecordValue | undefined;
}

/** A kind of record, as a middlebox declares it. Its name is the line's `event_type`. */
export interface RecordKind {
  /** One line. */
  readonly help: string;
  /** Words a record has, 1…1024. */
  readonly words: number;
  /** What a record says, as JSON. Called by main, for each; `words` is used again. */
  render(words: Int32Array): RecordFields;
}

/** Declares a kind of record of so many words. */
export function recordKind(help: string, words: number, render: RecordKind['render']): RecordKind {
  return { help, words, render };
}

export type RecordKinds = Readonly<Record<string, RecordKind>>;

/** A kind of record as a middlebox has it when it is open: fill in `words`, then `write`. */
export interface Recorder {
  readonly words: Int32Array;
  /** False: it was lost. */
  write(): boolean;
}

/** Why a kind cannot be one; `null` if it can. */
export function flawOfKind({ help, words, render }: Partial<RecordKind>): string | null {
  if (typeof help !== 'string') return 'its help is no text';
  if (!Number.isInteger(words) || (words as number) < 1 || (words as number) > RECORD_WORDS_MAX)
    return `its words are not a whole number from 1 to ${RECORD_WORDS_MAX}`;
  return typeof render === 'function' ? null : 'its render is no function';
}

/** What a worker writes its records with. */
export interface RecordChannel {
  readonly writer: RecordWriter;
  /** The worker's row of metrics. */
  readonly row: Float64Array;
  readonly catalogue: MetricCatalogue;
  /** Unix time in milliseconds; `Date.now` unless told. */
  readonly clock?: () => number;
}

/** `kind`: its index in the declaration. */
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
