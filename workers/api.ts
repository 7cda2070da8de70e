/** All that a middlebox may import. */

// What packets are.
export { NONE } from '../shm/none.js';
// State objects.
export { type BloomFilter, bloom } from '../shm/objects/bloom.js';
export { type CountMin, countMin } from '../shm/objects/count-min.js';
export {
  type CounterCells,
  type CounterCellsOptions,
  counterCells,
  type WireForm,
} from '../shm/objects/counter-cells.js';
export { type Counter, type CounterVector, counter, counterVector } from '../shm/objects/counters.js';
export { type CountingBloom, countingBloom } from '../shm/objects/counting-bloom.js';
export { GraphRefusal, graph, type TrafficGraph } from '../shm/objects/graph.js';
export type { HeavyHitter } from '../shm/objects/heavy-hitters.js';
export { type HyperLogLog, hyperLogLog } from '../shm/objects/hyperloglog.js';
export { type NatBinding, natBinding, portAndProtocol, Rank, Refusal } from '../shm/objects/nat-binding.js';
export { type Extreme, type LastWriter, largest, lastWriter, smallest } from '../shm/objects/register.js';
export { FOREVER, growSet, removeSet, SetRefusal, type SharedSet } from '../shm/objects/shared-set.js';
export { BATCH_CAPACITY, type Batch, DROPPED } from './batch.js';
// How a middlebox is declared.
export { defineMiddlebox } from './middlebox.js';
export { option } from './options.js';
export { destinationPort, sourcePort } from './packet/five-tuple.js';
export { Fragment } from './packet/fragment.js';
export { IcmpType } from './packet/icmp.js';
export { Protocol } from './packet/ipv4.js';
export { isError, Quoted } from './packet/quoted.js';
export { type Rewrites, rewriteDestination, rewriteSource } from './packet/rewrite.js';
export { TcpFlag } from './packet/tcp.js';
export { PORTS_MAX } from './ports.js';
