/**
 * Objects of the state library, as the threads of one simulated member see them. They are small, so
 * that keys collide.
 */

import { NONE } from '../../shm/none.js';
import { Journal } from '../../shm/objects/core/journal.js';
import type { StateDefinition, StateObject, Writer } from '../../shm/objects/core/object.js';
import { counterVector } from '../../shm/objects/counting/counters.js';
import { flowTable, KEY_WORDS_IPV4_ENDPOINT } from '../../shm/objects/flow/flow-table.js';
import { natBinding, portAndProtocol } from '../../shm/objects/nat/nat-binding.js';
import { largest, lastWriter } from '../../shm/objects/sets/register.js';
import { removeSet } from '../../shm/objects/sets/shared-set.js';
import { Region } from '../../shm/region.js';
import type { ObjectKind } from './plan.js';
import { mix } from './random.js';
import type { Operation, SubjectMemory } from './subjects.js';
import { Violation } from './violation.js';

/** Writer ids of the worker and the receive thread. */
const WORKER_WRITER = 1;
export const RECEIVE_WRITER = 2;
export const CELLS = 12;
const KEYS = 24;
const CLUSTER_SECRET = Int32Array.of(1, 2, 3, 4);
const UDP = 17;

/** A region's bytes, and the secret of its hashes. */
export interface RegionCopy {
  readonly bytes: Uint8Array;
  readonly secret: Int32Array;
}

/** The copy as a separate region, from which state can be merged. */
export function regionOf({ bytes }: RegionCopy): Region {
  const memory = new SharedArrayBuffer(bytes.length);
  new Uint8Array(memory).set(bytes);
  return new Region(memory);
}

/** A definition, and a worker's operation on such an object. */
interface Opener {
  readonly definition: StateDefinition;
  readonly operation: (object: StateObject) => Operation;
}

function opener<T extends StateObject>(definition: StateDefinition<T>, operation: (object: T) => Operation): Opener {
  return { definition, operation: (object) => operation(object as T) };
}

export class RealObject {
  receive!: StateObject;
  operation!: Operation;
  private readonly id: number;
  private readonly memory: SubjectMemory;
  private readonly opener: Opener;
  private readonly region: Region;
  private readonly local: Region;
  private secret: Int32Array;
  private opened = 0;

  constructor(kind: ObjectKind, id: number, memory: SubjectMemory) {
    this.id = id;
    this.memory = memory;
    this.opener = openerOf(kind, id, memory);
    const { definition } = this.opener;
    this.region = new Region(new SharedArrayBuffer(definition.bytes));
    this.local = new Region(new SharedArrayBuffer(definition.localBytes?.(1) ?? 0));
    this.secret = Int32Array.of(memory.member + 1, 2, 3, 4);
    this.reopen();
  }

  openSend(): StateObject {
    return this.open(null);
  }

  /** The region as a snapshot contains it: counts kept outside the region are added. */
  copyOut(): RegionCopy {
    const bytes = new Uint8Array(this.region.u8());
    const { addends } = this.receive;
    if (addends !== undefined) {
      const content = new Float64Array(bytes.buffer);
      const counted = this.local.f64();
      for (let cell = 0; cell < addends.cells; cell++)
        for (let lane = 0; lane < addends.lanes; lane++)
          content[(addends.target + cell * addends.targetStride) >> 3] +=
            counted[(addends.source + cell * addends.sourceStride + lane * addends.laneStride) >> 3];
    }
    return { bytes, secret: this.secret };
  }

  copyIn({ bytes, secret }: RegionCopy): void {
    this.region.u8().set(bytes);
    this.secret = secret;
    this.reopen();
    this.open(null).adopt?.();
  }

  private reopen(): void {
    const { journals, log } = this.memory;
    this.receive = this.open({ id: RECEIVE_WRITER, journal: new Journal(journals, RECEIVE_WRITER), log: null });
    const worker = this.open({ id: WORKER_WRITER, journal: new Journal(journals, WORKER_WRITER), log });
    this.operation = this.opener.operation(worker);
  }

