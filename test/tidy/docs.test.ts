/** The documents as a test: every link leads somewhere, and what the README shows is right. */

import { strict as assert } from 'node:assert';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadConfig } from '../../daemon/config/config.js';
import { builtInMiddleboxes } from '../../daemon/config/middleboxes.js';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const README_BYTES_MAX = 9000;
const PAGES = ['README.md', 'ARCHITECTURE.md', 'CHANGELOG.md'].concat(
  readdirSync(join(ROOT, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => join('docs', name)),
);

const textOf = (page: string): string => readFileSync(join(ROOT, page), 'utf8');
const withoutCode = (text: string): string => text.replace(/```.*?```/gs, '').replace(/`[^`\n]*`/g, '');

/** The anchors of a page's headings, as web views of repositories make them. */
function anchorsOf(page: string): Set<string> {
  const headings = [
    ...textOf(page)
      .replace(/```.*?```/gs, '')
      .matchAll(/^#+ (.+)$/gm),
  ];
  return new Set(
    headings.map(([, heading]) =>
      heading
        .toLowerCase()
        .replace(/[^\p{L}\p{N}_ -]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );
}

describe('documents', () => {
  for (const page of PAGES)
    it(`${page}: every link leads to a file of the tree, and to a heading in it`, () => {
      const broken: string[] = [];
      for (const [, link] of withoutCode(textOf(page)).matchAll(/\]\(([^)\s]+)\)/g)) {
        if (/^(https?|mailto):/.test(link)) continue;
        const [path, anchor] = link.split('#');
        const target = path === '' ? page : join(dirname(page), path);
        if (!existsSync(join(ROOT, target))) broken.push(`${link}: there is no ${target}`);
        else if (anchor !== undefined && target.endsWith('.md') && !anchorsOf(target).has(anchor))
          broken.push(`${link}: ${target} has no such heading`);
      }
      assert.deepEqual(broken, []);
    });

  it('are all named by the README, or by a page that it names', () => {
    const linked = (page: string): string[] =>
      [...textOf(page).matchAll(/\]\(([^)#\s]+\.md)/g)].map(([, path]) => join(dirname(page), path));
    const named = new Set(['README.md', ...linked('README.md')]);
    for (const page of [...named]) if (existsSync(join(ROOT, page))) for (const path of linked(page)) named.add(path);
    assert.deepEqual(
      PAGES.filter((page) => !named.has(page)),
      [],
    );
  });
});

describe('the README', () => {
  const readme = textOf('README.md');

  it(`has at most ${README_BYTES_MAX} bytes`, () => assert.ok(Buffer.byteLength(readme) <= README_BYTES_MAX));

  it('shows commands that exist', () => {
    const { scripts } = JSON.parse(textOf('package.json')) as { scripts: Record<string, string> };
    const named = [...readme.matchAll(/npm run ([\w:]+)/g)].map(([, name]) => name);
    assert.ok(named.length >= 2);
    assert.deepEqual(
      named.filter((name) => scripts[name] === undefined),
      [],
    );
  });

  it('shows a configuration that is right', async () => {
    const [, yaml] = /```yaml\n(.*?)```/s.exec(readme) as RegExpExecArray;
    const folder = mkdtempSync(join(tmpdir(), 'readme-'));
    try {
      writeFileSync(join(folder, 'a.yaml'), yaml);
      const known = { middleboxes: await builtInMiddleboxes(), cores: [0] };
      const { errors } = await loadConfig(join(folder, 'a.yaml'), known);
      assert.deepEqual(errors ?? [], []);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
