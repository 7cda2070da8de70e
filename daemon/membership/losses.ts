/** Describes the entries that a smaller capacity loses, for people. */

import type { Loss } from '../../workers/snapshot/load.js';
import { counted } from '../base/counted.js';

/** `from`: the member or file that the state came from. */
export function describeLoss({ object, entries }: Loss, from: string): string {
  return `${object}: ${counted(entries, 'entry', 'entries')} of ${from} found no room here, or ${entries === 1 ? 'is' : 'are'} of an external address that is not configured here`;
}
