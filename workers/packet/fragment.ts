/**
 * Values of a batch's `fragment` column. Only whole packets and first fragments have a transport
 * header.
 */
export const Fragment = {
  /** Not fragmented. */
  WHOLE: 0,
  /** The first fragment of several. */
  FIRST: 1,
  /**
   * Any other fragment: `l4` points at data. `ports` and `protocol` are those of the first
   * fragment, which has passed before; so is `flags` for ICMP (the type). See
   * workers/plane/fragments.ts.
   */
  LATER: 2,
  /**
   * A first IPv4 fragment that ends within its transport header. No middlebox sees it:
   * workers/plane/fragments.ts reassembles its datagram.
   */
  SHORT: 3,
} as const;
