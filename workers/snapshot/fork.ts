/**
 * Takes a snapshot in the main thread. It brings all threads to the barrier (shm/barrier.ts), forks
 * a child, reads the vectors, and lets the threads go on. The child then writes out the arena as it
 * was at that moment.
 */

import { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { AckBoard } from '../../shm/ack-board.js';
import { BarrierError } from '../../shm/barrier.js';
import { MemberTable } from '../../shm/members.js';
import { NONE } from '../../shm/none.js';
import type { StateObject } from '../../shm/objects/core/object.js';
import { monotonicMs } from '../base/monotonic.js';
import type { Instance } from '../engine/instance.js';
import { childKill, childStatus, closeDescriptor, forkSnapshot, thickenFork, thinFork } from '../native/index.js';
import { layoutLocals } from '../plane/chain.js';
import { selfIndex } from '../replication/settings.js';
import type { SnapshotHead, SnapshotShape } from './head.js';
import { rejoinHugePages } from './huge-pages.js';
import { backlogOrigin, countAsSent, readVectors, type SnapshotVectors } from './vectors.js';

/** Time between two checks whether the child has ended, in ms. */
const REAP_MS = 2;

/** A child that writes out the arena, and what the instance had of every origin at the fork. */
export interface Fork {
  readonly head: SnapshotHead;
  readonly copy: ArenaCopy;
  /**
   * In microseconds: how long packets were paused; of that, how long until all threads had paused,
   * and how long the fork took.
   */
  readonly pauseUs: number;
  readonly gatherUs: number;
  readonly forkUs: number;
  /** Ends the child if it still runs, and restores the huge pages that the fork split. */
  done(): Promise<void>;
}

export function shapeOf(instance: Instance): SnapshotShape {
  const { arena, declaration, plan } = instance;
  return {
    objects: declaration.objects.length,
    slots: plan.replication.slots,
    arenaBytes: arena.bytes,
    layout: arena.layoutHash,
    shapes: declaration.objects.map(({ shape = {} }) => shape),
  };
}

/**
 * Takes a snapshot. Throws a `BarrierError` if the threads did not reach the barrier, and a
 * `NativeError` if the fork failed. `forMember`: the snapshot is for another member, which must not
 * get the vector of an incomplete backlog; then this throws a `BarrierError`. `lacks`: see
 * `SnapshotHead`.
 */
export function forkState(
  instance: Instance,
  objects: readonly StateObject[],
  forMember = false,
  lacks: readonly number[] = [],
): Fork {
  const { buffers, control, slots } = instance;
  const sums = sumsOf(instance, objects);
  thinFork(new Uint8Array(buffers.arena), new Uint8Array(buffers.locals));
  try {
    const { result, pauseUs, gatherUs, actionUs } = control.meet(
      slots.send,
      (thread) => slots.name(thread),
      () => {
        if (forMember) refuseWithBacklog(instance, objects);
        return copyState(instance, objects, sums);
      },
      ({ copy }) => void copy.end(),
    );
    const { copy, vectors } = result;
    const done = async (): Promise<void> => {
      await copy.end();
      for (const memory of [buffers.arena, buffers.locals]) await rejoinHugePages(memory);
    };
    const head = { donor: selfIndex(instance.plan.replication), unixMs: Date.now(), vectors, lacks };
    return { head, copy, pauseUs, gatherUs, forkUs: actionUs, done };
  } finally {
    thickenFork();
  }
}

function refuseWithBacklog({ buffers, plan }: Instance, objects: readonly StateObject[]): void {
  const { silentMs } = plan.replication;
  const slot = backlogOrigin(new AckBoard(buffers.ackBoard), objects, silentMs, monotonicMs());
  if (slot === NONE) return;
  const members = new MemberTable(buffers.members);
  members.refresh();
  const name = members.name(slot);
  throw new BarrierError(
    `the backlog that ${name} sends this instance is not complete; if ${name} does not come back, evict it`,
  );
}

/** Only forks and reads the vectors. Call it while no thread changes anything. */
export function copyState(
  instance: Instance,
  objects: readonly StateObject[],
  sums = sumsOf(instance, objects),
): { readonly copy: ArenaCopy; readonly vectors: SnapshotVectors } {
  const { arena, locals, ackBoard } = instance.buffers;
  const { replication } = instance.plan;
  const board = new AckBoard(ackBoard);
  const { child, pipe } = forkSnapshot(new Uint8Array(arena), new Uint8Array(locals), sums);
  countAsSent(board);
  const vectors = readVectors(board, objects, selfIndex(replication));
  return { copy: new ArenaCopy(child, pipe, arena.byteLength), vectors };
}

/**
 * Each object's addends in the form that the native binding takes: offsets in arena and locals,
 * seven numbers each, ascending.
 */
function sumsOf({ arena, declaration, slots }: Instance, objects: readonly StateObject[]): Float64Array {
  const localOffsets = layoutLocals(declaration, slots.workers);
  return Float64Array.from(
    objects.flatMap(({ addends }, id) =>
      addends === undefined
        ? []
        : [
            arena.offset(id) + addends.target,
            addends.targetStride,
            addends.cells,
            localOffsets[id] + addends.source,
            addends.sourceStride,
            addends.laneStride,
            addends.lanes,
          ],
    ),
  );
}

/** The arena's bytes from the child, read piece by piece on demand. */
export class ArenaCopy {
  readonly bytes: number;
  private readonly child: number;
  private readonly socket: Socket;
  private ending: Promise<number> | null = null;

  constructor(child: number, pipe: number, bytes: number) {
    this.bytes = bytes;
    this.child = child;
    this.socket = new Socket({ fd: pipe, readable: true, writable: false });
  }

  /** Yields pieces of at most 64 KiB. Throws if the child did not write everything. */
  async *pieces(): AsyncGenerator<Buffer> {
    let bytes = 0;
    for await (const piece of this.socket) {
      bytes += (piece as Buffer).length;
      yield piece as Buffer;
    }
    const status = await this.end();
    if (bytes !== this.bytes || status !== 0)
      throw new Error(
        `the child that copies the state wrote ${bytes} of ${this.bytes} bytes and ended with ${
          status < 0 ? `signal ${-status}` : `code ${status}`
        }`,
      );
  }

  /**
   * Lets the child end, or kills it, and waits without blocking until it has ended. Returns its
   * status as `childStatus` does.
   */
  end(): Promise<number> {
    this.ending ??= this.endOnce();
    return this.ending;
  }

  private async endOnce(): Promise<number> {
    // A child that has written everything is about to exit by itself. Killing it now would look
    // like a failure.
    if (!this.socket.readableEnded) childKill(this.child);
    this.socket.destroy();
    for (;;) {
      const status = childStatus(this.child);
      if (status !== undefined) {
        closeDescriptor(this.child);
        return status;
      }
      await sleep(REAP_MS);
    }
  }
}
