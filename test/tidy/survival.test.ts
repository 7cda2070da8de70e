/** docs/survival.md names the test of each of its rows: they exist. */

import { strict as assert } from 'node:assert';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));

describe('docs/survival.md', () => {
  const rows = readFileSync(join(ROOT, 'docs/survival.md'), 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('| ') && !line.startsWith('| what happens') && !line.startsWith('| ---'));

  it('has rows whose every cell says something', () => {
    assert.ok(rows.length > 10);
    for (const row of rows) {
      const cells = row.split('|').slice(1, -1);
      assert.equal(cells.length, 5, row);
      assert.deepEqual(
        cells.filter((cell) => cell.trim() === ''),
        [],
        row,
      );
    }
  });

  it('names tests that there are', () => {
    const folder = join(ROOT, 'test');
    const titles = readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter((name) => /\.(test|long|soak)\.ts$/.test(name))
      .map((name) => readFileSync(join(folder, name), 'utf8'))
      .join('\n');
    const named = rows.flatMap((row) =>
      [...(row.split('|')[5] ?? '').matchAll(/"([^"]+)"/g)].map(([, title]) => title),
    );
    assert.ok(named.length >= rows.length);
    const missing = named.filter((title) => !titles.includes(`it('${title}'`) && !titles.includes(`it(\`${title}\``));
    assert.deepEqual(missing, []);
  });
});
