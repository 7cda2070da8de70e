/** `constellationd --check`: says everything that is wrong with a configuration, without starting anything. */

import { loadConfig } from './config.js';

/** EX_CONFIG of sysexits.h; systemd is told not to restart on it. */
export const EXIT_CONFIG = 78;

/** Prints every error to standard error, or `FILE: ok`. Returns the exit code. */
export async function checkCommand(file: string): Promise<number> {
  const { errors } = await loadConfig(file);
  if (errors === undefined) {
    console.log(`${file}: ok`);
    return 0;
  }
  for (const error of errors) console.error(error);
  return EXIT_CONFIG;
}
