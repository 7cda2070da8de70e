/**
 * Reads files that the configuration names. A FIFO, a device or a folder in place of a file is an
 * error, and nothing waits for it.
 *
 * **File systems that do not answer**, such as a network mount whose server is gone, block a system
 * call. A thread in such a call cannot be ended. So the main thread reads with threads of the
 * runtime's pool, for a limited time. Reads that did not end are in `unanswered`. The same file is
 * not read again meanwhile, so one file blocks at most one thread of the pool. The process does not
 * wait for such a thread when it ends (`constellationd.ts`).
 */

import { closeSync, constants, fstatSync, openSync, readFileSync, type Stats } from 'node:fs';
import { open } from 'node:fs/promises';

/** Time that a file system may take to answer. */
const READ_MS_MAX = 5_000;
/** `NONBLOCK`, because opening a FIFO must not wait for a writer. */
const FLAGS = constants.O_RDONLY | constants.O_NONBLOCK;

export interface FileLimits {
  /** Name of the file in errors. */
  readonly name: string;
  readonly bytesMax: number;
  /** Throws if anything else is wrong with the file. */
  readonly check?: (stat: Stats) => void;
}

/** Work that was given up and has not ended, by name. */
const waiting = new Map<Promise<unknown>, string>();

/** Names of work that was given up and has not ended yet. */
export function unanswered(): readonly string[] {
  return [...new Set(waiting.values())];
}

export function isUnanswered(name: string): boolean {
  return unanswered().includes(name);
}

/**
 * Returns true if `work` settles within `msMax`. Otherwise gives it up and returns false, at once
 * if work of that name was given up before. Rejects if `work` rejects in time.
 */
export async function settledWithin(msMax: number, name: string, work: Promise<unknown>): Promise<boolean> {
  if (isUnanswered(name)) {
    giveUp(name, work);
    return false;
  }
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<'late'>((resolve) => {
    timer = setTimeout(resolve, msMax, 'late');
  });
  try {
    const isLate = (await Promise.race([work, late])) === 'late';
    if (isLate) giveUp(name, work);
    return !isLate;
  } finally {
    clearTimeout(timer);
  }
}

/** Gives `work` up. It is unanswered until it settles. */
function giveUp(name: string, work: Promise<unknown>): void {
  waiting.set(work, name);
  const answered = (): void => void waiting.delete(work);
  work.then(answered, answered);
}

/** Reads a regular file. Blocks on its file system, so the caller must have nothing else to do. */
export function readRegularFile(file: string, limits: FileLimits): Buffer {
  const fd = openSync(file, FLAGS);
  try {
    checkFile(fstatSync(fd), limits);
    return readFileSync(fd);
  } finally {
    closeSync(fd);
  }
}

/**
 * Reads a regular file in limited time. Rejects with the reason if it cannot be read, or with the
 * reason of `signal`.
 */
export async function readFileInTime(
  file: string,
  limits: FileLimits,
  signal?: AbortSignal,
  msMax = READ_MS_MAX,
): Promise<Buffer> {
  const { name } = limits;
  if (isUnanswered(file)) throw new Error(`${name} is still being read: its file system does not answer`);
  signal?.throwIfAborted();
  const reading = read(file, limits);
  return new Promise((resolve, reject) => {
    const end = (why: unknown): void => {
      giveUp(file, reading);
      reject(why);
    };
    const late = `${name} could not be read within ${msMax / 1000} s: its file system does not answer`;
    const timer = setTimeout(() => end(new Error(late)), msMax);
    const aborted = (): void => end(signal?.reason);
    signal?.addEventListener('abort', aborted, { once: true });
    const settled = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', aborted);
    };
    reading.finally(settled).then(resolve, reject);
  });
}

async function read(file: string, limits: FileLimits): Promise<Buffer> {
  const handle = await open(file, FLAGS);
  try {
    checkFile(await handle.stat(), limits);
    return await handle.readFile();
  } finally {
    await handle.close();
  }
}

function checkFile(stat: Stats, { name, bytesMax, check }: FileLimits): void {
  if (!stat.isFile()) throw new Error(`${name} is not a regular file`);
  if (stat.size > bytesMax) throw new Error(`${name} has ${stat.size} bytes, and may have ${bytesMax} at most`);
  check?.(stat);
}
