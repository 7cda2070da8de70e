import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { builtInMiddleboxes } from '../../daemon/config/middleboxes.js';
import { settingsText } from '../../daemon/config/settings-page.js';
import { changeOf } from '../../options/option.js';
import { ALL_SECTIONS } from '../../options/sections.js';

const PAGE = fileURLToPath(new URL('../../../docs/settings.md', import.meta.url));

describe('docs/settings.md', () => {
  it('is current', async () => {
    assert.equal(readFileSync(PAGE, 'utf8'), await settingsText(), 'it is not: run npm run settings');
  });

  it('has every option once, and gives the reason of each that all sites must agree on', async () => {
    const groups = [...ALL_SECTIONS, ...(await builtInMiddleboxes())];
    const all = readFileSync(PAGE, 'utf8')
      .split('\n')
      .filter((line) => line.startsWith('| `'));
    const rows = all.filter((line) => line.split(' | ').length >= 5);
    const declared = groups.flatMap(({ options }) => Object.values(options));
    assert.equal(rows.length, declared.length);
    // The list of middleboxes has to be the same, too.
    const agreed = declared.filter((option) => changeOf(option).kind === 'all-sites').length + 1;
    assert.equal(all.length - rows.length, agreed);
    for (const { options } of groups)
      for (const [name, option] of Object.entries(options)) {
        const { kind, reason } = changeOf(option);
        assert.equal(
          kind === 'all-sites',
          reason !== undefined,
          `${name}: a reason is given for all-sites, and only there`,
        );
      }
  });
});
