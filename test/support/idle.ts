/**
 * The inverse of `idleExpiry`: returns the timer of an entry that was refreshed just now and has
 * `left` seconds left.
 */

import { idleExpiry } from '../../shm/objects/table/idle-expiry.js';

export function timerOf(left: number): number {
  let timer = Math.floor((left * 8) / 9) - 2;
  while (idleExpiry(0, timer + 1) <= left) timer++;
  return timer;
}
