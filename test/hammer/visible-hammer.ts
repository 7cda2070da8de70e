/**
 * What the hammer of visibility and its threads agree on: objects with a few entries that stay
 * current while records about them are applied; and for each object which records, and how a reader
 * asks whether an entry is there.
 */

import { createJournals, Journal } from '../../shm/objects/core/journal.js';
import { Applied, type StateDefinition, type StateObject } from '../../shm/objects/core/object.js';
import { FLOW_PUT, type FlowTable, flowTable } from '../../shm/objects/flow/flow-table.js';
import { type TcpFlowTable, tcpFlowTable } from '../../shm/objects/flow/tcp-flow-table.js';
import { NAT_BIND, type NatBinding, natBinding, portAndProtocol } from '../../shm/objects/nat/nat-binding.js';
import { type NatSessions, natSessions } from '../../shm/objects/nat/nat-sessions.js';
import { PORT_CLAIM, type PortPool, portPool } from '../../shm/objects/ports/port-pool.js';
import { type LastWriter, lastWriter, REGISTER_SET } from '../../shm/objects/sets/register.js';
import { growSet, removeSet, SET_ADD, SET_REMOVE, type SharedSet } from '../../shm/objects/sets/shared-set.js';
import { Region } from '../../shm/region.js';

export const ENTRIES = 8;
/** Of the thread that applies. A reader's clock is a second behind. */
export const NOW = 70_000_000;
export const READ_AT = NOW - 1;
/** Generations grow from here on, and never reach an expiry. */
const FIRST_GENERATION = NOW - 1_000_000;
const GENERATIONS = 900_000;

const ADDRESS = 0x010200c0;
const UDP = 17;
const FIRST_PORT = 2000;

export interface Visible<T extends StateObject = StateObject> {
  readonly definition: StateDefinition<T>;
  /** The `n`-th record, about some entry. The first `ENTRIES` are about one each. */
  record(n: number): { readonly op: number; readonly words: readonly number[] };
  /** A function that says which entry cannot be found, or -1. */
  reader(object: T): () => number;
}

const generationOf = (n: number): number => FIRST_GENERATION + (Math.trunc(n / ENTRIES) % GENERATIONS);
/** Some expire as the record is applied: for the reader they are current. */
const expiryOf = (n: number): number => NOW + (Math.trunc(n / ENTRIES) % 3 === 0 ? 0 : 100);

function flows<T extends FlowTable>(definition: StateDefinition<T>, valueWords: number, ranks: number): Visible<T> {
  const keyOf = (entry: number): number[] => [entry, entry * 3, entry * 5, entry * 7];
  return {
    definition,
    record: (n) => ({
      op: FLOW_PUT,
      words: [
        ...keyOf(n % ENTRIES),
        generationOf(n),
        Math.trunc(n / ENTRIES) % ranks,
        expiryOf(n),
        ...Array.from({ length: valueWords }, () => n),
      ],
    }),
    reader(object) {
      const known = object.lookup(ENTRIES);
      for (let entry = 0; entry < ENTRIES; entry++) known.keys.set(keyOf(entry), 4 * entry);
      return () => {
        known.find(ENTRIES, READ_AT);
        for (let entry = 0; entry < ENTRIES; entry++) {
          if (known.slots[entry] < 0) return entry;
          if (object.find(known.hashes[entry], known.keys, 4 * entry, READ_AT) < 0) return entry;
        }
        return -1;
      };
    },
  };
}

const swapped = (port: number): number => ((port & 0xff) << 8) | (port >>> 8);

/**
 * Every other entry keeps its port, and can be found by it; the others get another port with each
 * record.
 */
const bindings: Visible<NatBinding> = {
  definition: natBinding({
    addresses: [ADDRESS],
    flows: 64,
    portRange: { first: FIRST_PORT, last: FIRST_PORT + 4 * ENTRIES - 1 },
    allocation: 'shared',
    halfOpen: 64,
  }),
  record(n) {
    const entry = n % ENTRIES;
    const turn = Math.trunc(n / ENTRIES);
    const port = FIRST_PORT + 2 * entry + (entry % 2 === 0 ? 0 : turn % 2);
    const claim = 1 + (turn % 1_000_000);
    const rank = turn % 6;
    const words = [entry + 1, portAndProtocol(swapped(1000 + entry), UDP), ADDRESS, port];
    return { op: NAT_BIND, words: [...words, generationOf(n), (claim << 8) | rank, expiryOf(n)] };
  },
  reader(object) {
    const out = object.outboundLookup(ENTRIES);
    const back = object.inboundLookup(ENTRIES);
    for (let entry = 0; entry < ENTRIES; entry++) {
      out.addresses[entry] = entry + 1;
      out.keys[entry] = portAndProtocol(swapped(1000 + entry), UDP);
      back.addresses[entry] = ADDRESS;
      back.keys[entry] = portAndProtocol(swapped(FIRST_PORT + 2 * entry), UDP);
    }
    return () => {
      out.find(ENTRIES, READ_AT);
      back.find(ENTRIES, READ_AT);
      for (let entry = 0; entry < ENTRIES; entry++) {
        if (out.slots[entry] < 0) return entry;
        if (entry % 2 === 0 && back.slots[entry] < 0) return entry;
      }
      return -1;
    };
  },
};

