import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { SIPHASH_KEY_WORDS, sipHash2 } from '../../shm/siphash.js';

const MASK = 2n ** 64n - 1n;
const rotate = (v: bigint, n: bigint): bigint => ((v << n) | (v >> (64n - n))) & MASK;

/** The definition, in 64-bit integers. */
function reference(key: Int32Array, a: number, b: number): bigint {
  const wide = (low: number, high: number): bigint => (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
  const [k0, k1] = [wide(key[0], key[1]), wide(key[2], key[3])];
  let v0 = k0 ^ 0x736f6d6570736575n;
  let v1 = k1 ^ 0x646f72616e646f6dn;
  let v2 = k0 ^ 0x6c7967656e657261n;
  let v3 = k1 ^ 0x7465646279746573n;
  const round = (): void => {
    v0 = (v0 + v1) & MASK;
    v1 = rotate(v1, 13n) ^ v0;
    v0 = rotate(v0, 32n);
    v2 = (v2 + v3) & MASK;
    v3 = rotate(v3, 16n) ^ v2;
    v0 = (v0 + v3) & MASK;
    v3 = rotate(v3, 21n) ^ v0;
    v2 = (v2 + v1) & MASK;
    v1 = rotate(v1, 17n) ^ v2;
    v2 = rotate(v2, 32n);
  };
  for (const block of [wide(a, b), 8n << 56n]) {
    v3 ^= block;
    round();
    round();
    v0 ^= block;
  }
  v2 ^= 0xffn;
  for (let i = 0; i < 4; i++) round();
  return v0 ^ v1 ^ v2 ^ v3;
}

function hashed(key: Int32Array, a: number, b: number): bigint {
  const out = { first: 0, second: 0 };
  sipHash2(key, a, b, out);
  return (BigInt(out.second >>> 0) << 32n) | BigInt(out.first >>> 0);
}

describe('siphash', () => {
  it('gives the published value for the published key and message of eight bytes', () => {
    const bytes = Uint8Array.from({ length: 16 }, (_, i) => i);
    const key = new Int32Array(bytes.buffer);
    assert.equal(key.length, SIPHASH_KEY_WORDS);
    assert.equal(hashed(key, key[0], key[1]), 0x93f5f5799a932462n);
  });

  it('is the definition in 64-bit integers, for any key and message', () => {
    const word = fc.oneof(fc.integer(), fc.constantFrom(0, -1, 0x7fff_ffff, -0x8000_0000));
    fc.assert(
      fc.property(fc.tuple(word, word, word, word), word, word, (words, a, b) => {
        const key = Int32Array.from(words);
        assert.equal(hashed(key, a, b), reference(key, a, b));
      }),
      { numRuns: 2000 },
    );
  });
});
