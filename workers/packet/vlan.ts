/**
 * VLAN tags (IEEE 802.1Q, 802.1ad): four bytes between the source address and the type, the outer one first.
 *
 *     0   type of the tag        2 bytes
 *     2   priority, VLAN id      2 bytes
 *
 * Four bytes keep the IP header on a word boundary.
 */

import { EtherType } from './ethernet.js';

export const VLAN_BYTES = 4;
/** The id in the second half word, host order. Id 0 is no VLAN: the tag carries a priority alone. */
export const VLAN_ID = 0x0fff;
/** An outer (service) and an inner (customer) tag. */
export const VLAN_TAGS_MAX = 2;

export function isVlan(type: number): boolean {
  return type === EtherType.VLAN || type === EtherType.SERVICE_VLAN;
}
