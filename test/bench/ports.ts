/**
 * How often two sites give one external port to two endpoints (collisions), and two ports to one
 * endpoint (splits), by allocation, routing, delay and number of external addresses. The baseline
 * of collisions is 2·λ²·D/P, the expectation for sites that do not lease ports.
 */

import type { Allocation } from '../../shm/objects/nat/nat-binding.js';
import { choosePorts, expectedCollisions, ROUTINGS } from './ports-work.js';
import type { Bench, BenchResult } from './result.js';

const TCP = 6;
const UDP = 17;
const CASES: readonly { readonly allocation: Allocation; readonly protocol: number }[] = [
  { allocation: 'leased', protocol: UDP },
  { allocation: 'shared', protocol: UDP },
  { allocation: 'keyed', protocol: UDP },
  { allocation: 'hybrid', protocol: UDP },
  { allocation: 'hybrid', protocol: TCP },
];

export const run: Bench = async ({ quick }) => {
  const results: BenchResult[] = [];
  for (const addresses of quick ? [1] : [1, 8])
    for (const delayMs of quick ? [50] : [5, 50, 120])
      for (const routing of ROUTINGS)
        for (const which of CASES) {
          const one = { ...which, addresses, delayMs, routing };
          const { collisionsPerS, splits, several } = choosePorts(one);
          const allocation = which.protocol === TCP ? `${which.allocation} TCP` : which.allocation;
          const name = `ports/${addresses} address${addresses > 1 ? 'es' : ''}/${delayMs} ms/${routing}/${allocation}`;
          const share = (100 * splits) / several;
          results.push(
            {
              name: `${name}/collisions`,
              value: collisionsPerS,
              unit: '1/s',
              baseline: expectedCollisions(one),
              ratio: null,
            },
            {
              name: `${name}/splits`,
              value: share,
              unit: '% of endpoints with two remotes',
              baseline: null,
              ratio: null,
            },
          );
        }
  return results;
};
