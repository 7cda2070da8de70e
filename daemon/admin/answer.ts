/**
 * The answers of commands, and how to write them. As text, an answer has aligned columns for
 * people. As JSON, it has one document per line for programs. A table has one line per row, so a
 * reader can process an answer of any length as it arrives.
 */

import type { LifecycleState } from '../lifecycle/lifecycle.js';

export type Format = 'text' | 'json';

export interface Column<Row> {
  readonly title: string;
  cell(row: Row): string | number | null;
  /** Numbers are aligned to the right. */
  readonly right?: boolean;
}

export type Answer =
  | { readonly kind: 'lines'; readonly lines: readonly string[] }
  | { readonly kind: 'record'; readonly record: object; readonly state?: LifecycleState }
  | { readonly kind: 'report'; readonly record: object; readonly lines: readonly string[] }
  // biome-ignore lint/suspicious/noExplicitAny: a table's rows are its columns' own business
  | { readonly kind: 'table'; readonly columns: readonly Column<any>[]; readonly rows: Iterable<unknown> };

/** Free text; as JSON an array of its lines. */
export function lines(text: readonly string[]): Answer {
  return { kind: 'lines', lines: text };
}

/**
 * One thing with named properties. If `state` is given, the answer reports it, and the program's
 * exit code follows from it.
 */
export function record(properties: object, state?: LifecycleState): Answer {
  return { kind: 'record', record: properties, ...(state === undefined ? {} : { state }) };
}

/** One thing with named properties. The text form has lines of its own. */
export function report(properties: object, text: readonly string[]): Answer {
  return { kind: 'report', record: properties, lines: text };
}

/**
 * Many things of one kind. A `null` among the rows is a point where the caller may do other work.
 */
export function table<Row>(columns: readonly Column<Row>[], rows: Iterable<Row | null>): Answer {
  return { kind: 'table', columns, rows };
}

/**
 * The lines of an answer, without line ends. A `null` is a point where the caller may do other
 * work.
 */
export function* render(answer: Answer, format: Format): Generator<string | null, void, undefined> {
  if (format === 'json') yield* renderJson(answer);
  else if (answer.kind === 'lines' || answer.kind === 'report') yield* answer.lines;
  else if (answer.kind === 'record') yield* renderRecord(answer.record);
  else yield* renderTable(answer.columns, answer.rows);
}

function* renderJson(answer: Answer): Generator<string | null, void, undefined> {
  if (answer.kind === 'lines') yield JSON.stringify(answer.lines);
  else if (answer.kind === 'record' || answer.kind === 'report') yield JSON.stringify(answer.record);
  else for (const row of answer.rows) yield row === null ? null : JSON.stringify(row);
}

function* renderRecord(properties: object): Generator<string> {
  const entries = Object.entries(properties);
  const width = Math.max(...entries.map(([key]) => key.length));
  for (const [key, value] of entries)
    yield `${key.padEnd(width)}  ${plain(Array.isArray(value) ? value.join(', ') : value)}`;
}

/**
 * Number of rows that determine the column widths. A wider cell in a later row breaks the
 * alignment, which does no harm.
 */
const ROWS_MEASURED = 256;

function* renderTable(columns: readonly Column<unknown>[], rows: Iterable<unknown>): Generator<string | null> {
  const measured: string[][] = [columns.map((column) => column.title)];
  let widths: number[] | undefined;
  for (const row of rows) {
    if (row === null) {
      yield null;
      continue;
    }
    const cells = columns.map((column) => plain(column.cell(row)));
    if (widths !== undefined) {
      yield align(columns, cells, widths);
      continue;
    }
    measured.push(cells);
    if (measured.length <= ROWS_MEASURED) continue;
    widths = columnWidths(measured);
    for (const row of measured) yield align(columns, row, widths);
  }
  if (widths !== undefined) return;
  widths = columnWidths(measured);
  for (const row of measured) yield align(columns, row, widths);
}

function columnWidths(rows: readonly string[][]): number[] {
  return rows[0].map((_, i) => rows.reduce((width, row) => Math.max(width, row[i].length), 0));
}

function align(columns: readonly Column<unknown>[], cells: readonly string[], widths: readonly number[]): string {
  const aligned = cells.map((cell, i) => (columns[i].right ? cell.padStart(widths[i]) : cell.padEnd(widths[i])));
  return aligned.join('  ').trimEnd();
}

/** A value as a cell: on one line, without control characters. */
function plain(value: unknown): string {
  if (value === null || value === undefined || value === '') return '-';
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is to be removed
  return String(value).replace(/[\u0000-\u001f\u007f-\u009f]/g, '?');
}
