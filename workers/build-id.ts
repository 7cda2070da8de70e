/**
 * Which build this is. Its id is a hash of the build, made when it was built (build-id.mjs). All
 * threads of an instance have to run the same build, as they share memory; members need not.
 */

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const FILE = new URL('../build-id', import.meta.url);
/** Where the build lies: its real path, whatever links led to it. */
const FOLDER = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '');

/** Of the files that this program was loaded from. */
export const BUILD_ID = readFileSync(FILE, 'utf8').trim();

/**
 * Why threads cannot be started from the files of this build any more; `null`: they can.
 * `instance`: the build of the instance that starts them.
 */
export function buildProblem(instance = BUILD_ID, loaded = readBuildId()): string | null {
  if (loaded === instance) return null;
  const what = loaded === null ? 'are gone' : `are of build ${loaded} now`;
  return `the instance runs build ${instance}, and its files in ${FOLDER} ${what}: restart the instance`;
}

/** The id of what lies there now; `null`: nothing does. */
function readBuildId(): string | null {
  try {
    return readFileSync(FILE, 'utf8').trim();
  } catch {
    return null;
  }
}
