/** Runs a C program of this folder that measures on request, as the baseline of a benchmark. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/** Compiles `test/bench/NAME.c` into `folder`; returns the program's path. */
export async function compile(name: string, folder: string): Promise<string> {
  const source = fileURLToPath(new URL(`../../../test/bench/${name}.c`, import.meta.url));
  const program = join(folder, name);
  const cc = spawn('cc', ['-O2', '-o', program, source], { stdio: 'inherit' });
  const [code] = (await once(cc, 'close')) as [number];
  if (code !== 0) throw new Error(`cc could not compile ${source}`);
  return program;
}

/**
 * The program as a process. `work` lets it work for a while and returns nanoseconds per operation.
 */
export class CProgram {
  private readonly child;
  private readonly lines;
  private readonly program: string;

  constructor(program: string, ...options: readonly number[]) {
    this.program = program;
    this.child = spawn(program, options.map(String), { stdio: ['pipe', 'pipe', 'inherit'] });
    this.lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]();
  }

  /** `request`: the words before the milliseconds, for a program with several functions. */
  async work(ms: number, ...request: readonly string[]): Promise<number> {
    this.child.stdin.write(`${[...request, Math.ceil(ms)].join(' ')}\n`);
    const { value, done } = await this.lines.next();
    if (done === true) throw new Error(`${this.program} ended early: see its message above`);
    const [operations, nanoseconds] = String(value).split(' ').map(Number);
    return nanoseconds / operations;
  }

  async close(): Promise<void> {
    this.child.stdin.end();
    await once(this.child, 'close');
  }
}
