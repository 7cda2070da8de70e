/**
 * What becomes of a snapshot that has come: a fresh instance *loads* it, one that has state of its
 * own *merges* it.
 *
 * Either is main's, and done while no receive thread runs, in whose place main then is: nobody else
 * writes what other instances counted, and the vectors. The receive thread that starts after it
 * opens its objects anew, for the hash secret may be another, and goes on from the vectors on the
 * board. A snapshot is loaded before workers run, and merged while they do.
 *
 * A snapshot whose layout is not ours lies beside the arena (landing.ts). To load it, the bytes of
 * each object that lies there as ours does are copied, and the entries of the others are merged
 * into our own, still empty one. What finds no room is counted.
 */

import { setImmediate as nextTurn } from 'node:timers/promises';
import { AckBoard } from '../../shm/ack-board.js';
import { Arena, createArena, layoutArena, takeSecret } from '../../shm/arena.js';
import { VECTOR_APART } from '../../shm/board-records.js';
import type { MergeSource } from '../../shm/objects/merge-source.js';
import type { StateObject } from '../../shm/objects/object.js';
import type { Region } from '../../shm/region.js';
import { type Instance, writerId } from '../instance.js';
import { monotonicMs } from '../monotonic.js';
import { Reception } from '../replication/reception.js';
import { selfIndex } from '../replication/settings.js';
import { isSameShape, type SnapshotHead } from './head.js';
import type { Beside } from './landing.js';
import { type OriginVector, writeVectors } from './vectors.js';

/**
 * After `fetchSnapshot` into `instance.buffers.arena`: the objects take over what it says of our
 * former life, and the board what it has of every origin. Throws where it is not of our layout;
 * then, as after a failed fetch, `clearArena`.
 */
export function loadSnapshot(instance: Instance, objects: readonly StateObject[], head: SnapshotHead): void {
  const { buffers, declaration, plan } = instance;
  new Arena(buffers.arena, declaration.objects, plan.replication.slots);
  for (const object of objects) object.adopt?.();
  writeVectors(new AckBoard(buffers.ackBoard), head.vectors, selfIndex(plan.replication), monotonicMs());
}

/** Entries of one object that found no room here. */
export interface Loss {
  readonly object: string;
  readonly entries: number;
}

/**
 * The same for a snapshot of another layout. `reopen` opens the objects anew, to read, after the
 * hash secret became the donor's. Returns what found no room.
 */
export async function loadBeside(
  instance: Instance,
  { memory, objects: theirs }: Beside,
  reopen: () => readonly StateObject[],
  head: SnapshotHead,
  now: number,
): Promise<Loss[]> {
  const { buffers, declaration, plan, slots } = instance;
  const { receive } = slots;
  const donor = new Arena(memory, theirs, plan.replication.slots);
  takeSecret(buffers.arena, memory);
  const arena = new Arena(buffers.arena, declaration.objects, plan.replication.slots);
  const isCopied = declaration.objects.map(
    ({ shape, bytes }, id) => isSameShape(theirs[id].shape ?? {}, shape) && theirs[id].bytes === bytes,
  );
  for (const [id, copied] of isCopied.entries()) if (copied) arena.region(id).u8().set(donor.region(id).u8());
  for (const object of reopen()) if (isCopied[object.id]) object.adopt?.();
  const losses: Loss[] = [];
  for (const object of instance.openObjects({ id: writerId(receive), journal: instance.journal(receive), log: null })) {
    if (isCopied[object.id]) continue;
    const { name } = declaration.objects[object.id];
    if (object.merge === undefined) throw new Error(`${name}: this kind of state object cannot be merged`);
    const source: MergeSource = { shape: theirs[object.id].shape ?? {}, full: 0 };
    object.merge(donor.region(object.id), now, source);
    if (source.full > 0) losses.push({ object: name, entries: source.full });
    await nextTurn();
  }
  writeVectors(new AckBoard(buffers.ackBoard), head.vectors, selfIndex(plan.replication), monotonicMs());
  return losses;
}

/** Memory to fetch a snapshot of our layout into that is to be merged. */
export function arenaBeside({ declaration, plan }: Instance): Beside {
  const { objects } = declaration;
  return { memory: createArena(layoutArena(objects, plan.replication.slots)), objects };
}

export interface MergeOutcome {
  /** Entries that changed ours, of all objects. */
  changed: number;
  /** Entries that found no room, by object. */
  readonly losses: Loss[];
  /** Objects that could not take theirs, and why; theirs is what we had. */
  readonly problems: { readonly object: string; readonly problem: string }[];
}

/**
 * Joins a snapshot that was fetched into memory of its own with what is here, object by object, a
 * turn of the event loop each.
 */
export async function mergeSnapshot(
  instance: Instance,
  { memory, objects }: Beside,
  head: SnapshotHead,
  now: number,
): Promise<MergeOutcome> {
  const { buffers, declaration, plan, slots } = instance;
  const theirs = new Arena(memory, objects, plan.replication.slots);
  const board = new AckBoard(buffers.ackBoard);
  const self = selfIndex(plan.replication);
  const { receive } = slots;
  const outcome: MergeOutcome = { changed: 0, losses: [], problems: [] };
  for (const object of instance.openObjects({ id: writerId(receive), journal: instance.journal(receive), log: null })) {
    const { shape } = objects[object.id];
    const source: MergeSource = { ...(shape && { shape }), full: 0 };
    const { name } = declaration.objects[object.id];
    try {
      outcome.changed += mergeObject(
        board,
        object,
        theirs.region(object.id),
        head.vectors.present[object.id],
        self,
        now,
        source,
      );
    } catch (error) {
      outcome.problems.push({ object: name, problem: error instanceof Error ? error.message : String(error) });
    }
    if (source.full > 0) outcome.losses.push({ object: name, entries: source.full });
    await nextTurn();
  }
  return outcome;
}

/**
 * Joins one object's part of a snapshot, whose vectors are `vectors`, with ours. Returns the number
 * of entries that changed ours; throws the reason if they cannot be joined.
 *
 * Our vectors stay as they are, although we then have more. An origin that has detached us numbers
 * our backlog apart from the units that the donor has: the donor's numbers say nothing about which
 * of the backlog's units we need. Records that the snapshot has already come again, which does no
 * harm to an object that takes them in any order.
 *
 * An object that takes its records in order can only be joined while it is empty. Its vectors have
 * to be raised, or it would apply records twice; that is refused if an origin sends us a backlog.
 */
export function mergeObject(
  board: AckBoard,
  object: StateObject,
  region: Region,
  vectors: readonly OriginVector[],
  self: number,
  now: number,
  source?: MergeSource,
): number {
  if (object.merge === undefined) throw new Error('this kind of state object cannot be merged');
  if (object.delivery === 'any-order') return object.merge(region, now, source);
  checkOrder(board, object, vectors, self);
  const changed = object.merge(region, now, source);
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
