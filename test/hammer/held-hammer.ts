/** What the hammer of held entries and its thread agree on. */

import type { LogProducer } from '../../shm/log.js';
import { createJournals, Journal } from '../../shm/objects/core/journal.js';
import { type TcpFlowTable, tcpFlowTable } from '../../shm/objects/flow/tcp-flow-table.js';
import { type NatBinding, natBinding, portAndProtocol } from '../../shm/objects/nat/nat-binding.js';
import { Region } from '../../shm/region.js';

export const NOW = 70_000_000;
export const CAPACITY = 30_000;
export const HOLD = { members: 2, deadline: 12_345 } as const;
const UDP = 17;

export interface HeldWork {
  readonly name: string;
  readonly region: SharedArrayBuffer;
  readonly local: SharedArrayBuffer;
  /** Word 0: the entry that the reader looks for; word 1: not 0 when the thread is to end. */
  readonly control: SharedArrayBuffer;
  readonly ring: SharedArrayBuffer;
}

const limits = { halfOpen: CAPACITY, halfOpenRecords: 10 * CAPACITY };

export const HELD = {
  'NAT bindings': natBinding({
    addresses: [0x010200c0],
    flows: CAPACITY,
    allocation: 'shared',
    holds: true,
    ...limits,
  }),
  connections: tcpFlowTable({ capacity: CAPACITY, keyWords: 4, valueWords: 1, ...limits }),
} as const;

export type HeldObject = NatBinding | TcpFlowTable;

export function openHeld(
  name: string,
  region: SharedArrayBuffer,
  local: SharedArrayBuffer,
  id: number,
  log: LogProducer | null,
): HeldObject {
  return HELD[name as keyof typeof HELD].open({
    id: 1,
    region: new Region(region),
    local: new Region(local),
    secret: Int32Array.of(1, 2, 3, 4),
    writer: { id, journal: new Journal(createJournals(id), id), log },
    memberIndex: 0,
    memberCount: 1,
  });
}

const key = new Int32Array(4);
const value = new Int32Array(1);
const endpoint = portAndProtocol(0x1234, UDP);

/** Makes the `n`-th entry. */
export function makeHeld(name: string, object: HeldObject, n: number, now: number): number {
  if (name === 'NAT bindings') {
    const bindings = object as NatBinding;
    return bindings.add(bindings.hash(n, endpoint), n, endpoint, now, now + 100);
  }
  const table = object as TcpFlowTable;
  key.fill(n);
  return table.add(table.hash(key, 0), key, 0, value, 0, 0, now, now + 100);
}

/** The slot of the `n`-th entry, as the packet path finds it. */
export function findHeld(name: string, object: HeldObject, n: number, now: number): number {
  if (name === 'NAT bindings') {
    const bindings = object as NatBinding;
    return bindings.findOutbound(bindings.hash(n, endpoint), n, endpoint, now);
  }
  const table = object as TcpFlowTable;
  key.fill(n);
  return table.find(table.hash(key, 0), key, 0, now);
}
