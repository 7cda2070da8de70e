/**
 * Translation of protocols without ports (GRE, ESP, IP in IP, SCTP and others), for addresses that
 * `static` maps whole. Both directions are translated, by address alone. SCTP's checksum does not
 * cover addresses. Those of UDP-Lite and DCCP do, and are updated. AH protects the addresses with a
 * digest, so it never passes a NAT.
 */

import { type Batch, type NatBinding, portAndProtocol, rewriteDestination, rewriteSource } from '../../api/api.js';
import type { COUNTERS } from './declaration.js';
import type { Endpoints } from './endpoints.js';

const AH = 51;

interface WholeAddressParts {
  readonly batch: Batch;
  readonly inside: number;
  readonly outside: number;
  readonly bindings: NatBinding;
  readonly endpoints: Endpoints;
  readonly isOwn: (address: number) => boolean;
  readonly counters: { readonly [Name in keyof typeof COUNTERS]: number };
}

/**
 * Returns a function that translates packet `i` of such a protocol. False: its address is not
 * mapped whole, or the protocol is AH. Made once per worker.
 */
export function createWholeAddressTranslator(parts: WholeAddressParts): (i: number, isFromInside: boolean) => boolean {
  const { batch, inside, outside, bindings, endpoints, isOwn, counters } = parts;
  const { source, destination, protocol } = batch;

  function fromInside(i: number, key: number): boolean {
    const internal = source[i];
    if (!bindings.statics.findOutbound(internal, key)) return false;
    rewriteSource(batch, i, bindings.statics.address, 0);
    if (!endpoints.isExternal(destination[i])) {
      batch.forward(i, outside);
      batch.count1(counters.outbound);
    } else if (!bindings.statics.findInbound(destination[i], key)) batch.drop(i, counters.unsolicited);
    else if (bindings.statics.address === internal) batch.drop(i, counters.own_source);
    else {
      rewriteDestination(batch, i, bindings.statics.address, 0);
      batch.forward(i, inside);
      batch.count1(counters.hairpinned);
    }
    return true;
  }

  function fromOutside(i: number, key: number): boolean {
    if (!bindings.statics.findInbound(destination[i], key)) return false;
    if (isOwn(source[i])) batch.drop(i, counters.own_source);
    else {
      rewriteDestination(batch, i, bindings.statics.address, 0);
      batch.forward(i, inside);
      batch.count1(counters.inbound);
    }
    return true;
  }

  return (i, isFromInside) => {
    if (protocol[i] === AH) return false;
    const key = portAndProtocol(0, protocol[i]);
    return isFromInside ? fromInside(i, key) : fromOutside(i, key);
  };
}
