/** Real downloads through one NAT that is stopped in order and started again. */

import { strict as assert } from 'node:assert';
import { needs } from '../support/require.js';
import { downloadsThroughOne } from './restarts.js';

describe('end to end: a restart of the only instance', function () {
  this.timeout(120_000);

  before(function () {
    needs(this, 'af_xdp', 'tool:curl');
  });

  it('breaks no download', async () => {
    const { restored } = await downloadsThroughOne({ count: 10, bytes: 600_000, rate: 30_000 });
    assert.ok(restored >= 10, `${restored} bindings were restored`);
  });
});
