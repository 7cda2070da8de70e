/**
 * Prints a run: a line for each file as it ends, the files that still run, and at the end the
 * slowest tests and files, the failures and the totals.
 */

import { relative } from 'node:path';
import { closingLine } from '../reporter.js';
import type { FileResult } from './batch.js';
import { TESTS } from './suites.js';

const SLOWEST = 10;
/** Output of a file whose tests pass is cut to this many lines. */
const OUTPUT_LINES_MAX = 30;

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;
const nameOf = (file: string): string => relative(TESTS, file);

export class Report {
  private readonly files: number;
  private readonly print: (line: string) => void;
  private readonly results: FileResult[] = [];
  private readonly began = performance.now();

  constructor(files: number, print: (line: string) => void = console.log) {
    this.files = files;
    this.print = print;
  }

  get failed(): number {
    return this.count('failed');
  }

  get passed(): number {
    return this.count('passed');
  }

  /** Reports a file that is done. */
  add(result: FileResult): void {
    this.results.push(result);
    const of = (outcome: string): number => result.tests.filter((test) => test.outcome === outcome).length;
    const counts = ['passed', 'failed', 'skipped']
      .filter((outcome) => of(outcome) > 0)
      .map((outcome) => `${of(outcome)} ${outcome}`)
      .join(', ');
    const place = `[${String(this.results.length).padStart(String(this.files).length)}/${this.files}]`;
    const sign = of('failed') > 0 ? '✖' : '✔';
    this.print(
      `${place} ${sign} ${nameOf(result.file)}  ${counts}  ${seconds(result.ms)}, ${seconds(result.cpu_ms)} CPU`,
    );
    const lines = result.output.split('\n').filter((line) => line.trim() !== '');
    const shown = of('failed') > 0 ? lines : lines.slice(0, OUTPUT_LINES_MAX);
    for (const line of shown) this.print(`    ${line}`);
    if (shown.length < lines.length) this.print(`    … and ${lines.length - shown.length} more lines`);
    for (const test of result.tests) if (test.outcome === 'failed') this.print(`    ✖ ${test.title}`);
  }

  /** Reports the running files, if none has ended for a while. */
  stillRunning(running: readonly { readonly file: string; readonly test: string; readonly ms: number }[]): void {
    for (const { file, test, ms } of running)
      this.print(`  … ${nameOf(file)} runs for ${Math.round(ms / 1000)} s${test === '' ? '' : `: ${test}`}`);
  }

  /**
   * Prints the end of the run: the slowest, the failures, and the closing line, which tools read.
   */
  close(): void {
    this.printSlowest();
    this.printFailures();
    const elapsed = Math.round((performance.now() - this.began) / 1000);
    this.print('');
    this.print(`${this.results.length} files in ${Math.floor(elapsed / 60)} min ${elapsed % 60} s`);
    this.print(closingLine(this.passed, this.failed, this.count('skipped')));
  }

  private printFailures(): void {
    const failures = this.results.flatMap(({ tests }) => tests.filter(({ outcome }) => outcome === 'failed'));
    if (failures.length === 0) return;
    this.print('');
    this.print(`  ${failures.length} failing`);
    for (const [i, { text }] of failures.entries()) {
      this.print('');
      this.print(`  ${i + 1}) ${text}`);
    }
  }

  private printSlowest(): void {
    const tests = this.results.flatMap(({ file, tests }) => tests.map(({ title, ms }) => ({ file, title, ms })));
    this.print('');
    this.print('Slowest tests:');
    for (const { file, title, ms } of tests.sort((a, b) => b.ms - a.ms).slice(0, SLOWEST))
      this.print(`  ${seconds(ms).padStart(8)}  ${nameOf(file)}: ${title}`);
    this.print('Slowest files:');
    for (const { file, ms, cpu_ms } of [...this.results].sort((a, b) => b.ms - a.ms).slice(0, SLOWEST))
      this.print(`  ${seconds(ms).padStart(8)}  ${nameOf(file)} (${seconds(cpu_ms)} CPU)`);
  }

  private count(outcome: string): number {
    return this.results.reduce((sum, { tests }) => sum + tests.filter((test) => test.outcome === outcome).length, 0);
  }
}
