/**
 * Checks that the programs of hooks can be run, so that an error is found before the start and not
 * when a route must be announced.
 */

import { accessSync, constants, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { HOOK_EVENTS, type HooksConfig } from './hooks.js';

/** Problems with the programs, by the name of the hook. */
export function hookProblems(hooks: HooksConfig): { readonly hook: string; readonly message: string }[] {
  return HOOK_EVENTS.flatMap((event) => {
    const hook = `on_${event}` as const;
    const program = hooks[hook]?.[0];
    const message = program === undefined ? null : problemOf(program);
    return message === null ? [] : [{ hook, message }];
  });
}

function problemOf(program: string): string | null {
  if (program.includes('/')) return problemOfFile(program);
  const folders = (process.env['PATH'] ?? '').split(delimiter).filter((folder) => folder !== '');
  return folders.some((folder) => problemOfFile(join(folder, program)) === null)
    ? null
    : `no program ${program} in the PATH of this user; write the whole path`;
}

function problemOfFile(file: string): string | null {
  try {
    if (!statSync(file).isFile()) return `${file} is no program`;
    accessSync(file, constants.X_OK);
    return null;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return `there is no program ${file}`;
    return code === 'EACCES' ? `${file} may not be run by this user` : message;
  }
}
