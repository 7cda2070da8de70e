/**
 * Test for the `bypass` networks, which are reached without translation (RFC 6888 REQ-6). There are
 * few, so the search is linear.
 */

import type { Prefix } from '../../api/api.js';

/** Returns a function that tests whether a raw address is in a network. Made once per worker. */
export function createMatcher(prefixes: readonly Prefix[]): (address: number) => boolean {
  const count = prefixes.length;
  const addresses = Int32Array.from(prefixes, ({ address }) => address);
  const masks = Int32Array.from(prefixes, ({ mask }) => mask);
  return (address) => {
    for (let n = 0; n < count; n++) if ((address & masks[n]) === addresses[n]) return true;
    return false;
  };
}
