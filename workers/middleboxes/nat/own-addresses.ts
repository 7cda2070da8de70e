/**
 * Test for packets whose source is one of the NAT's external addresses. No valid packet has such a
 * source. From outside it is forged: the inside host's reply would be hairpinned, and if hosts
 * answer replies, for ever. From inside the packet was already translated and came back through a
 * loop. Both are dropped, so a translated or hairpinned packet is never translated again.
 */

const SPREAD = 0x9e3779b1;
const MARKS = 1024;
const SHIFT = 22;

/**
 * Returns a function that tests whether a raw address is one of `addresses`. For most other
 * addresses this takes a load or two. `isOwn` gives the exact answer. Made once per worker.
 */
export function createOwnTest(
  addresses: readonly number[],
  isOwn: (address: number) => boolean,
): (address: number) => boolean {
  const marks = new Uint8Array(MARKS);
  for (const address of addresses) marks[Math.imul(address, SPREAD) >>> SHIFT] = 1;
  return (address) => marks[Math.imul(address, SPREAD) >>> SHIFT] !== 0 && isOwn(address);
}
