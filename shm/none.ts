/**
 * What a lookup or an allocation on the packet path returns instead of throwing: no slot, no room.
 */
export const NONE = -1;
