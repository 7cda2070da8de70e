/** The key file: `cluster.key_file`. What a line says is in workers/replication/cluster-key.ts. */

import { appendFileSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import {
  type ClusterKey,
  KEY_ID_MAX,
  KEYS_MAX,
  keyLine,
  newKey,
  parseKeys,
} from '../workers/replication/cluster-key.js';

/** What is larger is some other file. */
const FILE_BYTES_MAX = 64 * 1024;
const OTHERS = 0o077;

/** What is wrong with a key file; the message names the file, and the line where there is one. */
export class KeyFileError extends Error {}

/** Reads the keys, the one to send with first. Throws a `KeyFileError`. */
export function readKeyFile(file: string): readonly ClusterKey[] {
  let text: string;
  try {
    const stat = statSync(file);
    if (!stat.isFile()) throw new Error('it is not a regular file');
    if (stat.size > FILE_BYTES_MAX) throw new Error(`it has ${stat.size} bytes, more than a key file can have`);
    if ((stat.mode & OTHERS) !== 0) {
      const mode = (stat.mode & 0o777).toString(8).padStart(4, '0');
      throw new Error(`others than its owner may use it (mode ${mode}), so it keeps no secret; chmod 600 ${file}`);
    }
    text = readFileSync(file, 'latin1');
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const hint = code === 'ENOENT' ? '; constellationd --generate-key FILE makes one' : '';
    throw new KeyFileError(`key file ${file}: ${message}${hint}`, { cause: error });
  }
  try {
    return parseKeys(text, file);
  } catch (error) {
    throw new KeyFileError((error as Error).message, { cause: error });
  }
}

/**
 * Makes a new key file with one key, or puts a second key into one that has one: the first step of a rotation. Returns
 * what was done, for people.
 */
export function generateKey(file: string): string {
  const key = newKey(1);
  try {
    // `wx`: it is made here or not at all, so nobody else has it open.
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
