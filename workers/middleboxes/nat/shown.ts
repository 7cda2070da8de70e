/** Bindings and sessions as `show flows` prints them. */

import { type FlowView, formatIpv4, type NatEntry, type NatSession, type StaticMapping } from '../../api/api.js';

const STATES = ['new', 'answered', 'established', 'closing', 'closed', 'shared'];

export function shownBinding(entry: NatEntry): FlowView {
  return {
    protocol: entry.protocol,
    inside: { address: formatIpv4(entry.internalAddress), port: entry.internalPort },
    external: { address: formatIpv4(entry.externalAddress), port: entry.externalPort },
    state: entry.dead ? 'dead' : STATES[entry.rank],
    expires: entry.expires,
  };
}

export function shownSession(entry: NatSession): FlowView {
  return {
    protocol: entry.protocol,
    inside: { address: formatIpv4(entry.internalAddress), port: entry.internalPort },
    remote: { address: formatIpv4(entry.remoteAddress), port: entry.remotePort },
    state: STATES[entry.rank],
    expires: entry.expires,
  };
}

/** A static mapping never expires. Protocol and ports of 0 mean the whole address. */
export function shownStatic(mapping: StaticMapping): FlowView {
  return {
    protocol: mapping.protocol,
    inside: { address: formatIpv4(mapping.internalAddress), port: mapping.internalPort },
    external: { address: formatIpv4(mapping.externalAddress), port: mapping.externalPort },
    state: 'static',
    expires: null,
  };
}
