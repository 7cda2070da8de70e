/**
 * Compiles the testbed's C programs when they are first needed, and again when their source is
 * newer.
 */

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findTool } from '../support/require.js';

/** Root of the project's sources. This file runs from `dist/`. */
export const PROJECT = findProject();

function findProject(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) {
    const parent = dirname(folder);
    if (parent === folder) throw new Error(`no package.json above ${fileURLToPath(import.meta.url)}`);
    folder = parent;
  }
  return folder;
}

export function findCompiler(): string | null {
  return ['cc', 'gcc', 'clang'].map(findTool).find((path) => path !== null) ?? null;
}

const SOURCES = {
  burst: ['first-packets/burst.c'],
  helper: ['helper.c'],
  relay: ['relay/relay.c', 'relay/mesh.c', 'relay/impairment.c'],
} as const;

/**
 * Path of a compiled program. Several processes may ask at once: each compiles to a temporary file
 * and renames it.
 */
export function compiled(program: keyof typeof SOURCES): string {
  const folder = join(PROJECT, 'test', 'testbed');
  const sources = SOURCES[program].map((file) => join(folder, file));
  const output = join(PROJECT, 'dist', 'test', 'testbed', 'bin', program);
  const newest = Math.max(...sources.flatMap(withHeaders).map((file) => statSync(file).mtimeMs));
  if (existsSync(output) && statSync(output).mtimeMs > newest) return output;
  const compiler = findCompiler();
  if (compiler === null)
    throw new Error(
      `${program} cannot be compiled: no C compiler (cc, gcc or clang; Debian: apt install gcc libc6-dev)`,
    );
  mkdirSync(dirname(output), { recursive: true });
  const aside = `${output}.${process.pid}`;
  try {
    execFileSync(compiler, ['-std=gnu11', '-O2', '-Wall', '-Wextra', '-o', aside, ...sources], { stdio: 'pipe' });
    renameSync(aside, output);
  } catch (error) {
    rmSync(aside, { force: true });
    throw new Error(`${program} cannot be compiled: ${String((error as { stderr?: unknown }).stderr ?? error).trim()}`);
  }
  return output;
}

function withHeaders(source: string): string[] {
  const folder = dirname(source);
  const headers = readdirSync(folder).filter((name) => name.endsWith('.h'));
  return [source, ...headers.map((name) => join(folder, name))];
}
