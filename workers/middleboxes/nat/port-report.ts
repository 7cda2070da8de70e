/** Logs how external ports are chosen, if that differs from the configured `allocation`. */

import type { ALLOCATIONS } from '../../api/api.js';

interface Ports {
  readonly allocation: (typeof ALLOCATIONS)[number];
}

/** Returns a function that logs it once. */
export function createPortReport(
  { allocation }: Ports,
  bindings: { readonly proposesByKey: boolean },
  log: { info(text: string): void },
): () => void {
  let isSaid = bindings.proposesByKey || (allocation !== 'keyed' && allocation !== 'hybrid');
  return () => {
    if (!isSaid)
      log.info(
        `external ports are leased, not ${allocation}, since cluster.key_file is not set: an endpoint gets another port at each site, and after a restart`,
      );
    isSaid = true;
  };
}
