/** State that outlives a boot, or goes to another host, is about wall-clock time alone. */

import { strict as assert } from 'node:assert';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const OBJECTS = fileURLToPath(new URL('../../../shm/objects', import.meta.url));

describe('state objects', () => {
  it('read no clock that begins anew with a boot or a process', () => {
    const monotonic = /\b(performance|hrtime|monotonicMs|uptime)\b/;
    const files = readdirSync(OBJECTS, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'));
    assert.ok(files.length > 40);
    const wrong = files.filter((name) => monotonic.test(readFileSync(join(OBJECTS, name), 'utf8')));
    assert.deepEqual(wrong, []);
  });
});
