/**
 * VLAN tags (IEEE 802.1Q, 802.1ad, and the types used before them): four bytes between the source
 * address and the type, the outer tag first.
 *
 *     0   type of the tag        2 bytes
 *     2   priority, VLAN id      2 bytes
 *
 * Four bytes keep the IP header on a word boundary.
 */

import { EtherType } from './ethernet.js';

export const VLAN_BYTES = 4;
/**
 * Mask of the id in the second half word, host order. Id 0 means no VLAN: the tag only carries a
 * priority.
 */
export const VLAN_ID = 0x0fff;
/**
 * Most tags: an outer (service) and an inner (customer) tag, and two more, because some providers
 * stack more.
 */
export const VLAN_TAGS_MAX = 4;

/** Raw. */
const QINQ = 0x0091;
const QINQ_2 = 0x0092;

export function isVlan(type: number): boolean {
  return type === EtherType.VLAN || type === EtherType.SERVICE_VLAN || type === QINQ || type === QINQ_2;
}

/** Adds one tag to the link of a frame. `n` is the tag's position, from 0. */
export function linkBehind(link: number, n: number, id: number): number {
  return n < 2 ? (link << 12) | id : mixedLink(link, id);
}

const SPREAD_LINK = 0x9e3779b1;
const SPREAD_NUMBER = 0x85ebca6b;

/**
 * A link of 24 bits, mixed from a link and a number, for combinations without 24 bits of their own.
 * The same at every site.
 */
export function mixedLink(link: number, number: number): number {
  const mixed = Math.imul(link ^ Math.imul(number + 1, SPREAD_NUMBER), SPREAD_LINK);
  return Math.imul(mixed ^ (mixed >>> 15), SPREAD_NUMBER) >>> 8;
}
