import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { checksum, difference, difference16, update } from '../../../workers/packet/checksum.js';

describe('packet/checksum', () => {
  it('gives the example of RFC 1071 §3', () => {
    const bytes = Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7);
    const raw = checksum(bytes, 0, 8);
    // The sum there is ddf2 in network order; the raw half word is its complement, bytes swapped.
    assert.equal(((raw & 0xff) << 8) | (raw >> 8), ~0xddf2 & 0xffff);
  });

  it('is zero over bytes that carry their checksum, odd lengths included', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 4, maxLength: 99 }), (bytes) => {
        bytes[0] |= 1; // not all zero: zeroes have two sums
        bytes[2] = bytes[3] = 0;
        const sum = checksum(bytes, 0, bytes.length);
        bytes[2] = sum & 0xff;
        bytes[3] = sum >> 8;
        assert.equal(checksum(bytes, 0, bytes.length), 0);
      }),
    );
  });

  it('updated incrementally equals one computed anew', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 24, maxLength: 24 }),
        fc.integer(),
        fc.integer({ min: 0, max: 0xffff }),
        (bytes, word, half) => {
          bytes[23] |= 1;
          const view = new DataView(bytes.buffer);
          const before = checksum(bytes, 0, 24);
          const change = difference(view.getInt32(4, true), word) + difference16(view.getUint16(8, true), half);
          view.setInt32(4, word, true);
          view.setUint16(8, half, true);
          assert.equal(update(before, change), checksum(bytes, 0, 24));
        },
      ),
    );
  });

  it('does not take 0xffff for a checksum, as RFC 1624 §3 warns', () => {
    // The example there: checksum dd2f, a field of 5555 becomes 3285; the result is 0000, not ffff.
    assert.equal(update(0xdd2f, difference16(0x5555, 0x3285)), 0x0000);
  });
});
