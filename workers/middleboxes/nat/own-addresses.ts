/**
 * Sources that no packet can have: the NAT's external addresses. A packet from outside with such a
 * source is forged; it would be hairpinned by the host that answers it, for ever if that host
 * answers answers. One from inside was translated already, and comes back by a loop. Both are
 * dropped, so a packet that was translated or hairpinned is never translated again.
 */

const SPREAD = 0x9e3779b1;
const MARKS = 1024;
const SHIFT = 22;

/**
 * A function that tells whether a raw address is one of `addresses`, in a load or two for most that
 * are not. `isOwn`: the exact answer. Made once per worker.
 */
export function createOwnTest(
  addresses: readonly number[],
  isOwn: (address: number) => boolean,
): (address: number) => boolean {
  const marks = new Uint8Array(MARKS);
  for (const address of addresses) marks[Math.imul(address, SPREAD) >>> SHIFT] = 1;
  return (address) => marks[Math.imul(address, SPREAD) >>> SHIFT] !== 0 && isOwn(address);
}
