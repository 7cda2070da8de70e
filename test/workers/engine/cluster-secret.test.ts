import { strict as assert } from 'node:assert';
import { createClusterSecret, writeClusterSecret } from '../../../workers/engine/cluster-secret.js';
import { newKey } from '../../../workers/replication/wire/cluster-key.js';

const wordsOf = (buffer: SharedArrayBuffer): number[] => [...new Int32Array(buffer)];

describe('the secret of a cluster', () => {
  const [one, other] = [newKey(1), newKey(2)];

  it('is the same at every member and after a restart, and another in another cluster', () => {
    const secret = wordsOf(createClusterSecret(7, [one]));
    assert.deepEqual(wordsOf(createClusterSecret(7, [one])), secret);
    assert.notDeepEqual(wordsOf(createClusterSecret(8, [one])), secret);
    assert.ok(secret.every((word) => word !== 0));
    const raw = [...new Int32Array(one.secret.slice(0, 16).buffer)];
    assert.ok(
      secret.every((word) => !raw.includes(word)),
      'not the key itself',
    );
  });

  it('follows the key that is sent with, not the one that is accepted', () => {
    const buffer = createClusterSecret(7, [one]);
    const before = wordsOf(buffer);
    writeClusterSecret(buffer, 7, [one, other]);
    assert.deepEqual(wordsOf(buffer), before);
    writeClusterSecret(buffer, 7, [other, one]);
    const after = wordsOf(buffer);
    assert.notDeepEqual(after, before);
    writeClusterSecret(buffer, 7, [other]);
    assert.deepEqual(wordsOf(buffer), after);
  });

  it('is none without a key', () => {
    assert.deepEqual(wordsOf(createClusterSecret(7, null)), [0, 0, 0, 0]);
  });
});
