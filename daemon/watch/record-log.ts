/**
 * Writes the records of middleboxes (workers/api/records.ts) as lines of JSON to the operator's
 * file, and keeps the last of each kind for `show records`.
 *
 * The file is appended to, and opened again on request (logrotate). If the disk fails or is full,
 * that is logged once. Records that could not be written are counted as lost, and writing is tried
 * again with the next ones. During a write, new records wait in the workers' rings, so memory is
 * bounded. A full ring loses records, and the worker counts them.
 */

import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { RecordReader } from '../../shm/record-ring.js';
import type { DeclaredRecord } from '../../workers/plane/chain.js';
import { counted } from '../base/counted.js';
import { settledWithin } from '../base/read-file.js';
import type { CounterRow, RecordFigures, RecordRow } from '../views/source.js';

interface RecordLogOptions {
  /** The workers' rings. */
  readonly rings: readonly SharedArrayBuffer[];
  /** By the kind numbers of the records in the rings. */
  readonly kinds: readonly DeclaredRecord[];
  /** This instance's name, in every line. */
  readonly site: string;
  /** Absolute path; null: nothing is written. */
  readonly file: string | null;
  /** Number of records of each kind kept for `show records`. */
  readonly keep: number;
  /** Number of records that the workers lost. */
  readonly lostByWorkers: () => number;
  /** Interval between attempts to open a file that failed; absent: 1000. */
  readonly retryMs?: number;
  readonly log: (level: 'info' | 'warn' | 'error', text: string) => void;
}

/** Records per ring and pump: some milliseconds of the main thread. */
const AT_ONCE = 2048;
/** Interval between two warnings of lost records, and between two attempts to open the file. */
const QUIET_MS = 10_000;
const RETRY_MS = 1_000;
/** Time that the file system may take. */
const ANSWER_MS_MAX = 5_000;
/** Readers of the file must be in its group. */
const FILE_MODE = 0o640;

/** NONBLOCK, because opening a FIFO without a reader would otherwise never return. */
const APPEND = constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NONBLOCK;

/** A time in EVE's form: ISO 8601 with an offset. */
export function timestampOf(unixMs: number): string {
  return new Date(unixMs).toISOString().replace('Z', '+0000');
}

export class RecordLog {
  private options: RecordLogOptions;
  private readonly readers: readonly RecordReader[];
  /** By kind, the oldest first. */
  private readonly recent: RecordRow[][];
  private readonly unrenderable = new Set<string>();
  private handle: FileHandle | null = null;
  /** The file operation in progress; null: none. */
  private busy: Promise<void> | null = null;
  private failure: string | null = null;
  private failedAtMs = Number.NEGATIVE_INFINITY;
  private lostSinceFailure = 0;
  /** A failed write may have left half a line. */
  private torn = false;
  private written = 0;
  private lost = 0;
  private warnedAtMs = Number.NEGATIVE_INFINITY;
  private lostWarned = 0;
  private closed = false;

  constructor(options: RecordLogOptions) {
    this.options = options;
    this.readers = options.rings.map((ring) => new RecordReader(ring));
    this.recent = options.kinds.map(() => []);
  }

  /** Opens the file, if one is configured, so that an error is known before the first record. */
  async start(): Promise<void> {
    if (this.options.file !== null && this.options.kinds.length > 0)
      await this.inTime(this.turn(() => this.opened().then(() => {})));
  }

  /** Takes the records of the workers. Must be called several times a second. */
  pump(): void {
    if (this.busy !== null) return;
    const rows = this.take();
    this.warn();
    if (rows.length === 0) return;
    const full = rows.length >= AT_ONCE;
    if (this.options.file === null) {
      if (full) setImmediate(() => this.pump());
      return;
    }
    void this.turn(() => this.write(rows)).then(() => full && setImmediate(() => this.pump()));
  }

  /** The last records of a kind, or of all kinds, the oldest first. */
  rows(type: string | null): readonly RecordRow[] {
    const rows = this.options.kinds.flatMap(({ name }, kind) =>
      type === null || type === name ? this.recent[kind] : [],
    );
    return rows.sort((a, b) => (a.timestamp < b.timestamp ? -1 : a.timestamp > b.timestamp ? 1 : 0));
  }

  get types(): readonly string[] {
    return [...new Set(this.options.kinds.map(({ name }) => name))];
  }

  /** For `show counters`. */
  counters(): CounterRow[] {
    const { written, lost } = this;
    const row = (name: string, help: string, total: number): CounterRow => ({
      name,
      help,
      kind: 'counter',
      total,
      threads: [],
    });
    return [
      row('records_written', 'records of middleboxes written to records.file', written),
      row('records_unwritten', 'records of middleboxes that could not be written, as on a full disk', lost),
    ];
  }

  get figures(): RecordFigures {
    const { file, lostByWorkers } = this.options;
    return { file, written: this.written, lost: this.lost + lostByWorkers() };
  }

  /**
   * Changes the file and the number of records kept. Errors of the file are logged, and opening is
   * tried again.
   */
  async configure(file: string | null, keep: number): Promise<void> {
    const before = this.options;
    this.options = { ...before, file, keep };
    if (file === before.file && file === null) return;
    await this.inTime(this.reopenNow());
  }

