/** The processor cores of this machine. */

import { readFileSync } from 'node:fs';

/** The kernel's list of online cores, such as `0-3,6`. */
const ONLINE_FILE = '/sys/devices/system/cpu/online';

/** Returns the cores that a thread can be pinned to, in ascending order. */
export function onlineCores(): number[] {
  return parseCoreList(readFileSync(ONLINE_FILE, 'utf8'));
}

/** Parses a list in the kernel's form: numbers and ranges, separated by commas. */
export function parseCoreList(text: string): number[] {
  return text
    .trim()
    .split(',')
    .filter((part) => part !== '')
    .flatMap((part) => {
      const [first, last = first] = part.split('-').map(Number);
      if (!Number.isInteger(first) || !Number.isInteger(last)) throw new Error(`not a list of cores: ${text}`);
      return Array.from({ length: last - first + 1 }, (_, i) => first + i);
    });
}
