/**
 * Gives the build its id: `node workers/engine/build-id.mjs`, run by `npm run build` after the
 * compilers. Writes dist/build-id.
 *
 * The id is a hash of what the build consists of: the compiled files, the sources of the native binding (compilers differ in
 * what they make of them), the packages it needs, and the version. Equal sources have equal ids, on every machine.
 */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
/** What systemd/install.sh installs of dist/. */
const PARTS = ['conf', 'daemon', 'options', 'shm', 'workers'];
const ID_DIGITS = 12;

const filesOf = (folder, pattern) =>
  readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => pattern.test(name))
    .map((name) => join(folder, name));

// The compiler leaves files behind whose sources are gone: they are no part of the build.
const compiled = PARTS.flatMap((part) => filesOf(join('dist', part), /\.js$/)).filter((file) =>
  existsSync(join(root, file.replace(/^dist\//, '').replace(/\.js$/, '.ts'))),
);
const native = filesOf('workers/native', /\.(c|h|mjs)$/);

const hash = createHash('sha256');
for (const file of [...compiled, ...native].sort()) hash.update(`${file}\0`).update(readFileSync(join(root, file)));
const { version, packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'));
hash.update(`version\0${version}\0`);
for (const [path, { dev, version: at, integrity }] of Object.entries(packages))
  if (path !== '' && !dev) hash.update(`${path}\0${at}\0${integrity}\0`);
writeFileSync(join(root, 'dist', 'build-id'), `${hash.digest('hex').slice(0, ID_DIGITS)}\n`);
