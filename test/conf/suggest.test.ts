import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { editDistance, nearest, suggestion } from '../../conf/suggest.js';

describe('did you mean', () => {
  it('finds what was meant', () => {
    const words = ['cluster', 'transport', 'replication', 'threads', 'log'];
    assert.equal(nearest('clsuter', words), 'cluster');
    assert.equal(nearest('LOG', words), 'log');
    assert.equal(nearest('lg', words), 'log');
    assert.equal(nearest('thread', words), 'threads');
    assert.equal(nearest('zebra', words), undefined);
    assert.equal(nearest('x', words), undefined);
    assert.equal(nearest('cluster'.repeat(100), words), undefined);
    assert.equal(suggestion('zebra', words), '');
  });

  it('counts edits', () => {
    assert.equal(editDistance('', 'abc'), 3);
    assert.equal(editDistance('kitten', 'sitting'), 3);
    assert.equal(editDistance('ab', 'ba'), 1);
  });

  it('is zero only for equal words, the same both ways, and at most the longer length', () => {
    const word = fc.string({ maxLength: 8 });
    fc.assert(
      fc.property(word, word, (a, b) => {
        const distance = editDistance(a, b);
        return (
          (distance === 0) === (a === b) && distance === editDistance(b, a) && distance <= Math.max(a.length, b.length)
        );
      }),
    );
  });
});
