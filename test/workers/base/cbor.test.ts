import { strict as assert } from 'node:assert';
import { Encoder, encode as encodeAny } from 'cbor-x';
import fc from 'fast-check';
import {
  CBOR_BYTES_MAX,
  CborError,
  checkFields,
  decodeCbor,
  encodeCbor,
  wholeField,
} from '../../../workers/base/cbor.js';

const same = (value: unknown): unknown => value;
const whole = wholeField(0, 10);

describe('CBOR', () => {
  it('is decoded as it was encoded', () => {
    const item = fc.oneof(fc.maxSafeInteger(), fc.string({ maxLength: 20 }), fc.boolean(), fc.constant(null));
    fc.assert(
      fc.property(fc.dictionary(fc.stringMatching(/^[a-z]{1,9}$/), fc.oneof(item, fc.array(item))), (value) => {
        assert.deepEqual(decodeCbor(encodeCbor(value), same), { ...value });
      }),
    );
  });

  it('is refused with a CborError, or decoded, whatever the bytes are', () => {
    const good = encodeCbor({ a: 1, b: [1, 2, 3], c: 'text', d: 2 ** 40 });
    const damaged = fc.tuple(fc.nat({ max: good.length - 1 }), fc.nat({ max: 255 })).map(([at, byte]) => {
      const bytes = Uint8Array.from(good);
      bytes[at] = byte;
      return bytes;
    });
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 40 }), damaged), (bytes) => {
        try {
          decodeCbor(bytes, (value) => checkFields<{ a: number }>(value, { a: whole }));
        } catch (error) {
          assert.ok(error instanceof CborError, String(error));
        }
      }),
      { numRuns: 2000 },
    );
  });

  it('never runs a codec extension, however deep it is', () => {
    // Tag 27 asks for a JavaScript object by its class, and others make dates, sets, bigints and
    // shared structures.
    const tagged = new Encoder({ structuredClone: true, useRecords: true });
    for (const value of [/x/, new Date(), new Set([1]), 10n ** 30n, new Error('x'), { a: 1 }, Float64Array.of(1)])
      for (const wrapped of [tagged.encode(value), encodeAny([1, [value]])]) {
        const isPlain = !wrapped.some((byte) => byte >>> 5 === 6);
        if (!isPlain) assert.throws(() => decodeCbor(wrapped, same), CborError, String(value));
      }
    assert.throws(() => decodeCbor(Buffer.from('d81b82646576616c6131', 'hex'), same), /not accepted/);
  });

  it('allocates for nothing that the bytes do not contain', () => {
    // An array, a map, a text and bytes, each of 2^32 - 1 items; an array without an end; nesting;
    // something behind.
    for (const hex of [
      '9affffffff',
      'baffffffff',
      '7affffffff',
      '5affffffff',
      '9f01ff',
      '8181818181818101',
      '0101',
      '',
    ])
      assert.throws(() => decodeCbor(Buffer.from(hex, 'hex'), same), CborError, hex);
    assert.throws(() => decodeCbor(new Uint8Array(CBOR_BYTES_MAX + 1), same), /may have 4096/);
    assert.throws(() => encodeCbor({ a: 'x'.repeat(CBOR_BYTES_MAX) }), /may have 4096/);
  });

  it('is checked field by field', () => {
    const check = (value: object) => () => decodeCbor(encodeCbor(value), (v) => checkFields(v, { a: whole }));
    assert.deepEqual(check({ a: 10 })(), { a: 10 });
    assert.throws(check({ a: 11 }), /wrong a: expected a whole number from 0 to 10, found 11/);
    assert.throws(check({}), /wrong a: .*found undefined/);
    assert.throws(check({ a: 1, z: 1 }), /unknown field "z"/);
    assert.throws(check([1]), /is not a map/);
    assert.throws(check(JSON.parse('{"a":1,"__proto__":{"b":1}}')), CborError);
    assert.equal(({} as { b?: number }).b, undefined);
  });
});
