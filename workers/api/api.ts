/**
 * Everything that a middlebox may import, as `constellation`: its declaration, packets, and state
 * objects. docs/tutorial.md shows how to write a middlebox.
 */

// ——— The declaration of a middlebox ———

export { allSites, HOT, OptionError, option, type Prefix, ROLLING, rollingLosing } from '../../options/option.js';
export type { EventFields } from '../../shm/events.js';
export { BATCH_CAPACITY, type Batch, DROPPED } from '../packet/batch.js';
export { PORTS_MAX } from '../packet/ports.js';
export { EARLY_KEY_WORDS_MAX, type EarlyReplies, type Expectation, type IsKnown } from './early-replies.js';
export { HOLD_MS_MAX, type Holds } from './holds.js';
export { ALONE, MemberState, type Members } from './members.js';
export {
  defineMiddlebox,
  type FlowEnd,
  type FlowView,
  type Middlebox,
  type OpenArguments,
  type Process,
  type SharedState,
  type Sides,
  shown,
  type TimerOptions,
  type Watch,
} from './middlebox.js';
export type { MiddleboxLog } from './middlebox-log.js';
export type { OnLink } from './on-link.js';
export type { OrderHandler, OrderKind } from './orders.js';
export { type Recorder, type RecordFields, type RecordKind, recordKind } from './records.js';
export type {
  CompiledRules,
  RuleEntry,
  RuleProblem,
  RulesCompiler,
  RulesContext,
} from './rules.js';
export type { TimerCallback } from './timers.js';

// ——— Packets ———

export { NONE } from '../../shm/none.js';
export { destinationPort, sourcePort } from '../packet/five-tuple.js';
export { Fragment } from '../packet/fragment.js';
export { IcmpType, Icmpv6Type } from '../packet/icmp.js';
export {
  formatIpv4,
  hasPorts,
  Protocol,
  parseIpv4,
  swap16 as portNumber,
  swap16 as rawPort,
  upperNumber,
} from '../packet/ipv4.js';
export { formatIpv6, parseIpv6 } from '../packet/ipv6.js';
export { type PacketKeys, packetKeys } from '../packet/keys.js';
export { createMssClamp, MSS_MAX, MSS_MIN } from '../packet/mss.js';
export type { Mode } from '../packet/parse.js';
export { isError, Quoted } from '../packet/quoted.js';
export { type Rewrites, rewriteDestination, rewriteSource } from '../packet/rewrite.js';
export { TcpFlag } from '../packet/tcp.js';
export { type Replies, Unreachable } from './replies.js';
export { createTcpWindow, type TcpWindow } from './tcp-window.js';

// ——— State objects ———

export { coarseSeconds, expiryAfter, unixMs } from '../../shm/clock.js';
export {
  type CounterCells,
  type CounterCellsOptions,
  counterCells,
  type WireForm,
} from '../../shm/objects/counting/counter-cells.js';
export { type Counter, type CounterVector, counter, counterVector } from '../../shm/objects/counting/counters.js';
export {
  FlowRefusal,
  type FlowTable,
  type FlowTableOptions,
  flowTable,
  KEY_WORDS_IPV4_ENDPOINT,
  KEY_WORDS_IPV4_FIVE_TUPLE,
  KEY_WORDS_IPV6_FIVE_TUPLE,
  largerValue,
  type Winner,
} from '../../shm/objects/flow/flow-table.js';
export { Plausible, Rank, type TcpFlowTable, tcpFlowTable } from '../../shm/objects/flow/tcp-flow-table.js';
export { GraphRefusal, graph, type TrafficGraph } from '../../shm/objects/graph/graph.js';
export { FILTERINGS, type Filtering } from '../../shm/objects/nat/filter-level.js';
export {
  ALLOCATIONS,
  LOOKED_AT_WITHIN_S,
  MappingError,
  type NatBinding,
  type NatEntry,
  natBinding,
  portAndProtocol,
  Rank as NatRank,
  Refusal,
  type StaticMapping,
} from '../../shm/objects/nat/nat-binding.js';
export { type NatSession, type NatSessions, natSessions } from '../../shm/objects/nat/nat-sessions.js';
export { type PortPool, portPool } from '../../shm/objects/ports/port-pool.js';
export { type Extreme, type LastWriter, largest, lastWriter, smallest } from '../../shm/objects/sets/register.js';
export { FOREVER, growSet, removeSet, SetRefusal, type SharedSet } from '../../shm/objects/sets/shared-set.js';
export { type BloomFilter, bloom } from '../../shm/objects/sketch/bloom.js';
export { type CountMin, countMin } from '../../shm/objects/sketch/count-min.js';
export { type CountingBloom, countingBloom } from '../../shm/objects/sketch/counting-bloom.js';
export type { HeavyHitter } from '../../shm/objects/sketch/heavy-hitters.js';
export { type HyperLogLog, hyperLogLog } from '../../shm/objects/sketch/hyperloglog.js';
export {
  type KeyedHyperLogLogs,
  type KeyedHyperLogLogsOptions,
  keyedHyperLogLogs,
} from '../../shm/objects/sketch/keyed-hyperloglogs.js';
export type { Answers } from '../../shm/objects/table/answers.js';
export type { HalfOpenOptions } from '../../shm/objects/table/half-open.js';
export { idleExpiry } from '../../shm/objects/table/idle-expiry.js';
export { monotonicMs } from '../base/monotonic.js';

// ——— Parts for a state object of your own, including one over several structures ———

export type { LogProducer } from '../../shm/log.js';
export { ContentDigest } from '../../shm/objects/core/content-digest.js';
export type { Journal } from '../../shm/objects/core/journal.js';
export { capacityAt, capacityOf, type MergeSource } from '../../shm/objects/core/merge-source.js';
export {
  Applied,
  type Delivery,
  merged,
  type OpenContext,
  type StateDefinition,
  type StateObject,
  type Writer,
} from '../../shm/objects/core/object.js';
export { LOCK_MASK, recoverTransaction, Transaction, tryAgain } from '../../shm/objects/core/transaction.js';
export { type SketchHash, seeded } from '../../shm/objects/sketch/sketch-hash.js';
export { Region } from '../../shm/region.js';
export { LINE, struct } from '../../shm/struct.js';
