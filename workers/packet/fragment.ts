/**
 * What the `fragment` column of a batch says of a packet. Only the first fragment has a transport
 * header.
 */
export const Fragment = {
  /** Not fragmented. */
  WHOLE: 0,
  /** The first fragment of several. */
  FIRST: 1,
  /**
   * Any other fragment: `l4` points at data. `ports` and `protocol` are those of the first one,
   * which passed before, and `flags` of ICMP its type: workers/fragments.ts.
   */
  LATER: 2,
  /**
   * A first fragment of IPv4 that ends within its transport header. No middlebox sees it:
   * workers/fragments.ts puts its datagram together.
   */
  SHORT: 3,
} as const;
