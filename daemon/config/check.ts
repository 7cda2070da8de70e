/** `constellationd --check`: reports every error in a configuration without starting anything. */

import { interfaceFacts } from '../../workers/native/index.js';
import { type Config, loadConfig } from './config.js';
import { wireMtuNotes } from './ports.js';

/** EX_CONFIG of sysexits.h. The systemd unit does not restart on it. */
export const EXIT_CONFIG = 78;

/** Notes on settings that are valid but may not be intended, as far as this machine can tell. */
function notesOf({ mode, packet_io: io }: Config): string[] {
  if (mode !== 'wire' || io.driver !== 'af_xdp') return [];
  return wireMtuNotes(io.ports.map((port) => ({ name: port.interface, mtu: mtuOf(port.interface) })));
}

/** Returns the MTU of the interface, or `null` if it does not exist here. */
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
