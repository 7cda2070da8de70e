/**
 * The timer of an entry whose last refresh, just now, left it `left` seconds: what `idleExpiry`
 * makes of it, the other way round.
 */

import { idleExpiry } from '../../shm/objects/idle-expiry.js';

export function timerOf(left: number): number {
  let timer = Math.floor((left * 8) / 9) - 2;
  while (idleExpiry(0, timer + 1) <= left) timer++;
  return timer;
}
