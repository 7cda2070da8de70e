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
import type { StateObject } from '../../shm/objects/object.js';
import { type Instance, writerId } from '../instance.js';
import { monotonicMs } from '../monotonic.js';
import { Arrival, Reception } from '../replication/reception.js';
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
 * each. Of an object that took all of it we then have all that the donor had of every origin.
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
      if (object.merge === undefined) throw new Error('this kind of state object cannot be merged');
      if (object.delivery === 'in-order' && !knowsLives(board, object, head.vectors.present[object.id], self))
        throw new Error('it is told in order, and of some member the donor knows another life than we do');
      outcome.changed += object.merge(theirs.region(object.id), now);
      raiseVectors(board, object, head.vectors.present[object.id], self);
    } catch (error) {
      const { name } = declaration.objects[object.id];
      outcome.problems.push({ object: name, problem: error instanceof Error ? error.message : String(error) });
    }
    await nextTurn();
  }
  return outcome;
}

/** Whether the vectors can be raised to the donor's: else what comes in order would be applied a second time. */
function knowsLives(board: AckBoard, { id }: StateObject, theirs: readonly OriginVector[], self: number): boolean {
  const ours = new Reception();
  return theirs.every(({ incarnation }, slot) => {
    ours.clear();
    board.readReception(id, slot, ours);
    return slot === self || incarnation === 0 || incarnation === ours.incarnation;
  });
}

/** We have now what the donor had, of the origins' lives that we know as well. */
function raiseVectors(board: AckBoard, { id }: StateObject, theirs: readonly OriginVector[], self: number): void {
  const ours = new Reception();
  theirs.forEach(({ incarnation, contiguous, ranges }, slot) => {
    ours.clear();
    board.readReception(id, slot, ours);
    if (slot === self || incarnation === 0 || ours.incarnation !== incarnation) return;
    if (contiguous > ours.contiguous) ours.advance(contiguous);
    for (let i = 0; i < ranges.length; i += 2) {
      const arrival = ours.classify(ranges[i], ranges[i + 1]);
      // What overlaps what we have is left out: it is sent again, and harmless.
      if (arrival === Arrival.NEXT || arrival === Arrival.BEYOND) ours.add(ranges[i], ranges[i + 1]);
    }
    ours.highest = Math.max(ours.highest, ours.contiguous, ours.ranges > 0 ? ours.end(ours.ranges - 1) : 0);
    board.writeReception(id, slot, ours);
  });
  board.noteChange(id);
}
