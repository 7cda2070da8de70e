/**
 * Networks outside that are reached without translation (RFC 6888 REQ-6): a few, so they are gone
 * through.
 */

import type { Prefix } from '../../api.js';

/** A function that tells whether a raw address is in one of the networks; made once per worker. */
export function createMatcher(prefixes: readonly Prefix[]): (address: number) => boolean {
  const count = prefixes.length;
  const addresses = Int32Array.from(prefixes, ({ address }) => address);
  const masks = Int32Array.from(prefixes, ({ mask }) => mask);
  return (address) => {
    for (let n = 0; n < count; n++) if ((address & masks[n]) === addresses[n]) return true;
    return false;
  };
}
