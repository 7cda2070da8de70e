/**
 * Filtering by remote at two levels: the configured one, and the one in force. The level in force
 * can be looser while members differ. The sessions of the two levels have different keys
 * (filter.ts). Sessions of the configured level are always made, so they exist when that level
 * comes into force at all sites. Sessions of the looser level are made until every member has
 * learned that it is no longer in force.
 */

import { FILTERINGS } from '../../api/api.js';
import { createFilter, type Filter, type FilterParts } from './filter.js';

const BY_ADDRESS = FILTERINGS.indexOf('address-dependent');

/** Made once per worker. `null`: no filtering is configured, so nothing is filtered. */
export function createFilters(parts: Omit<FilterParts, 'level'>): Filter | null {
  const { level } = parts.sessions;
  if (level.own === 0) return null;
  const strict = createFilter({ ...parts, level: level.own });
  if (level.own === BY_ADDRESS) return strict;
  // Made on first need. V8 treats the arrays of a function as constants only if the function is
  // made once.
  let loose: Filter | null = null;
  // For the current batch: `loose` if its level is in force here or may be elsewhere, else `null`.
  let second: Filter | null = null;

  function look(now: number): void {
    second = null;
    if (level.inForce !== BY_ADDRESS && !level.mayDiffer(now)) return;
    loose ??= createFilter({ ...parts, level: BY_ADDRESS });
    second = loose;
  }

  return {
    lookOutbound(indices, addresses, keys, count, now) {
      look(now);
      strict.lookOutbound(indices, addresses, keys, count, now);
      if (second !== null) second.lookOutbound(indices, addresses, keys, count, now);
    },
    sent: (i, n, binding, now) =>
      strict.sent(i, n, binding, now) && (second === null || second.sent(i, n, binding, now)),
    lookInbound(indices, addresses, keys, count, now) {
      look(now);
      strict.lookInbound(indices, addresses, keys, count, now);
      if (second !== null) second.lookInbound(indices, addresses, keys, count, now);
    },
    received: (i, n, binding, address, key, now) =>
      strict.received(i, n, binding, address, key, now) &&
      (second === null || second.received(i, n, binding, address, key, now)),
    turned: (i, binding, address, port, remote, port2, now) =>
      strict.turned(i, binding, address, port, remote, port2, now) &&
      (second === null || second.turned(i, binding, address, port, remote, port2, now)),
    permits: (binding, address, port, carried, remote, port2, now) =>
      strict.permits(binding, address, port, carried, remote, port2, now) &&
      (second === null || second.permits(binding, address, port, carried, remote, port2, now)),
    configure() {
      strict.configure();
      loose?.configure();
    },
    // Both levels use the same table.
    walk: strict.walk,
  };
}
