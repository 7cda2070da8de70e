import { strict as assert } from 'node:assert';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { jsonSchema } from '../../conf/schema.js';
import { loadConfig } from '../../daemon/config/config.js';
import { builtInMiddleboxes } from '../../daemon/config/middleboxes.js';
import { schemaText } from '../../daemon/config/schema.js';
import { fakeNat } from './fake-nat.js';

const CONF = fileURLToPath(new URL('../../../conf/', import.meta.url));

describe('JSON Schema', () => {
  it('in the tree is current', async () => {
    const committed = JSON.parse(readFileSync(`${CONF}constellation.schema.json`, 'utf8'));
    assert.deepEqual(committed, JSON.parse(await schemaText()), 'it is not: run npm run schema');
  });

  it('lets middleboxes be named by their paths', () => {
    const { properties } = jsonSchema([fakeNat]) as { properties: Record<string, { items: Node }> };
    const [pattern] = Object.keys(properties['middleboxes'].items['patternProperties'] as Node);
    const paths = ['./guard.mjs', '../guard.mjs', '/etc/constellation/guard.mjs', 'guard.mjs', 'nat'];
    assert.deepEqual(
      paths.map((path) => new RegExp(pattern).test(path)),
      [true, true, true, false, false],
    );
  });

  it('describes every setting', () => {
    const missing: string[] = [];
    walk(jsonSchema([fakeNat]), '', (node, path) => {
      for (const [key, value] of Object.entries((node['properties'] ?? {}) as Record<string, Node>)) {
        if (typeof value['description'] !== 'string') missing.push(`${path}.${key}`);
      }
    });
    assert.deepEqual(missing, []);
  });
});

describe('example configurations', () => {
  const examples = readdirSync(`${CONF}examples`).filter((file) => file.endsWith('.yaml'));

  it('exist', () => assert.ok(examples.length >= 4));

  for (const example of examples) {
    it(`${example} is right, and says which schema it follows`, async () => {
      const file = `${CONF}examples/${example}`;
      // Examples name two cores; the machine that runs this test may have only one.
      const known = { middleboxes: await builtInMiddleboxes(), cores: [0, 1] };
      const { errors } = await loadConfig(file, known);
      assert.deepEqual(errors ?? [], []);
      assert.match(readFileSync(file, 'utf8'), /^# yaml-language-server: \$schema=\.\.\/constellation\.schema\.json\n/);
    });
  }
});

type Node = Record<string, unknown>;

function walk(node: Node, path: string, visit: (node: Node, path: string) => void): void {
  visit(node, path);
  for (const [key, value] of Object.entries(node)) {
    if (typeof value === 'object' && value !== null) walk(value as Node, `${path}/${key}`, visit);
  }
}
