/**
 * The key file, `cluster.key_file`. Its line format is in workers/replication/wire/cluster-key.ts.
 */

import { appendFileSync, readFileSync, type Stats, writeFileSync } from 'node:fs';
import {
  type ClusterKey,
  KEY_ID_MAX,
  KEYS_MAX,
  keyLine,
  newKey,
  parseKeys,
} from '../../workers/replication/wire/cluster-key.js';
import { type FileLimits, readFileInTime, readRegularFile } from '../base/read-file.js';

/** A larger file is not a key file. */
const FILE_BYTES_MAX = 64 * 1024;
const OTHERS = 0o077;

/** An error in a key file. The message names the file, and the line if there is one. */
export class KeyFileError extends Error {}

/** Reads the keys; the sending key is first. Throws a `KeyFileError`. Blocks on the file system. */
export function readKeyFile(file: string): readonly ClusterKey[] {
  try {
    return keysOf(file, readRegularFile(file, limitsOf(file)));
  } catch (error) {
    throw keyFileError(file, error);
  }
}

/** Like `readKeyFile`, but rejects if the file system does not answer in time. */
export async function readKeyFileInTime(file: string): Promise<readonly ClusterKey[]> {
  try {
    return keysOf(file, await readFileInTime(file, limitsOf(file)));
  } catch (error) {
    throw keyFileError(file, error);
  }
}

function limitsOf(file: string): FileLimits {
  return {
    name: 'it',
    bytesMax: FILE_BYTES_MAX,
    check({ mode }: Stats) {
      if ((mode & OTHERS) === 0) return;
      const shown = (mode & 0o777).toString(8).padStart(4, '0');
      throw new Error(`others than its owner may use it (mode ${shown}), so it keeps no secret; chmod 600 ${file}`);
    },
  };
}

function keysOf(file: string, bytes: Buffer): readonly ClusterKey[] {
  try {
    return parseKeys(bytes.toString('latin1'), file);
  } catch (error) {
    throw new KeyFileError((error as Error).message, { cause: error });
  }
}

function keyFileError(file: string, error: unknown): KeyFileError {
  if (error instanceof KeyFileError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  const hint = code === 'ENOENT' ? '; constellationd --generate-key FILE makes one' : '';
  return new KeyFileError(`key file ${file}: ${message}${hint}`, { cause: error });
}

/**
 * Makes a new key file with one key, or adds a second key to a file with one: the first step of a
 * rotation. Returns what was done, for people.
 */
export function generateKey(file: string): string {
  const key = newKey(1);
  try {
    // `wx` fails if the file exists, so no other process has it open.
    writeFileSync(file, keyLine(key), { flag: 'wx', mode: 0o600 });
    return `${file}: made, with key 1; copy it to every member, readable by none but the user the daemon runs as`;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST')
      throw new Error(`key file ${file} cannot be made: ${(error as Error).message}`, { cause: error });
  }
  const keys = readKeyFile(file);
  if (keys.length === KEYS_MAX)
    throw new Error(`${file} has ${KEYS_MAX} keys already; end that rotation first: take the old one out everywhere`);
  const id = (keys[0].id % KEY_ID_MAX) + 1;
  const text = readFileSync(file, 'latin1');
  appendFileSync(file, (text.endsWith('\n') ? '' : '\n') + keyLine(newKey(id)));
  return `${file}: added key ${id}, which is accepted from now on and not sent with; copy it to every member, reload the keys there (SIGHUP), and only then put its line first`;
}
