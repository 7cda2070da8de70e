/** Options of IPv4 and IPv6 headers, and source routes. */

import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { scaled } from '../../support/scale.js';
import { frame } from '../support/frames.js';
import { frame6 } from '../support/frames6.js';
import { type Extension6, withExtensions, withOptions } from '../support/headers.js';
import { Plane, type PlaneOptions } from '../support/plane.js';

const UDP = frame('udp 10.0.0.5:4000 > 198.51.100.7:53 len 8');
const UDP6 = frame6('udp 2001:db8::5 4000 > fd00::8 53 len 8');
const LOOSE = [131, 7, 4, 192, 0, 2, 9];
const STRICT = [137, 7, 4, 192, 0, 2, 9];
const RECORD_ROUTE = [7, 7, 4, 0, 0, 0, 0];
const ROUTER_ALERT = [148, 4, 0, 0];

const BOTH: readonly PlaneOptions[] = [{ route: null }, {}];
const pass = (options: PlaneOptions) => ({ ...options, frames: { sourceRoutes: 'pass' as const } });

/** What is counted of one frame, with a plain middlebox chain; {} if it passes. */
function counted(bytes: Uint8Array, options: PlaneOptions): Record<string, number> {
  const plane = new Plane(options);
  const out = plane.passFrames({ port: 0, frame: bytes });
  const counts = plane.counts();
  assert.equal(out.length, Object.keys(counts).length === 0 ? 1 : 0);
  return counts;
}

const MALFORMED: readonly [string, readonly number[]][] = [
  ['of length 0', [7, 0, 0, 0]],
  ['of length 1', [7, 1, 0, 0]],
  ['longer than the header', [7, 9, 4, 0]],
  ['longer than the header by a byte', [1, 148, 4, 0]],
  ['without a length', [1, 1, 1, 148]],
  ['that is an empty source route', [131, 2, 0, 0]],
  ['that is a source route with a pointer into itself', [131, 7, 3, 192, 0, 2, 9]],
  ['that is a second source route', [...LOOSE, ...STRICT]],
];

describe('IPv4 options', () => {
  for (const [what, options] of MALFORMED) {
    it(`${what} are dropped, whatever is told of source routes`, () => {
      for (const mode of BOTH)
        for (const one of [mode, pass(mode)])
          assert.deepEqual(counted(withOptions(UDP, options), one), { parse_ipv4_options: 1 });
    });
  }

  it('that are source routes are dropped, unless told to pass them', () => {
    for (const mode of BOTH)
      for (const options of [LOOSE, STRICT, [1, 1, ...LOOSE], [...RECORD_ROUTE, ...STRICT]]) {
        assert.deepEqual(counted(withOptions(UDP, options), mode), { parse_source_route: 1 });
        assert.deepEqual(counted(withOptions(UDP, options), pass(mode)), {});
      }
  });

  it('of other kinds pass, and what is behind the end of the list is nobody’s', () => {
    for (const mode of BOTH)
      for (const options of [[1, 1, 1, 1], RECORD_ROUTE, ROUTER_ALERT, [0, 131, 7, 0], [0, 7, 0, 0], [254, 2, 1, 0]])
        assert.deepEqual(counted(withOptions(UDP, options), mode), {});
  });

  it('are judged as a reader of lengths judges them', () => {
    const option = fc.oneof(
      fc.constantFrom([0], [1], LOOSE, RECORD_ROUTE, ROUTER_ALERT),
      fc.array(fc.oneof(fc.nat({ max: 9 }), fc.constantFrom(7, 131, 137, 148, 255)), { minLength: 1, maxLength: 8 }),
    );
    const options = fc.array(option, { maxLength: 6 }).map((list) => list.flat().slice(0, 40));
    fc.assert(
      fc.property(options, (bytes) => {
        const packet = withOptions(UDP, bytes);
        const written = packet.subarray(34, 14 + (packet[14] & 15) * 4);
        assert.deepEqual(counted(packet, { route: null }), judged([...written]));
      }),
      { numRuns: scaled(150, 400) },
    );
  });
});

/** As RFC 791 reads, from the first option to the rest. */
function judged(options: readonly number[], routes = 0): Record<string, number> {
  const [type, length = 0] = options;
  if (type === undefined || type === 0) return routes > 0 ? { parse_source_route: 1 } : {};
  if (type === 1) return judged(options.slice(1), routes);
  const isRoute = type === 131 || type === 137;
  const isWrong = length < 2 || length > options.length || (isRoute && (routes > 0 || length < 3 || options[2] < 4));
  return isWrong ? { parse_ipv4_options: 1 } : judged(options.slice(length), routes + Number(isRoute));
}

const routing = (type: number, left: number, bytes = 24): Extension6 => ({ header: 43, bytes, start: [type, left] });

describe('IPv6 extension headers', () => {
  it('that route through nodes still to be visited are dropped, unless told to pass them', () => {
    for (const mode of BOTH)
      for (const extension of [routing(0, 1), routing(0, 0), routing(1, 1), routing(3, 1), routing(4, 1)]) {
        const packet = withExtensions(UDP6, [extension]);
        assert.deepEqual(counted(packet, mode), { parse_source_route: 1 });
        assert.deepEqual(counted(packet, pass(mode)), {});
        const behind = withExtensions(UDP6, [{ header: 60, bytes: 8 }, extension, { header: 44, bytes: 8 }]);
        assert.deepEqual(counted(behind, mode), { parse_source_route: 1 });
      }
  });

  it('that name the home address of a mobile node, or whose nodes were all visited, pass', () => {
    for (const mode of BOTH)
      for (const extension of [routing(2, 1), routing(2, 0), routing(3, 0), routing(4, 0)])
        assert.deepEqual(counted(withExtensions(UDP6, [extension]), mode), {});
  });

  it('that route by a list that is not whole addresses, or shorter than it says, are dropped', () => {
    for (const extension of [routing(0, 1, 16), routing(0, 2, 24), routing(0, 255, 40)])
      assert.deepEqual(counted(withExtensions(UDP6, [extension]), pass({})), { parse_ipv6_extensions: 1 });
  });

  it('with options past their end are dropped, others pass', () => {
    const options = (header: number, ...start: number[]) => withExtensions(UDP6, [{ header, bytes: 8, start }]);
    for (const mode of BOTH)
      for (const header of [0, 60]) {
        for (const start of [
          [5, 5],
          [1, 5],
          [0, 0, 0, 0, 0, 1],
          [0, 0, 0, 0, 1, 1],
          [0xc2, 255],
        ])
          assert.deepEqual(counted(options(header, ...start), mode), { parse_ipv6_options: 1 }, `${header} ${start}`);
        for (const start of [[], [1, 4], [5, 2, 0, 0, 1, 0], [0, 0, 0, 0, 1, 0], [0xc2, 4]])
          assert.deepEqual(counted(options(header, ...start), mode), {}, `${header} ${start}`);
      }
  });
});
