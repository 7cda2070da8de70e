/**
 * The records of middleboxes (workers/records.ts), as lines of JSON in the operator's file, and the
 * last of each kind for `show records`.
 *
 * The file is appended to, and opened anew when asked (logrotate). Disks fail and fill: that is
 * said once, what could not be written is counted, and tried again with what comes next. While a
 * write is under way what comes waits in the workers' rings, so memory is bounded; a ring that is
 * full loses records, which the worker counts.
 */

import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { RecordReader } from '../shm/record-ring.js';
import type { DeclaredRecord } from '../workers/chain.js';
import type { RecordFields } from '../workers/records.js';
import type { CounterRow } from './admin/source.js';
import { counted } from './counted.js';
import { settledWithin } from './read-file.js';

export interface RecordLogOptions {
  /** The workers' rings. */
  readonly rings: readonly SharedArrayBuffer[];
  /** By the numbers records have in the rings. */
  readonly kinds: readonly DeclaredRecord[];
  /** This instance's name, in every line. */
  readonly site: string;
  /** Absolute path; null: nothing is written. */
  readonly file: string | null;
  /** Records of each kind kept for `show records`. */
  readonly keep: number;
  /** How many the workers lost. */
  readonly lostByWorkers: () => number;
  /** Between two tries to open a file that failed; absent: 1000. */
  readonly retryMs?: number;
  readonly log: (level: 'info' | 'warn' | 'error', text: string) => void;
}

/** A line: `timestamp`, `event_type`, `site`, and what the middlebox says. */
export interface RecordRow extends RecordFields {
  readonly timestamp: string;
  readonly event_type: string;
  readonly site: string;
}

export interface RecordFigures {
  readonly file: string | null;
  readonly written: number;
  /** Rings that were full, a disk that failed, records that could not be rendered. */
  readonly lost: number;
}

/** In one go: some milliseconds of main's time. */
const AT_ONCE = 2048;
/** Between two warnings of lost records, and between two tries to open the file. */
const QUIET_MS = 10_000;
const RETRY_MS = 1_000;
/** How long its file system may take. */
const ANSWER_MS_MAX = 5_000;
/** Whoever may read the file belongs to its group. */
const FILE_MODE = 0o640;

/** Without waiting: opening a FIFO that nobody reads would never return. */
const APPEND = constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NONBLOCK;

/** EVE writes times so: ISO 8601 with an offset. */
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
  /** What is to be done with the file, one after the other; null: nothing is. */
  private busy: Promise<void> | null = null;
  private failure: string | null = null;
  private failedAtMs = Number.NEGATIVE_INFINITY;
  private lostSinceFailure = 0;
  /** A write that failed may have left half a line. */
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

  /**
   * Opens the file, if there is one, so that what is wrong with it is known before the first
   * record.
   */
  async start(): Promise<void> {
    if (this.options.file !== null && this.options.kinds.length > 0)
      await this.inTime(this.turn(() => this.opened().then(() => {})));
  }

  /** Takes what the workers wrote. To be called some times a second. */
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

  /** The last records of a kind, or of all, the oldest first. */
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
   * Another file, or none, and so many records kept, from now on. What is wrong with the file is
   * logged, and it is tried again.
   */
  async configure(file: string | null, keep: number): Promise<void> {
    const before = this.options;
    this.options = { ...before, file, keep };
    if (file === before.file && file === null) return;
    await this.inTime(this.reopenNow());
  }

  /**
   * Closes the file and opens it anew, by its name. Throws when it cannot be opened; it is tried
   * again with what comes.
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

  /** False if the file system does not answer in time; then nothing waits for it any more. */
  private inTime(work: Promise<void>): Promise<boolean> {
    return settledWithin(ANSWER_MS_MAX, this.options.file ?? 'records', work);
  }

  /**
   * After the workers ended: writes what there is left. A file system that does not answer in time
   * is given up.
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
    // Cut now and then, not with every record.
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

  /** One thing at a time with the file. */
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

  /** The file, opened if it was not; null when that is not possible now. */
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

  /** Only a write shows this: a file on a full disk can be opened. */
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

  /** Said once, until records are written again. */
  private failed(error: unknown): void {
    const before = this.failure;
    this.failedAtMs = performance.now();
    this.failure = `records cannot be written to ${this.options.file}: ${(error as Error).message}`;
    if (before === null) this.options.log('error', `${this.failure}; they are lost until they can`);
  }

  private async closeFile(): Promise<void> {
    const { handle } = this;
    this.handle = null;
    await handle?.close().catch(() => {}); // what is wrong with the disk was said
  }
}
