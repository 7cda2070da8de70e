/**
 * Builds the native binding: `node workers/native/build.mjs`, run by `npm ci` and `npm run build`.
 *
 * Needs Node, a C compiler ($CC, cc, gcc or clang) and the headers of libc and Linux; the Node-API headers come from the
 * npm package node-api-headers. Does nothing when the result is newer than everything it is made from.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '..', '..');
const output = join(root, 'dist', 'workers', 'native', 'addon.node');
const FLAGS = ['-std=gnu11', '-O2', '-Wall', '-Wextra', '-Werror=implicit', '-fPIC', '-shared', '-Wl,-z,now'];

function fail(message) {
  console.error(`native binding: ${message}`);
  process.exit(1);
}

const inputs = readdirSync(here)
  .filter((name) => name.endsWith('.c') || name.endsWith('.h') || name.endsWith('.mjs'))
  .map((name) => join(here, name));

function modified(path) {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

function findCompiler() {
  const candidates = process.env.CC ? [process.env.CC] : ['cc', 'gcc', 'clang'];
  for (const candidate of candidates) {
    const [command, ...flags] = candidate.split(/\s+/); // CC may be "ccache gcc"
    if (spawnSync(command, [...flags, '--version'], { stdio: 'ignore' }).status === 0) return [command, ...flags];
  }
  return fail(
    `no C compiler found (tried ${candidates.join(', ')}). Install one (Debian: apt install gcc libc6-dev; ` +
      'Fedora: dnf install gcc; Alpine: apk add build-base linux-headers) or name it in $CC.',
  );
}

/** What a compiler's complaint means for whoever is installing. */
function explain(stderr) {
  const header = /(?:fatal error: |error: )'?([\w/.-]+\.h)'?(?:: No such file| file not found)/.exec(stderr)?.[1];
  if (header?.startsWith('node_api') || header?.startsWith('js_native'))
    return `${header} is missing: run \`npm ci\` again`;
  if (header?.startsWith('linux/') || header?.startsWith('asm/'))
    return (
      `the Linux header ${header} is missing: install the kernel headers for user space, of Linux 5.9 or later ` +
      '(Debian: apt install linux-libc-dev; Fedora: dnf install kernel-headers; Alpine: apk add linux-headers)'
    );
  if (header !== undefined)
    return `the header ${header} is missing: install the C library's headers (Debian: apt install libc6-dev; Alpine: apk add musl-dev)`;
  const name = /['‘]([A-Z][A-Z0-9_]+)['’] undeclared|undeclared identifier '([A-Z][A-Z0-9_]+)'/.exec(stderr);
  if (name !== null)
    return `the Linux headers are too old, they lack ${name[1] ?? name[2]}: install those of Linux 5.9 or later`;
  return 'the C compiler failed, see above';
}

if (process.platform !== 'linux') fail(`Constellation runs on Linux only, this is ${process.platform}`);
if (modified(output) > Math.max(...inputs.map(modified))) process.exit(0);

const [compiler, ...compilerFlags] = findCompiler();
let headers;
try {
  headers = createRequire(import.meta.url)('node-api-headers').include_dir;
} catch {
  fail('the npm package node-api-headers is missing: run `npm ci`');
}
mkdirSync(dirname(output), { recursive: true });
// Built beside its place and renamed, so that a process that has the old one loaded keeps it whole.
const temporary = `${output}.${process.pid}.tmp`;
const sources = inputs.filter((name) => name.endsWith('.c'));
const run = spawnSync(
  compiler,
  [...compilerFlags, ...FLAGS, `-I${headers}`, '-o', temporary, ...sources, '-lm', '-lpthread'],
  {
    encoding: 'utf8',
  },
);
if (run.stderr) console.error(run.stderr.trimEnd());
if (run.status !== 0) {
  rmSync(temporary, { force: true });
  fail(explain(run.stderr ?? ''));
}
renameSync(temporary, output);
console.log(`native binding: built ${relative(process.cwd(), output)}`);
