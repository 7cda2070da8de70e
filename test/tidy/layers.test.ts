/** Order as a test: who may import whom, and how large a file may grow. */

import { strict as assert } from 'node:assert';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const FOLDERS = ['daemon', 'workers', 'shm', 'conf', 'options', 'test'];
/** Of code: comments and empty lines do not count. */
const LINES_MAX = 570;
const COMMENT_COLUMNS_MAX = 100;

interface Source {
  /** From the root. */
  readonly path: string;
  readonly lines: number;
  /** Files of ours it imports, from the root; types included. */
  readonly imports: readonly string[];
}

function sources(): Source[] {
  return FOLDERS.flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => /\.(ts|c|h|mjs)$/.test(name))
      .map((name) => readSource(join(folder, name))),
  );
}

function readSource(path: string): Source {
  const text = readFileSync(join(ROOT, path), 'utf8');
  const imports = [...text.matchAll(/(?:from|import)\s*\(?\s*'(\.[^']+)'/g)].map(([, specifier]) =>
    relative(ROOT, resolve(ROOT, dirname(path), specifier.replace(/\.js$/, '.ts'))),
  );
  const lines = text.split('\n').filter((line) => !/^\s*($|\/\/|\/?\*)/.test(line)).length;
  return { path, lines, imports };
}

const top = (path: string): string => path.split('/')[0];

/** Types that others' exports are inferred to have, so that declarations must name them. */
const NAMED_BY_DECLARATIONS: ReadonlySet<string> = new Set(['shm/struct.ts: Struct']);

/** Who may import from whom, besides from itself. */
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  options: [],
  shm: ['options'],
  workers: ['shm', 'options'],
  conf: ['options'],
  daemon: ['workers', 'shm', 'conf', 'options'],
  test: ['daemon', 'workers', 'shm', 'conf', 'options'],
};

/**
 * The names that a file imports or passes on, by the file they come from. `default` and `*` too.
 */
function importedNames(path: string): [target: string, names: string[]][] {
  const text = readFileSync(join(ROOT, path), 'utf8');
  const found = text.matchAll(
    /(?:import|export)\s+(?:type\s+)?(?:(\w+),?\s*)?(\{[^}]*\}|\*(?: as \w+)?)?\s*from\s*'(\.[^']+)'/g,
  );
  return [...found].map(([, own, names, specifier]) => [
    relative(ROOT, resolve(ROOT, dirname(path), specifier.replace(/\.js$/, '.ts'))),
    [...(own === undefined ? [] : ['default']), ...namesIn(names ?? '')],
  ]);
}

const namesIn = (list: string): string[] =>
  list.startsWith('*')
    ? ['*']
    : list
        .replace(/[{}]|\btype\s/g, '')
        .split(',')
        .map((name) => name.trim().split(/\s+as\s+/)[0])
        .filter((name) => name !== '');

/** The names that a file declares and exports. */
function exportedNames(path: string): string[] {
  const text = readFileSync(join(ROOT, path), 'utf8');
  const declared = text.matchAll(
    /^export (?:abstract |async )?(?:const|let|function\*?|class|interface|type|enum) (\w+)/gm,
  );
  return [...new Set([...declared].map(([, name]) => name))];
}

/** A circle in a graph, as its nodes in order. `null` if there is none. */
function circle(graph: ReadonlyMap<string, readonly string[]>): string[] | null {
  const done = new Set<string>();
  const way: string[] = [];
  const walk = (node: string): string[] | null => {
    if (way.includes(node)) return [...way.slice(way.indexOf(node)), node];
    if (done.has(node)) return null;
    way.push(node);
    for (const next of new Set(graph.get(node) ?? [])) {
      const found = walk(next);
      if (found !== null) return found;
    }
    done.add(way.pop() as string);
    return null;
  };
  for (const node of graph.keys()) {
    const found = walk(node);
    if (found !== null) return found;
  }
  return null;
}

