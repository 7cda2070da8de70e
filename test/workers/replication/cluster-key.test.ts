import { strict as assert } from 'node:assert';
import { deriveKey, keyLine, newKey, parseKeys } from '../../../workers/replication/wire/cluster-key.js';

const HEX = '000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f';
const BASE64 = 'AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQI=';

function wrong(text: string): string {
  try {
    parseKeys(text, '/k');
  } catch (error) {
    return (error as Error).message;
  }
  return 'right';
}

describe('key file', () => {
  it('holds one key or two, as base64 or hexadecimal, the one to send with first', () => {
    const keys = parseKeys(`# of 2026\n\n  7:${HEX}  \r\n3:${BASE64}\n`, '/k');
    assert.deepEqual(
      keys.map(({ id }) => id),
      [7, 3],
    );
    assert.deepEqual([...keys[0].secret], [...Array(32).keys()]);
    assert.equal(Buffer.from(keys[1].secret).toString('base64'), BASE64);
    const made = newKey(9);
    assert.deepEqual(parseKeys(keyLine(made), '/k'), [made]);
  });

  it('says which line is wrong, and shows none of it', () => {
    assert.match(wrong(`1:${HEX.slice(1)}`), /^\/k:1: expected ID:SECRET/);
    assert.match(wrong(`#\n1:${BASE64.slice(0, -2)}`), /^\/k:2: expected ID:SECRET/);
    assert.ok(!wrong(`1:${HEX}0`).includes(HEX.slice(4, 20)));
    assert.equal(wrong(`0:${HEX}`), "/k:1: a key's id is 1 … 255, not 0");
    assert.equal(wrong(`256:${HEX}`), "/k:1: a key's id is 1 … 255, not 256");
    assert.match(wrong(`1:${'ab'.repeat(32)}`), /^\/k:1: 32 equal bytes/);
    assert.match(wrong(`1:${HEX}\n1:${BASE64}`), /^\/k:2: there is a key 1 already/);
    assert.match(wrong(`1:${HEX}\n2:${HEX.toUpperCase()}`), /^\/k:2: this is the secret of key 1 again/);
    assert.match(wrong(`1:${HEX}\n2:${BASE64}\n3:${BASE64}`), /^\/k:3: /);
    assert.match(wrong(keyLine(newKey(1)) + keyLine(newKey(2)) + keyLine(newKey(3))), /^\/k:3: more than 2 keys/);
    assert.match(wrong('# none\n'), /^\/k: holds no key/);
  });

  it('gives another key for another secret, cluster, purpose or use, and always the same for the same', () => {
    const [key, other] = [newKey(1), newKey(1)];
    const [x, y] = [Uint8Array.of(1), Uint8Array.of(2)];
    const derived = [
      deriveKey(key, 5, 'datagram', x),
      deriveKey(other, 5, 'datagram', x),
      deriveKey(key, 6, 'datagram', x),
      deriveKey(key, 5, 'snapshot', x),
      deriveKey(key, 5, 'datagram', y),
    ];
    assert.equal(new Set(derived.map((bytes) => bytes.toString('hex'))).size, derived.length);
    assert.deepEqual(deriveKey(key, 5, 'datagram', x), derived[0]);
    assert.ok(derived.every((bytes) => bytes.length === 32));
  });
});
