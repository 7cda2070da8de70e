import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseConfig } from '../../../daemon/config/config.js';
import { builtInMiddleboxes } from '../../../daemon/config/middleboxes.js';
import { PROJECT } from '../../testbed/compile.js';

describe('configuration of the IDPS', () => {
  const example = readFileSync(join(PROJECT, 'conf/examples/idps-wire.yaml'), 'utf8');
  const errorsOf = async (text: string) =>
    parseConfig('/f', text, { middleboxes: await builtInMiddleboxes(), cores: [0] }).errors ?? [];

  it('says what is wrong with its options, where they are', async () => {
    for (const [from, to, message] of [
      [
        '192.0.2.10 ',
        '192.0.2.300 ',
        /\/f:27:9: middleboxes\[0\]\.idps\.allow: "192\.0\.2\.300" is not an IPv4 address/,
      ],
      ['dry_run: true', 'block_seconds: 60', /block_seconds: 60 is less than twice memory_seconds/],
      ['dry_run: true', 'excess: 1', /middleboxes\[0\]\.idps\.excess: /],
    ] as const) {
      const [error] = await errorsOf(example.replace(from, to));
      assert.match(error, message);
    }
  });
});
