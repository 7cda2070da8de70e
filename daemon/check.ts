/**
 * `constellationd --check`: says everything that is wrong with a configuration, without starting
 * anything.
 */

import { interfaceFacts } from '../workers/native/index.js';
import { type Config, loadConfig } from './config.js';
import { wireMtuNotes } from './ports.js';

/** EX_CONFIG of sysexits.h; systemd is told not to restart on it. */
export const EXIT_CONFIG = 78;

/** What is right and may not be meant, as far as this machine can tell. */
function notesOf({ mode, packet_io: io }: Config): string[] {
  if (mode !== 'wire' || io.driver !== 'af_xdp') return [];
  return wireMtuNotes(io.ports.map((port) => ({ name: port.interface, mtu: mtuOf(port.interface) })));
}

/** `null`: there is no such interface here. */
function mtuOf(name: string): number | null {
  try {
    return interfaceFacts(name).mtu;
  } catch {
    return null;
  }
}

/** Prints notes and `FILE: ok`, or every error to standard error. Returns the exit code. */
export async function checkCommand(file: string): Promise<number> {
  const { config, notes, errors } = await loadConfig(file);
  if (config !== undefined) {
    for (const note of notes) console.log(`note: ${note}`);
    for (const note of notesOf(config)) console.log(`${file}: note: ${note}`);
    console.log(`${file}: ok`);
    return 0;
  }
  for (const error of errors) console.error(error);
  return EXIT_CONFIG;
}
