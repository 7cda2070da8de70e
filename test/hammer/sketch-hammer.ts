/** What the hammers of graph, HyperLogLog and count-min sketch and their threads agree on. */

import { NONE } from '../../shm/none.js';
import type { StateDefinition, StateObject } from '../../shm/objects/core/object.js';
import { graph, type TrafficGraph } from '../../shm/objects/graph/graph.js';
import { type CountMin, countMin } from '../../shm/objects/sketch/count-min.js';
import { type HyperLogLog, hyperLogLog } from '../../shm/objects/sketch/hyperloglog.js';
import { type KeyedHyperLogLogs, keyedHyperLogLogs } from '../../shm/objects/sketch/keyed-hyperloglogs.js';

export const WORKERS = 4;
export const RECEIVER = WORKERS + 1;
/**
 * This instance, the one whose operations the receiver applies, and the one that is told
 * everything.
 */
export const MEMBERS = 3;
export const HAMMER_ID = 6;
export const NODES = 18;
/** Bytes of each packet in the graph: so counts can be checked against each other. */
export const PACKET_BYTES = 1000;

export type Kind = 'graph' | 'graph that expires' | 'hyperloglog' | 'keyed hyperloglogs' | 'count-min';

/** Of keyed HyperLogLogs: far fewer than there is room for, so that none is refused. */
export const KEYS = 100;

export const hammered: Readonly<Record<Kind, StateDefinition<StateObject>>> = {
  graph: graph({ edges: 1000, timeout: 1_000_000, members: MEMBERS }),
  'graph that expires': graph({ edges: 400, timeout: 2, members: MEMBERS }),
  hyperloglog: hyperLogLog({ precision: 12 }),
  'keyed hyperloglogs': keyedHyperLogLogs({
    capacity: 4096,
    keyWords: 1,
    sketches: 3,
    epochSeconds: 1000,
    promotions: 2 ** 30,
  }),
  'count-min': countMin({ width: 64, depth: 4, members: MEMBERS, heavy: { threshold: 1000 } }),
};

export interface SketchWork {
  readonly kind: Kind;
  readonly id: number;
  readonly region: SharedArrayBuffer;
  readonly local: SharedArrayBuffer;
  readonly journals: SharedArrayBuffer;
  /** Word 0: coarse seconds; word 1: not 0 when the threads are to end. */
  readonly control: SharedArrayBuffer;
  /** Null for the receiver. */
  readonly ring: SharedArrayBuffer | null;
  readonly seed: number;
}

export interface SketchEnd {
  /** What `operate` did, and could not. */
  readonly done: number;
  readonly refused: number;
  readonly torn: number;
  /** Of the receiver: the whole of the instance whose operations it applied. */
  readonly peer: SharedArrayBuffer | null;
}

const key = new Int32Array(1);
const thing = new Int32Array(1);

/** One operation of a worker; `n` is any number. Returns whether it was done. */
export function operate(kind: Kind, object: StateObject, n: number, now: number): boolean {
  if (kind === 'hyperloglog') return (object as HyperLogLog).add2(n, kind.length);
  if (kind === 'count-min') return (object as CountMin).count2(n % 50, 1, 1);
  if (kind === 'keyed hyperloglogs') {
    const keyed = object as KeyedHyperLogLogs;
    key[0] = n % KEYS;
    thing[0] = n;
    return keyed.add(keyed.hash(key, 0), key, 0, n % 3, thing, 0, 1, now) !== NONE;
  }
  // A second picks which nodes are busy, so that edges run out.
  const base = kind === 'graph' ? 0 : now * 5;
  const from = (base + (n % NODES)) % 64;
  const to = (base + (Math.trunc(n / NODES) % NODES)) % 64;
  return (object as TrafficGraph).add(from, to, 1, PACKET_BYTES, now);
}

/** Whether what a reader sees of some key was never so. */
export function isTorn(kind: Kind, object: StateObject, n: number, now: number): boolean {
  if (kind === 'hyperloglog' || kind === 'keyed hyperloglogs' || kind === 'count-min') return false;
  const traffic = object as TrafficGraph;
  return traffic.find(n % 64, Math.trunc(n / 64) % 64, now) && traffic.bytes !== traffic.packets * PACKET_BYTES;
}
