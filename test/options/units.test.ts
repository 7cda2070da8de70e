import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { parseNumber, showNumber, suffixesOf, type Unit } from '../../options/units.js';

const UNITS: readonly Unit[] = ['ms', 's', 'bytes', 'bit/s'];

describe('numbers with units', () => {
  it('are read in the unit of the option', () => {
    const cases: readonly [Unit | undefined, unknown, number | null][] = [
      ['s', '5m', 300],
      ['s', 300, 300],
      ['s', '2h', 7200],
      ['s', '1.5m', 90],
      ['ms', '5s', 5000],
      ['ms', '0.2s', 200],
      ['bit/s', '10M', 10_000_000],
      ['bit/s', '10Mbit', 10_000_000],
      ['bytes', '256MiB', 256 * 1024 ** 2],
      ['bytes', '1.1MB', 1_100_000],
      // None of theirs, or no whole number of them.
      ['s', '5', null],
      ['s', '5 m', null],
      ['s', '500ms', null],
      ['ms', '0.5ms', null],
      ['bytes', '10M', null],
      ['s', -1.5, null],
      ['s', '1e3s', null],
      ['s', null, null],
      ['percent', '5%', null],
      [undefined, '5', null],
    ];
    for (const [unit, written, value] of cases) assert.equal(parseNumber(unit, written), value, `${written} ${unit}`);
  });

  it('read back what they show', () => {
    fc.assert(
      fc.property(fc.constantFrom(...UNITS), fc.nat(), fc.nat(30), (unit, number, shift) => {
        const value = number * 2 ** (shift % 20);
        const shown = showNumber(unit, value);
        const written = /^\d+( |$)/.test(shown) ? Number(shown.split(' ')[0]) : shown;
        assert.equal(parseNumber(unit, written), value, shown);
      }),
    );
  });

  it('have each suffix once', () => {
    for (const unit of UNITS)
      for (const suffix of suffixesOf(unit)) assert.notEqual(parseNumber(unit, `3${suffix}`), null, suffix);
  });
});
