/** The replication settings of each member of a simulated cluster. */

import { type ReplicationSettings, replicationSettings } from '../../workers/replication/settings.js';
import type { Plan } from './plan.js';

export const MEANING_HASH = [0x1234567, -0x7654321] as const;
export const CLUSTER_ID = 0xc0ffee;

export function memberSettings(plan: Plan, member: number): ReplicationSettings {
  return replicationSettings({
    clusterId: CLUSTER_ID,
    self: member + 1,
    members: Array.from({ length: plan.members }, (_, i) => ({
      id: i + 1,
      name: `m${i + 1}`,
      address: `10.0.0.${i + 1}`,
      port: 7000,
    })),
    // Set here, so that a change of the defaults does not change what a seed shows.
    ackDelayMs: 2,
    keepaliveMs: 1000,
    ...plan.settings,
  });
}
