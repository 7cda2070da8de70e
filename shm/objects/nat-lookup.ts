/** Columns in which the NAT binding looks up many packets at once: nat-binding.ts makes them. */

/**
 * Packets from inside, to be looked up at once: several times as fast as one by one. Write the columns `addresses` and `keys`
 * (see `portAndProtocol`), call `find`, read `slots`: that of a valid binding, or `NONE`. `hashes` are for `add`. A binding
 * made after `find` is found by `findOutbound`.
 */
export interface OutboundLookup {
  readonly addresses: Int32Array;
  readonly keys: Int32Array;
  readonly hashes: Int32Array;
  readonly slots: Int32Array;
  /** Of the bindings found, raw. */
  readonly externalAddresses: Int32Array;
  readonly externalPorts: Int32Array;
  find(count: number, now: number): void;
}

/** The same for packets to external addresses. `places` are `NONE` for addresses that are none of ours. */
export interface InboundLookup {
  readonly addresses: Int32Array;
  readonly keys: Int32Array;
  readonly places: Int32Array;
  readonly slots: Int32Array;
  /** Of the bindings found; keys as `portAndProtocol` makes them. */
  readonly internalAddresses: Int32Array;
  readonly internalKeys: Int32Array;
  find(count: number, now: number): void;
}

export function columns(capacity: number): [Int32Array, Int32Array, Int32Array, Int32Array] {
  const column = (): Int32Array => new Int32Array(capacity);
  return [column(), column(), column(), column()];
}
