/** The released version of this tree, and its build. */

import { readFileSync } from 'node:fs';
import { BUILD_ID } from '../../workers/engine/build-id.js';

/** Beside dist/, wherever the tree is installed. */
const PACKAGE = new URL('../../../package.json', import.meta.url);

export function version(): string {
  return (JSON.parse(readFileSync(PACKAGE, 'utf8')) as { version: string }).version;
}

/** The text of `--version`. */
export function versionText(): string {
  return `${version()} (build ${BUILD_ID})`;
}

/** The build that such a text names; `null`: it names none, as in earlier versions. */
export function buildOf(text: string | null): string | null {
  return /\(build ([0-9a-z]+)\)$/.exec(text ?? '')?.[1] ?? null;
}
