/**
 * "No slot", "no room": what a lookup or an allocation on the packet path returns instead of
 * throwing.
 */
export const NONE = -1;
