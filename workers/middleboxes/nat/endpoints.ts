/**
 * From an internal endpoint to the external one and back, bound or mapped by hand: for what is not
 * looked up by the batch.
 */

import { type NatBinding, NONE, portAndProtocol } from '../../api.js';

export interface Endpoints {
  /** Of the endpoint found last, raw. */
  readonly address: number;
  readonly port: number;
  /** The slot of its binding; `NONE`: it is mapped by hand. */
  readonly slot: number;
  /** Whether it is mapped by hand. */
  readonly isMapped: boolean;
  /** Finds the external endpoint of an internal one. */
  toOutside(address: number, port: number, protocol: number, now: number): boolean;
  /** Finds the internal endpoint of an external one. */
  toInside(address: number, port: number, protocol: number, now: number): boolean;
  /** Whether an address is one of the NAT's own, outside. */
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
