import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { stringify } from 'yaml';
import { parseConfig } from '../../daemon/config/config.js';
import { scaled } from '../support/scale.js';
import { fakeFirewall, fakeNat, RIGHT } from './fake-nat.js';

const known = { middleboxes: [fakeNat, fakeFirewall], cores: [0] };
const SECTIONS = [
  'cluster',
  'transport',
  'replication',
  'state',
  'threads',
  'packet_io',
  'ports',
  'middleboxes',
  'admin',
  'log',
];

/** Every answer is a configuration, or errors that all have a place. */
function assertAnswer(text: string): void {
  const { config, errors = [] } = parseConfig('f', text, known);
  if (config !== undefined) return;
  assert.ok(errors.length > 0);
  for (const error of errors) assert.match(error, /^f:\d+:\d+: \S/);
}

describe('configuration reader', () => {
  it('answers any text', () => {
    fc.assert(fc.property(fc.string({ unit: 'binary', maxLength: 200 }), assertAnswer), { numRuns: scaled(120, 300) });
  });

  it('answers the right configuration with a piece changed', () => {
    const piece = fc.constantFrom(
      '',
      ' ',
      '\n',
      '-',
      ': ',
      '[',
      '{',
      '}',
      '&a ',
      '*a',
      '!x ',
      '"',
      '|',
      '? ',
      'null',
      '1e9',
      '0x1',
    );
    fc.assert(
      fc.property(fc.nat(RIGHT.length), fc.nat(5), piece, (at, length, text) =>
        assertAnswer(RIGHT.slice(0, at) + text + RIGHT.slice(at + length)),
      ),
      { numRuns: scaled(200, 500) },
    );
  });

  it('answers any values in the right sections', () => {
    const values = fc.dictionary(fc.constantFrom(...SECTIONS), fc.jsonValue({ maxDepth: 4 }));
    fc.assert(
      fc.property(values, (value) => assertAnswer(stringify(value))),
      { numRuns: scaled(120, 300) },
    );
  });
});