describe('the tree', () => {
  const all = sources();

  it('has the files the test thinks it reads', () => {
    const paths = new Set(all.map((source) => source.path));
    for (const path of ['daemon/constellationd.ts', 'workers/api/api.ts', 'shm/log.ts', 'workers/native/addon.c'])
      assert.ok(paths.has(path), path);
  });

  it('imports one way: daemon → workers → shm, conf only into daemon, and options everywhere', () => {
    const wrong = all.flatMap(({ path, imports }) =>
      imports
        .filter((target) => top(target) !== top(path) && !ALLOWED[top(path)].includes(top(target)))
        .map((target) => `${path} imports ${target}`),
    );
    assert.deepEqual(wrong, []);
  });

  it('keeps middleboxes to the public API', () => {
    const wrong = all
      .filter(({ path }) => path.startsWith('workers/middleboxes/'))
      .flatMap(({ path, imports }) =>
        imports
          .filter((target) => target !== 'workers/api/api.ts' && !target.startsWith('workers/middleboxes/'))
          .map((target) => `${path} imports ${target}`),
      );
    assert.deepEqual(wrong, []);
  });

  it('keeps the protocol core pure: no sockets, threads, transports, drivers or native code', () => {
    const impure = all
      .filter(({ path }) => path.startsWith('workers/replication/'))
      .flatMap(({ path, imports }) =>
        [
          ...imports.filter((target) => top(target) === 'workers' && !target.startsWith('workers/replication/')),
          ...[...readFileSync(join(ROOT, path), 'utf8').matchAll(/'node:(dgram|worker_threads|timers|fs)[^']*'/g)].map(
            ([specifier]) => specifier,
          ),
        ].map((target) => `${path} imports ${target}`),
      );
    assert.deepEqual(impure, []);
  });

  it('has no circle of imports, between files or between folders', () => {
    const own = all.filter(({ path }) => top(path) !== 'test');
    const files = new Map(own.map(({ path, imports }) => [path, imports]));
    const folders = new Map<string, string[]>();
    for (const { path, imports } of own) {
      const targets = imports.map((target) => dirname(target)).filter((folder) => folder !== dirname(path));
      folders.set(dirname(path), [...(folders.get(dirname(path)) ?? []), ...targets]);
    }
    assert.deepEqual({ files: circle(files), folders: circle(folders) }, { files: null, folders: null });
  });

  it('exports nothing that no other file imports', () => {
    const imported = new Map<string, Set<string>>();
    for (const { path } of all)
      for (const [target, names] of importedNames(path)) {
        const known = imported.get(target) ?? new Set();
        for (const name of names) known.add(name);
        imported.set(target, known);
      }
    const unused = all
      .filter(({ path }) => top(path) !== 'test' && path.endsWith('.ts') && path !== 'workers/api/api.ts')
      .flatMap(({ path }) =>
        exportedNames(path)
          .filter((name) => !imported.get(path)?.has(name))
          .map((name) => `${path}: ${name}`),
      );
    assert.deepEqual(
      unused.filter((name) => !NAMED_BY_DECLARATIONS.has(name)),
      [],
    );
  });

  it('has one importer of the native binding’s addon', () => {
    const importers = all
      .filter(({ path }) => top(path) !== 'test')
      .filter(({ path }) => path.endsWith('.ts') && readFileSync(join(ROOT, path), 'utf8').includes("'./addon.node'"))
      .map(({ path }) => path);
    assert.deepEqual(importers, ['workers/native/index.ts']);
  });

  it('has no file that nobody reaches', () => {
    const entries =
      /^(daemon\/constellationd?\.ts|workers\/(thread|api)\.ts|workers\/middleboxes\/|test\/|.*\.(c|h|mjs)$)/;
    const reached = new Set(all.flatMap(({ imports }) => imports));
    const dead = all.map(({ path }) => path).filter((path) => !entries.test(path) && !reached.has(path));
    assert.deepEqual(dead, []);
  });

  it(`has no file of more than ${LINES_MAX} lines of code`, () => {
    assert.deepEqual(
      all.filter(({ lines }) => lines > LINES_MAX).map(({ path, lines }) => `${path}: ${lines}`),
      [],
    );
  });

  it(`has no comment wider than ${COMMENT_COLUMNS_MAX} columns, but for tables and drawings`, () => {
    const isFree = (text: string): boolean => /^(\||biome-ignore| {2,})|[─│┌└├▶◀▼▲]/.test(text);
    const wide = all
      .filter(({ path }) => path.endsWith('.ts'))
      .flatMap(({ path }) =>
        readFileSync(join(ROOT, path), 'utf8')
          .split('\n')
          .filter((line) => {
            const [, comment] = /^\s*(?:\/\*\*|\*|\/\/) ?(.*)$/.exec(line) ?? [];
            return comment !== undefined && [...line].length > COMMENT_COLUMNS_MAX && !isFree(comment);
          })
          .map((line) => `${path}: ${line}`),
      );
    assert.deepEqual(wide, []);
  });

  it('has every file that README and ARCHITECTURE name', () => {
    const missing = ['README.md', 'ARCHITECTURE.md'].flatMap((page) => {
      const text = readFileSync(join(ROOT, page), 'utf8');
      const named = [
        ...text.matchAll(/[`(]((?:daemon|workers|shm|conf|options|systemd|test|\.ci)\/[\w./-]*)[`)]/g),
      ].map(([, path]) => path);
      return named.filter((path) => !existsSync(join(ROOT, path))).map((path) => `${page}: ${path}`);
    });
    assert.deepEqual(missing, []);
  });

  it('has no test switched off or run alone', () => {
    const marked = all
      .filter(({ path }) => /\.(test|long)\.ts$/.test(path))
      .filter(({ path }) => /\b(describe|it)\.(only|skip)\(/.test(readFileSync(join(ROOT, path), 'utf8')))
      .map(({ path }) => path);
    assert.deepEqual(marked, []);
  });
});