function sets(definition: StateDefinition<SharedSet>, members: number): Visible<SharedSet> {
  return {
    definition,
    record(n) {
      const [entry, turn] = [n % ENTRIES, Math.trunc(n / ENTRIES)];
      const stamp = members === 0 ? 1 : FIRST_GENERATION + (turn % GENERATIONS);
      if (members === 0 || turn % 2 === 0) return { op: SET_ADD, words: [entry, stamp, NOW + 100 + turn] };
      // The second member's add, which nobody made, is removed: the first one's stands.
      const dots = Array.from({ length: 2 * members }, (_, i) => (i === 2 ? (stamp << 1) | 1 : i === 3 ? NOW + 50 : 0));
      return { op: SET_REMOVE, words: [entry, ...dots] };
    },
    reader(object) {
      const key = new Int32Array(1);
      return () => {
        for (let entry = 0; entry < ENTRIES; entry++) {
          key[0] = entry;
          if (!object.has(object.hash(key, 0), key, 0, READ_AT)) return entry;
        }
        return -1;
      };
    },
  };
}

const registers: Visible<LastWriter> = {
  definition: lastWriter({ length: ENTRIES, valueWords: 2 }),
  record: (n) => ({ op: REGISTER_SET, words: [n % ENTRIES, 1 + n, 0, 0, n, ~n] }),
  reader(object) {
    const value = new Int32Array(2);
    return () => {
      for (let entry = 0; entry < ENTRIES; entry++)
        if (!object.read(entry, value, 0) || value[1] !== ~value[0]) return entry;
      return -1;
    };
  },
};

/** Every place is claimed anew for its owner. */
const ports: Visible<PortPool> = {
  definition: portPool({ protocols: 1, addresses: 1 }),
  record: (n) => ({
    op: PORT_CLAIM,
    words: [n % ENTRIES, 1 + (Math.trunc(n / ENTRIES) % 1_000_000), (n % ENTRIES) + 1, 7],
  }),
  reader: (object) => () => {
    for (let entry = 0; entry < ENTRIES; entry++) if (!object.isOwner(entry, entry + 1, 7)) return entry;
    return -1;
  },
};

const options = { capacity: 64, keyWords: 4, halfOpen: 64 };
const sessions: Visible<NatSessions> = flows(natSessions({ sessions: 64, halfOpen: 64 }), 0, 5);
const connections: Visible<TcpFlowTable> = flows(tcpFlowTable({ ...options, valueWords: 1 }), 1, 4);

export const VISIBLE: Readonly<Record<string, Visible>> = {
  'flow table': flows(flowTable({ ...options, valueWords: 3 }), 3, 4) as Visible,
  'TCP flow table': connections as Visible,
  'NAT bindings': bindings as Visible,
  'NAT sessions': sessions as Visible,
  'grow-only set': sets(growSet({ capacity: 64, keyWords: 1 }), 0) as Visible,
  'observed-remove set': sets(removeSet({ capacity: 64, keyWords: 1, members: 3 }), 3) as Visible,
  registers: registers as Visible,
  'port pool': ports as Visible,
};

export interface VisibleWork {
  readonly name: string;
  readonly region: SharedArrayBuffer;
  readonly local: SharedArrayBuffer;
  /** Word 0: records applied; word 1: not 0 when the thread is to end. */
  readonly control: SharedArrayBuffer;
}

export function openVisible(name: string, region: SharedArrayBuffer, local: SharedArrayBuffer, id: number) {
  return VISIBLE[name].definition.open({
    id: 1,
    region: new Region(region),
    local: new Region(local),
    secret: Int32Array.of(1, 2, 3, 4),
    writer: { id, journal: new Journal(createJournals(id), id), log: null },
    memberIndex: 0,
    memberCount: 3,
  });
}

/** Applies the `n`-th record of an object. */
export function applyVisible(name: string, object: StateObject, n: number): void {
  const { op, words } = VISIBLE[name].record(n);
  const applied = object.apply(op, Int32Array.from(words), 0, words.length, 0, NOW);
  if (applied !== Applied.CHANGED && applied !== Applied.UNCHANGED)
    throw new Error(`${name}: record ${n} was not applied: ${applied}`);
}
