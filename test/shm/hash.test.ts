import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { hash2, hash4, hasher2, hasher4, hashWords } from '../../shm/hash.js';

/**
 * HalfSipHash-1-3 as its authors describe it: bytes in, one byte at a time, unsigned arithmetic.
 */
function reference(key: readonly [number, number], bytes: Uint8Array): number {
  const v: [bigint, bigint, bigint, bigint] = [
    BigInt(key[0] >>> 0),
    BigInt(key[1] >>> 0),
    0x6c796765n ^ BigInt(key[0] >>> 0),
    0x74656462n ^ BigInt(key[1] >>> 0),
  ];
  const add = (a: bigint, b: bigint): bigint => (a + b) & 0xffffffffn;
  const rotate = (a: bigint, by: bigint): bigint => ((a << by) | (a >> (32n - by))) & 0xffffffffn;
  const round = (): void => {
    v[0] = add(v[0], v[1]);
    v[1] = rotate(v[1], 5n) ^ v[0];
    v[0] = rotate(v[0], 16n);
    v[2] = add(v[2], v[3]);
    v[3] = rotate(v[3], 8n) ^ v[2];
    v[0] = add(v[0], v[3]);
    v[3] = rotate(v[3], 7n) ^ v[0];
    v[2] = add(v[2], v[1]);
    v[1] = rotate(v[1], 13n) ^ v[2];
    v[2] = rotate(v[2], 16n);
  };
  const absorb = (word: bigint): void => {
    v[3] ^= word;
    round();
    v[0] ^= word;
  };
  const whole = bytes.length & ~3;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let i = 0; i < whole; i += 4) absorb(BigInt(view.getUint32(i, true)));
  let last = BigInt(bytes.length & 0xff) << 24n;
  for (let i = whole; i < bytes.length; i++) last |= BigInt(bytes[i]) << BigInt(8 * (i - whole));
  absorb(last);
  v[2] ^= 0xffn;
  for (let i = 0; i < 3; i++) round();
  return Number(v[1] ^ v[3]);
}

describe('hash', () => {
  const KEY = [0x03020100, 0x07060504] as const;

  // The published vectors of this variant: key 00…07, input 00 01 02 … of 4 × words bytes (Linux
  // lib/test_siphash.c).
  const VECTORS: readonly (readonly [number, number])[] = [
    [0, 0x5814c896],
    [1, 0x7e059ea6],
    [2, 0x577999b1],
    [3, 0x6b28096c],
    [4, 0x8b31d501],
    [10, 0x05327eb2],
    [15, 0x88b4c4cc],
  ];

  it('gives the published values', () => {
    for (const [words, expected] of VECTORS) {
      const bytes = Uint8Array.from({ length: words * 4 }, (_, i) => i);
      assert.equal(reference(KEY, bytes), expected);
      assert.equal(hashWords(KEY[0], KEY[1], new Int32Array(bytes.buffer), 0, words) >>> 0, expected);
    }
  });

  it('equals a straightforward reference over any words and key', () => {
    const word = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
    fc.assert(
      fc.property(word, word, fc.array(word, { maxLength: 40 }), (k0, k1, words) => {
        const input = Int32Array.from([7, ...words]);
        const expected = reference([k0, k1], new Uint8Array(input.buffer, 4, words.length * 4));
        assert.equal(hashWords(k0, k1, input, 1, words.length) >>> 0, expected);
        if (words.length === 2) assert.equal(hash2(k0, k1, words[0], words[1]) >>> 0, expected);
      }),
    );
    fc.assert(
      fc.property(word, word, word, word, (k0, k1, a, b) => {
        assert.equal(hash2(k0, k1, a, b), hashWords(k0, k1, Int32Array.of(a, b), 0, 2));
        const column = new Int32Array(3);
        hasher2(k0, k1, Int32Array.of(a, b, 0), Int32Array.of(b, a, 0), column)(2);
        assert.deepEqual([...column], [hash2(k0, k1, a, b), hash2(k0, k1, b, a), 0]);
        assert.equal(hash4(k0, k1, a, b, k0, k1), hashWords(k0, k1, Int32Array.of(a, b, k0, k1), 0, 4));
        hasher4(k0, k1, Int32Array.of(a, b, k0, k1, 1, 2, 3, 4), column)(2);
        assert.deepEqual([...column], [hash4(k0, k1, a, b, k0, k1), hash4(k0, k1, 1, 2, 3, 4), 0]);
      }),
    );
  });
});
