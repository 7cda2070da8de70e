import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { SketchHash, seeded } from '../../../../shm/objects/sketch/sketch-hash.js';

/** HalfSipHash-1-3 with 64-bit output after the paper's figures, in the plainest form. */
function reference(k0: number, k1: number, words: readonly number[]): [number, number] {
  let v = [k0, k1 ^ 0xee, 0x6c796765 ^ k0, 0x74656462 ^ k1];
  const rotate = (x: number, by: number): number => (x << by) | (x >>> (32 - by));
  const round = (): void => {
    let [a, b, c, d] = v;
    a = (a + b) | 0;
    b = rotate(b, 5) ^ a;
    a = rotate(a, 16);
    c = (c + d) | 0;
    d = rotate(d, 8) ^ c;
    a = (a + d) | 0;
    d = rotate(d, 7) ^ a;
    c = (c + b) | 0;
    b = rotate(b, 13) ^ c;
    c = rotate(c, 16);
    v = [a, b, c, d];
  };
  for (const word of [...words, words.length << 26]) {
    v[3] ^= word;
    round();
    v[0] ^= word;
  }
  v[2] ^= 0xee;
  for (let i = 0; i < 3; i++) round();
  const first = v[1] ^ v[3];
  v[1] ^= 0xdd;
  for (let i = 0; i < 3; i++) round();
  return [first, v[1] ^ v[3]];
}

const word = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });

describe('the hash of sketches', () => {
  it('is HalfSipHash with two words of output', () => {
    fc.assert(
      fc.property(word, word, fc.array(word, { maxLength: 12 }), fc.nat({ max: 3 }), (k0, k1, key, before) => {
        const hash = new SketchHash(k0, k1);
        hash.hash(Int32Array.from([...new Array<number>(before).fill(0), ...key]), before, key.length);
        assert.deepEqual([hash.first, hash.second], reference(k0, k1, key));
        if (key.length !== 2) return;
        hash.hash2(key[0], key[1]);
        assert.deepEqual([hash.first, hash.second], reference(k0, k1, key));
      }),
    );
  });

  it('follows from the declaration, and from a seed that the parameters do not show', () => {
    const words = (name: string, width: number, seed: string): string => {
      const hash = seeded(name, { width }, seed).hash();
      hash.hash2(1, 2);
      return `${hash.first} ${hash.second}`;
    };
    assert.equal(words('a', 1, ''), words('a', 1, ''));
    const all = [words('a', 1, ''), words('b', 1, ''), words('a', 2, ''), words('a', 1, 'x'), words('a', 1, 'y')];
    assert.equal(new Set(all).size, all.length);
    const [none, x, y] = ['', 'x', 'y'].map((seed) => JSON.stringify(seeded('a', { width: 1 }, seed).parameters));
    assert.equal(new Set([none, x, y]).size, 3);
  });
});
