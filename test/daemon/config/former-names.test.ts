import { strict as assert } from 'node:assert';
import { parseConfig } from '../../../daemon/config/config.js';
import { fakeFirewall, fakeNat, RIGHT } from '../../conf/fake-nat.js';

const known = { middleboxes: [fakeNat, fakeFirewall], cores: [0, 1, 2, 5] };

describe('a configuration of an earlier release', () => {
  it('accepts former names of options, and names them in errors', () => {
    const replication = (text: string) => parseConfig('f', `${RIGHT}replication: ${text}\n`, known);
    assert.equal(replication('{ debt_bytes: 1MiB }').config?.replication.backlog_bytes, 1 << 20);
    assert.deepEqual(
      replication('{ debt_bytes: -1 }').errors?.map((error) => error.replace(/:.*?replication/, ': replication')),
      [
        replication('{ backlog_bytes: -1 }')
          .errors?.[0].replace(/:.*?replication/, ': replication')
          .replace('backlog', 'debt'),
      ],
    );
    assert.match(replication('{ debt_bytes: 1MiB, backlog_bytes: 1MiB }').errors?.[0] ?? '', /unknown.*debt_bytes/);
  });
});
