/** The server that gives snapshots to other members, and answers their questions before that. */

import type { StateObject } from '../../shm/objects/core/object.js';
import type { Instance } from '../../workers/engine/instance.js';
import { ownMember } from '../../workers/replication/settings.js';
import type { Agreed } from '../../workers/snapshot/agreed.js';
import { forkState, shapeOf } from '../../workers/snapshot/fork.js';
import type { Circle } from '../../workers/snapshot/handshake.js';
import { SnapshotServer } from '../../workers/snapshot/server.js';
import type { Log } from '../base/log.js';
import type { Entry } from './entry.js';

interface DonorOptions {
  readonly instance: Instance;
  readonly circle: Circle;
  /** The open objects at the time of a snapshot. */
  readonly objects: () => readonly StateObject[];
  /** Slots of members whose state we lack ourselves at the time of a snapshot. */
  readonly lacks: () => readonly number[];
  readonly entry: Entry;
  readonly agreed: Agreed;
  readonly onAgreedSent: (member: number) => void;
  readonly log: Log;
}

export async function openDonor(options: DonorOptions): Promise<SnapshotServer> {
  const { instance, circle, objects, lacks, entry, agreed, onAgreedSent, log } = options;
  const { replication } = instance.plan;
  const { address, port } = ownMember(replication);
  try {
    return await SnapshotServer.listen({
      ...{ host: address, port, self: replication.self, circle },
      shape: shapeOf(instance),
      fork: () => forkState(instance, objects(), true, lacks()),
      refuse: () => entry.lacksState,
      offer: () => entry.offer,
      ...{ agreed, onAgreedSent },
      log: (level, text) => log[level](text),
    });
  } catch (error) {
    const what = `cannot listen for members that join, on ${address} TCP port ${port}`;
    throw new Error(`${what}: ${(error as Error).message}`, { cause: error });
  }
}
