/**
 * Translates single endpoints between inside and outside, by bindings and static mappings. Used for
 * packets that the batch lookup does not cover.
 */

import { type NatBinding, NONE, portAndProtocol } from '../../api/api.js';

export interface Endpoints {
  /** Raw address of the endpoint found last. `port` is its port. */
  readonly address: number;
  readonly port: number;
  /** Slot of its binding. `NONE`: it has a static mapping. */
  readonly slot: number;
  /** True if it has a static mapping. */
  readonly isMapped: boolean;
  /** Finds the external endpoint of an internal one. False: it has none. */
  toOutside(address: number, port: number, protocol: number, now: number): boolean;
  /** Finds the internal endpoint of an external one. False: it has none. */
  toInside(address: number, port: number, protocol: number, now: number): boolean;
  /** Returns true if an address is an external address of the NAT. */
  isExternal(address: number): boolean;
}

export function createEndpoints(bindings: NatBinding): Endpoints {
  let foundAddress = 0;
  let foundPort = 0;
  let foundSlot: number = NONE;

  function byHand(found: boolean): boolean {
    if (!found) return false;
    foundAddress = bindings.statics.address;
    foundPort = bindings.statics.port;
    return true;
  }

  return {
    get address() {
      return foundAddress;
    },
    get port() {
      return foundPort;
    },
    get slot() {
      return foundSlot;
    },
    get isMapped() {
      return foundSlot === NONE;
    },
    toOutside(address, port, protocol, now) {
      const key = portAndProtocol(port, protocol);
      const slot = bindings.findOutbound(bindings.hash(address, key), address, key, now);
      foundSlot = slot;
      if (slot === NONE) return bindings.statics.count > 0 && byHand(bindings.statics.findOutbound(address, key));
      foundAddress = bindings.externalAddress(slot);
      foundPort = bindings.externalPort(slot);
      return true;
    },
    toInside(address, port, protocol, now) {
      const slot = bindings.findInbound(bindings.place(address, port, protocol), now);
      foundSlot = slot;
      if (slot === NONE)
        return (
          bindings.statics.count > 0 && byHand(bindings.statics.findInbound(address, portAndProtocol(port, protocol)))
        );
      foundAddress = bindings.internalAddress(slot);
      foundPort = bindings.internalPort(slot);
      return true;
    },
    isExternal: (address) =>
      bindings.isExternal(address) || (bindings.statics.count > 0 && bindings.statics.hasExternal(address)),
  };
}