  /**
   * Closes the file and opens it again by its name. Throws if it cannot be opened; opening is tried
   * again with the next records.
   */
  async reopen(): Promise<RecordFigures> {
    if (this.options.file === null) throw new Error('records.file is not set: records are not written');
    if (!(await this.inTime(this.reopenNow())))
      throw new Error(`${this.options.file}: its file system does not answer; records are lost`);
    if (this.handle === null && this.failure !== null) throw new Error(this.failure);
    return this.figures;
  }

  private async reopenNow(): Promise<void> {
    while (this.busy !== null) await this.busy;
    await this.turn(async () => {
      await this.closeFile();
      this.failedAtMs = Number.NEGATIVE_INFINITY;
      if (this.options.file !== null) await this.opened();
    });
  }

  /**
   * Returns false if the file system does not answer in time. Then nothing waits for it any more.
   */
  private inTime(work: Promise<void>): Promise<boolean> {
    return settledWithin(ANSWER_MS_MAX, this.options.file ?? 'records', work);
  }

  /**
   * Writes what is left, after the workers have ended. Gives up a file system that does not answer
   * in time.
   */
  async close(): Promise<void> {
    this.closed = true;
    await this.inTime(this.closeNow());
  }

  private async closeNow(): Promise<void> {
    while (this.busy !== null) await this.busy;
    for (let rows = this.take(); rows.length > 0; rows = this.take())
      if (this.options.file !== null) await this.turn(() => this.write(rows));
    await this.closeFile();
  }

  private take(): RecordRow[] {
    const { kinds, site } = this.options;
    const rows: RecordRow[] = [];
    for (const reader of this.readers)
      reader.read(AT_ONCE, (kind, unixMs, words) => {
        const declared = kinds[kind];
        try {
          const said = declared.render(words);
          const row = { timestamp: timestampOf(unixMs), event_type: declared.name, site, ...said };
          rows.push(row);
          this.keep(kind, row);
        } catch (error) {
          this.unrendered(declared, error);
        }
      });
    return rows;
  }

  private keep(kind: number, row: RecordRow): void {
    const recent = this.recent[kind];
    recent.push(row);
    // Cut at intervals, not for every record.
    if (recent.length >= 2 * this.options.keep) recent.splice(0, recent.length - this.options.keep);
  }

  private unrendered({ middlebox, name }: DeclaredRecord, error: unknown): void {
    this.lost++;
    const kind = `${middlebox}: record ${name}`;
    if (this.unrenderable.has(kind)) return;
    this.unrenderable.add(kind);
    this.options.log('error', `${kind} cannot be written as JSON: ${String(error)}; said once`);
  }

  private warn(): void {
    const lost = this.options.lostByWorkers();
    if (lost <= this.lostWarned || performance.now() - this.warnedAtMs < QUIET_MS) return;
    this.options.log(
      'warn',
      `${counted(lost - this.lostWarned, 'record')} of middleboxes lost: more than can be written`,
    );
    this.warnedAtMs = performance.now();
    this.lostWarned = lost;
  }

  /** Runs one operation on the file. The caller must not start another before it ends. */
  private turn(what: () => Promise<void>): Promise<void> {
    const turn = what().finally(() => {
      this.busy = null;
    });
    this.busy = turn;
    return turn;
  }

  private async write(rows: readonly RecordRow[]): Promise<void> {
    const lines = rows.map((row) => `${JSON.stringify(row)}\n`).join('');
    const handle = await this.opened();
    if (handle === null) return this.lose(rows.length);
    try {
      await handle.appendFile(this.torn ? `\n${lines}` : lines);
      this.torn = false;
      this.written += rows.length;
      this.recovered();
    } catch (error) {
      this.torn = true;
      this.lose(rows.length);
      this.failed(error);
      await this.closeFile();
    }
  }

  /** Returns the file, opening it if necessary; null if that is not possible now. */
  private async opened(): Promise<FileHandle | null> {
    if (this.handle !== null) return this.handle;
    const { file } = this.options;
    if (!this.closed && performance.now() - this.failedAtMs < (this.options.retryMs ?? RETRY_MS)) return null;
    try {
      this.handle = await open(file as string, APPEND, FILE_MODE);
    } catch (error) {
      this.failed(error);
      return null;
    }
    return this.handle;
  }

  /** Only a write proves recovery: a file on a full disk can be opened. */
  private recovered(): void {
    if (this.failure === null) return;
    const { file, log } = this.options;
    log('info', `records are written to ${file} again; ${this.lostSinceFailure} were lost meanwhile`);
    this.failure = null;
    this.lostSinceFailure = 0;
  }

  private lose(records: number): void {
    this.lost += records;
    this.lostSinceFailure += records;
  }

  /** Logged once, until records are written again. */
  private failed(error: unknown): void {
    const before = this.failure;
    this.failedAtMs = performance.now();
    this.failure = `records cannot be written to ${this.options.file}: ${(error as Error).message}`;
    if (before === null) this.options.log('error', `${this.failure}; they are lost until they can`);
  }

  private async closeFile(): Promise<void> {
    const { handle } = this;
    this.handle = null;
    await handle?.close().catch(() => {}); // the error of the disk was logged
  }
}
