import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { CBOR_BYTES_MAX, encodeCbor } from '../../../workers/base/cbor.js';
import { decodeAgreed, differences, encodeAgreed } from '../../../workers/snapshot/agreed.js';

const text = fc.string({ unit: fc.constantFrom('a', 'b', '0', '.', ' ', 'é'), maxLength: 300 });
const agreed = fc.record({
  release: fc.constantFrom('1.0.0', '2.0.0'),
  options: fc
    .array(fc.tuple(fc.string({ unit: 'grapheme-ascii', minLength: 1, maxLength: 60 }), text), { maxLength: 300 })
    .map((entries) => new Map(entries.filter(([name]) => name !== '__proto__'))),
  shapes: fc.array(
    fc.dictionary(
      fc.constantFrom('capacity', 'addresses'),
      fc.oneof(fc.nat(), fc.array(fc.nat(), { maxLength: 200 })),
      { noNullPrototype: true },
    ),
  ),
});

describe('what members have to agree on', () => {
  it('fits an answer, whatever it is, and does not differ from itself', () => {
    fc.assert(
      fc.property(agreed, (ours) => {
        const bytes = encodeAgreed(ours);
        assert.ok(bytes.length <= CBOR_BYTES_MAX);
        const said = decodeAgreed(bytes);
        assert.equal(said.release, ours.release);
        // What had no room is shown as missing there, and nothing else differs.
        for (const { theirs } of differences(ours, said)) assert.equal(theirs, null);
        if (said.shapes.length < ours.shapes.length) assert.ok(JSON.stringify(ours.shapes).length > 3000, 'no room');
        else
          for (const [i, shape] of said.shapes.entries())
            assert.deepEqual(shape, Object.keys(shape).length === 0 ? {} : ours.shapes[i]);
        if (ours.options.size <= 9) assert.deepEqual(differences(ours, said), []);
      }),
    );
  });

  it('says the shapes of the other objects if one has no room', () => {
    const addresses = Array.from({ length: 256 }, (_, i) => -2_000_000_000 - i);
    const shapes = [{ addresses, flows: 100 }, { capacity: 64, level: 2 }, {}];
    const said = decodeAgreed(encodeAgreed({ release: '1', options: new Map([['option', 'a value']]), shapes }));
    assert.deepEqual(said.shapes, [{}, shapes[1], {}]);
    assert.equal(said.options.get('option'), 'a value');
  });

  it('differs by name and both values, also where a value is long', () => {
    fc.assert(
      fc.property(text, text, (here, there) => {
        const [ours, theirs] = [here, there].map((value) => ({
          release: '1.0.0',
          options: new Map([
            ['same', '1'],
            ['option', value],
          ]),
          shapes: [],
        }));
        const found = differences(ours, decodeAgreed(encodeAgreed(theirs)));
        assert.deepEqual(
          found.map(({ option }) => option),
          here === there ? [] : ['option'],
        );
        if (here !== there && here.length <= 100 && there.length <= 100)
          assert.deepEqual(found, [{ option: 'option', ours: here, theirs: there }]);
        for (const { ours: shown } of found) assert.notEqual(shown, found[0].theirs);
      }),
    );
  });

  it('names what only one of the two has', () => {
    const [ours, theirs] = [['a'], ['b']].map(([name]) => ({
      ...{ release: '', options: new Map([[name, '1']]), shapes: [] },
    }));
    assert.deepEqual(differences(ours, theirs), [
      { option: 'a', ours: '1', theirs: null },
      { option: 'b', ours: null, theirs: '1' },
    ]);
  });

  it('is refused if it is anything else', () => {
    for (const wrong of [
      { release: 1, options: {}, shapes: [] },
      { release: '1', shapes: [] },
      { release: '1', options: {} },
      { release: '1', options: {}, shapes: [1] },
      { release: '1', options: {}, shapes: [{ a: 'text' }] },
      { release: '1', options: [], shapes: [] },
      { release: '1', options: { a: 1 }, shapes: [] },
      { release: 'a\u0007', options: {}, shapes: [] },
      { release: '1', options: { a: 'x'.repeat(161) }, shapes: [] },
      { release: '1', options: {}, shapes: [], more: 1 },
    ])
      assert.throws(() => decodeAgreed(encodeCbor(wrong)), Error, JSON.stringify(wrong));
  });
});
