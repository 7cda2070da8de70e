/** The version this tree was released as. */

import { readFileSync } from 'node:fs';

/** Beside dist/, wherever the whole is installed. */
const PACKAGE = new URL('../../package.json', import.meta.url);

export function version(): string {
  return (JSON.parse(readFileSync(PACKAGE, 'utf8')) as { version: string }).version;
}
