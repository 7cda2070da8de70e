/**
 * The identity of this build: a hash of its files, made at build time (build-id.mjs). All threads
 * of an instance must run the same build, because they share memory. Members need not.
 */

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const FILE = new URL('../../build-id', import.meta.url);
/** The folder of the build: its real path, with links resolved. */
const FOLDER = fileURLToPath(new URL('../../..', import.meta.url)).replace(/\/$/, '');

/** Id of the files that this program was loaded from. */
export const BUILD_ID = readFileSync(FILE, 'utf8').trim();

/**
 * Why threads can no longer be started from the files of this build. `null` if they can. `instance`
 * is the build of the instance that starts them.
 */
export function buildProblem(instance = BUILD_ID, loaded = readBuildId()): string | null {
  if (loaded === instance) return null;
  const what = loaded === null ? 'are gone' : `are of build ${loaded} now`;
  return `the instance runs build ${instance}, and its files in ${FOLDER} ${what}: restart the instance`;
}

/** The id of the files there now. `null` if there are none. */
function readBuildId(): string | null {
  try {
    return readFileSync(FILE, 'utf8').trim();
  } catch {
    return null;
  }
}
