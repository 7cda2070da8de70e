/**
 * What becomes of a snapshot that has come: a fresh instance *loads* it, one that has state of its own *merges* it.
 *
 * Either is main's, and done while no receive thread runs, in whose place main then is: nobody else writes what other instances
 * counted, and the vectors. The receive thread that starts after it opens its objects anew, for the hash secret may be
 * another, and goes on from the vectors on the board. A snapshot is loaded before workers run, and merged while they do.
 */

import { setImmediate as nextTurn } from 'node:timers/promises';
import { AckBoard } from '../../shm/ack-board.js';
import { Arena, createArena, layoutArena } from '../../shm/arena.js';
import { VECTOR_APART } from '../../shm/board-records.js';
import type { StateObject } from '../../shm/objects/object.js';
import type { Region } from '../../shm/region.js';
import { type Instance, writerId } from '../instance.js';
import { monotonicMs } from '../monotonic.js';
import { Reception } from '../replication/reception.js';
import { selfIndex } from '../replication/settings.js';
import type { SnapshotHead } from './head.js';
import { type OriginVector, writeVectors } from './vectors.js';

/**
 * After `fetchSnapshot` into `instance.buffers.arena`: the objects take over what it says of our former life, and the board
 * what it has of every origin. Throws where it is not of our layout; then, as after a failed fetch, `clearArena`.
 */
export function loadSnapshot(instance: Instance, objects: readonly StateObject[], head: SnapshotHead): void {
  const { buffers, declaration, plan } = instance;
  new Arena(buffers.arena, declaration.objects, plan.replication.slots);
  for (const object of objects) object.adopt?.();
  writeVectors(new AckBoard(buffers.ackBoard), head.vectors, selfIndex(plan.replication), monotonicMs());
}

/** Memory to fetch a snapshot into that is to be merged. */
export function arenaBeside({ declaration, plan }: Instance): SharedArrayBuffer {
  return createArena(layoutArena(declaration.objects, plan.replication.slots));
}

export interface MergeOutcome {
  /** Entries that changed ours, of all objects. */
  changed: number;
  /** Objects that could not take theirs, and why; theirs is what we had. */
  readonly problems: { readonly object: string; readonly problem: string }[];
}

/**
 * Joins a snapshot that was fetched into memory of its own with what is here, object by object, a turn of the event loop
 * each.
 */
export async function mergeSnapshot(
  instance: Instance,
  memory: SharedArrayBuffer,
  head: SnapshotHead,
  now: number,
): Promise<MergeOutcome> {
  const { buffers, declaration, plan, slots } = instance;
  const theirs = new Arena(memory, declaration.objects, plan.replication.slots);
  const board = new AckBoard(buffers.ackBoard);
  const self = selfIndex(plan.replication);
  const { receive } = slots;
  const outcome: MergeOutcome = { changed: 0, problems: [] };
  for (const object of instance.openObjects({ id: writerId(receive), journal: instance.journal(receive), log: null })) {
    try {
      outcome.changed += mergeObject(
        board,
        object,
        theirs.region(object.id),
        head.vectors.present[object.id],
        self,
        now,
      );
    } catch (error) {
      const { name } = declaration.objects[object.id];
      outcome.problems.push({ object: name, problem: error instanceof Error ? error.message : String(error) });
    }
    await nextTurn();
  }
  return outcome;
}

/**
 * Joins one object's part of a snapshot, whose vectors are `vectors`, with ours. Returns the number of entries that changed ours;
 * throws the reason if they cannot be joined.
 *
 * Our vectors stay as they are, although we then have more. An origin that has detached us numbers our backlog apart from the
 * units that the donor has: the donor's numbers say nothing about which of the backlog's units we need. Records that the
 * snapshot has already come again, which does no harm to an object that takes them in any order.
 *
 * An object that takes its records in order can only be joined while it is empty. Its vectors have to be raised, or it would
 * apply records twice; that is refused if an origin sends us a backlog.
 */
export function mergeObject(
  board: AckBoard,
  object: StateObject,
  region: Region,
  vectors: readonly OriginVector[],
  self: number,
  now: number,
): number {
  if (object.merge === undefined) throw new Error('this kind of state object cannot be merged');
  if (object.delivery === 'any-order') return object.merge(region, now);
  checkOrder(board, object, vectors, self);
  const changed = object.merge(region, now);
  raiseVectors(board, object, vectors, self);
  return changed;
}

/** Throws the reason if our vectors cannot be raised to the donor's. */
function checkOrder(board: AckBoard, { id }: StateObject, theirs: readonly OriginVector[], self: number): void {
  const ours = new Reception();
  theirs.forEach(({ incarnation }, slot) => {
    ours.clear();
    board.readReception(id, slot, ours);
    if (slot === self || incarnation === 0) return;
    if (incarnation !== ours.incarnation)
      throw new Error('it is told in order, and of some member the donor knows another life than we do');
    if ((ours.flags & VECTOR_APART) !== 0)
      throw new Error('it is told in order, and some member still sends us what we missed, in units of our own');
  });
}

/** We have now what the donor had, of the origins' lives that we know as well. */
function raiseVectors(board: AckBoard, { id }: StateObject, theirs: readonly OriginVector[], self: number): void {
  const ours = new Reception();
  theirs.forEach(({ incarnation, contiguous }, slot) => {
    ours.clear();
    board.readReception(id, slot, ours);
    if (slot === self || incarnation === 0 || contiguous <= ours.contiguous) return;
    ours.advance(contiguous);
    ours.highest = Math.max(ours.highest, ours.contiguous);
    board.writeReception(id, slot, ours);
  });
  board.noteChange(id);
}
