/**
 * Fetches a snapshot from another member, either to start with (entry.ts) or to merge with our
 * state (resync.ts).
 */

import type { MemberTable } from '../../shm/members.js';
import type { Instance } from '../../workers/engine/instance.js';
import { fetchSnapshot } from '../../workers/snapshot/client.js';
import { shapeOf } from '../../workers/snapshot/fork.js';
import type { Circle } from '../../workers/snapshot/handshake.js';
import type { SnapshotHead } from '../../workers/snapshot/head.js';
import type { Progress } from '../../workers/snapshot/progress.js';
import type { Place } from '../../workers/snapshot/stream.js';
import type { Log } from '../base/log.js';

interface FetchFromOptions {
  readonly instance: Instance;
  readonly circle: Circle;
  readonly log: Log;
  readonly members: MemberTable;
  /** The donor's slot. */
  readonly slot: number;
  /** Where the arena goes. It throws the reason if the snapshot is refused by its head. */
  readonly place: Place;
  readonly onProgress: (progress: Progress) => void;
  readonly signal: AbortSignal;
}

/** Fetches like `fetchSnapshot`. */
export function fetchFrom(options: FetchFromOptions): Promise<SnapshotHead> {
  const { instance, circle, log, members, slot, place, onProgress, signal } = options;
  members.refresh();
  return fetchSnapshot({
    client: instance.plan.replication.self,
    server: members.id(slot),
    address: members.address(slot),
    port: members.port(slot),
    circle,
    shape: shapeOf(instance),
    place,
    log: (text) => log.info(text),
    onProgress,
    signal,
  });
}