  private open(writer: Writer | null): StateObject {
    const { id, region, local, secret, memory } = this;
    return this.opener.definition.open({
      id,
      region,
      secret,
      writer,
      memberIndex: memory.member,
      memberCount: memory.members,
      clusterSecret: CLUSTER_SECRET,
      seed: Int32Array.of(mix(memory.author, id), this.opened++),
      ...(local.byteLength > 0 && { local, stripes: 1 }),
    });
  }
}

function openerOf(kind: ObjectKind, id: number, memory: SubjectMemory): Opener {
  switch (kind) {
    case 'totals':
    case 'increments': {
      const definition = counterVector({ length: CELLS, form: kind, members: memory.members });
      return opener(definition, (object) => (draw) => {
        const cell = draw.below(CELLS);
        const n = draw.whole(1, 1000);
        if (!object.add(cell, n)) return false;
        memory.model.count(memory.author, id, cell, n);
        return true;
      });
    }
    case 'flows': {
      const key = new Int32Array(KEY_WORDS_IPV4_ENDPOINT);
      const value = new Int32Array(1);
      const definition = flowTable({ capacity: 4 * KEYS, keyWords: KEY_WORDS_IPV4_ENDPOINT, valueWords: 1 });
      return opener(definition, (flows) => (draw, { coarse }) => {
        key[0] = draw.below(KEYS);
        value[0] = draw.below(1000);
        const hash = flows.hash(key, 0);
        const slot = flows.find(hash, key, 0, coarse);
        const rank = draw.below(4);
        if (slot === NONE) return flows.add(hash, key, 0, value, 0, rank, coarse, coarse + 300) !== NONE;
        return flows.refresh(slot, rank, coarse, draw.whole(200, 400));
      });
    }
    case 'nat': {
      // So few ports that members choose the same ones, but more than are ever in use. If ports ran
      // out, each member would evict half-open bindings on its own, and digests could differ.
      const portRange = { first: 2000, last: 2000 + 8 * KEYS - 1 };
      // Members that choose ports in different ways are compatible.
      const allocation = memory.member % 2 === 0 ? 'shared' : 'keyed';
      const definition = natBinding({ addresses: [0x010200c0], flows: 4 * KEYS, portRange, allocation });
      return opener(definition, (nat) => (draw, { coarse }) => {
        const address = 0x0a000000 + draw.below(KEYS);
        const key = portAndProtocol(7, UDP);
        const hash = nat.hash(address, key);
        const slot = nat.findOutbound(hash, address, key, coarse);
        if (slot === NONE) return nat.add(hash, address, key, coarse, coarse + 300) !== NONE;
        return nat.refresh(slot, draw.below(3), coarse, 300);
      });
    }
    case 'set': {
      const key = new Int32Array(1);
      const definition = removeSet({ capacity: 4 * KEYS, keyWords: 1, members: memory.members });
      return opener(definition, (set) => (draw, { coarse }) => {
        key[0] = draw.below(KEYS);
        const hash = set.hash(key, 0);
        return draw.chance(0.7) ? set.add(hash, key, 0, coarse, coarse + 300) : set.remove(hash, key, 0, coarse);
      });
    }
    case 'register': {
      const value = new Int32Array(2);
      return opener(lastWriter({ length: KEYS, valueWords: 2 }), (registers) => (draw, { wallMs }) => {
        value[0] = draw.below(1000);
        value[1] = ~value[0];
        return registers.set(draw.below(KEYS), value, 0, wallMs);
      });
    }
    case 'largest':
      return opener(largest(KEYS), (registers) => (draw) => registers.offer(draw.below(KEYS), draw.whole(-1000, 1e6)));
    default:
      throw new Violation('no-crash', `there is no object of the kind ${kind}`);
  }
}
