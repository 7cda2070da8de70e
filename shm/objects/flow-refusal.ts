/** Why `add` returned `NONE`. */
export const FlowRefusal = {
  NONE: 0,
  TABLE_FULL: 1,
  LOG_FULL: 2,
  CONTENDED: 3,
  /** The quota of half-open entries is full, and none could be put out. */
  HALF_OPEN: 4,
} as const;
export type FlowRefusal = (typeof FlowRefusal)[keyof typeof FlowRefusal];
