/**
 * Loads or merges a snapshot that was read: a fresh instance *loads* it, an instance with state of
 * its own *merges* it.
 *
 * The main thread does either while no receive thread runs, and takes that thread's place. So no
 * other thread writes what other instances counted, or the vectors. The receive thread that starts
 * next opens its objects again, because the hash secret may have changed, and resumes from the
 * vectors on the board. A snapshot is loaded before workers run, and merged while they run.
 *
 * A snapshot with another layout is in memory beside the arena (landing.ts). To load it, objects
 * with our layout are copied byte by byte. The entries of the others are merged into our objects,
 * which are still empty. Entries that find no room are counted.
 */

import { setImmediate as nextTurn } from 'node:timers/promises';
import { AckBoard } from '../../shm/ack-board.js';
import { Arena, createArena, layoutArena, takeSecret } from '../../shm/arena.js';
import { VECTOR_DETACHED } from '../../shm/board-records.js';
import type { MergeSource } from '../../shm/objects/core/merge-source.js';
import type { StateObject } from '../../shm/objects/core/object.js';
import type { Region } from '../../shm/region.js';
import { monotonicMs } from '../base/monotonic.js';
import { type Instance, writerId } from '../engine/instance.js';
import { selfIndex } from '../replication/settings.js';
import { Reception } from '../replication/units/reception.js';
import { isSameShape, type SnapshotHead } from './head.js';
import type { Beside } from './landing.js';
import { type OriginVector, writeVectors } from './vectors.js';

/**
 * Completes the load after `fetchSnapshot` into `instance.buffers.arena`. The objects take over
 * what it has of our former incarnation, and the board what it has of every origin. Throws if the
 * arena does not have our layout; then call `clearArena`, as after a failed fetch.
 */
export function loadSnapshot(instance: Instance, objects: readonly StateObject[], head: SnapshotHead): void {
  const { buffers, declaration, plan } = instance;
  new Arena(buffers.arena, declaration.objects, plan.replication.slots);
  for (const object of objects) object.adopt?.();
  writeVectors(new AckBoard(buffers.ackBoard), head.vectors, selfIndex(plan.replication), monotonicMs());
}

/** The entries of one object that found no room here. */
export interface Loss {
  readonly object: string;
  readonly entries: number;
}

/**
 * The same for a snapshot with another layout. `reopen` opens the objects again for reading, once
 * the hash secret is the donor's. Returns what found no room.
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

/** Memory for fetching a snapshot of our layout that will be merged. */
export function arenaBeside({ declaration, plan }: Instance): Beside {
  const { objects } = declaration;
  return { memory: createArena(layoutArena(objects, plan.replication.slots)), objects };
}

export interface MergeOutcome {
  /** Entries that changed ours, over all objects. */
  changed: number;
  /** Entries that found no room, by object. */
  readonly losses: Loss[];
  /** Objects that could not be merged, and why; these are unchanged. */
  readonly problems: { readonly object: string; readonly problem: string }[];
}

/**
 * Merges a snapshot that was fetched into memory of its own, one object per turn of the event loop.
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
 * Merges one object's part of a snapshot, whose vectors are `vectors`. Returns the number of
 * entries that changed ours. Throws the reason if they cannot be merged.
 *
 * Our vectors stay as they are, although we then have more. An origin that has detached us cuts our
 * backlog into units other than those that the donor has. So the donor's numbers do not tell which
 * of the backlog's units we need. Records that the snapshot already had come again. That does no
 * harm to an object that takes records in any order.
 *
 * An object that takes its records in order can only be merged while it is empty. Its vectors must
 * be raised, or it would apply records twice. This is refused if an origin sends us a backlog.
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
      throw new Error(
        'it takes units in order, and the donor knows another incarnation of a member than this instance',
      );
    if ((ours.flags & VECTOR_DETACHED) !== 0)
      throw new Error('it takes units in order, and a member still sends this instance a backlog');
  });
}

/** Raises our vectors to the donor's, for the incarnations that we know as well. */
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
