/**
 * Joins under load. A site with real threads counts packets. Again and again a fresh site joins it
 * as the daemon does: it listens, takes a snapshot of the busy site, loads it, and receives what
 * came after. Then packets stop, and the digests of all objects must become equal.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import type { AckBoard } from '../../shm/ack-board.js';
import { VectorRecord } from '../../shm/board-records.js';
import { coarseSeconds } from '../../shm/clock.js';
import { MemberTable } from '../../shm/members.js';
import { CounterVector } from '../../shm/objects/counting/counters.js';
import { monotonicMs } from '../../workers/base/monotonic.js';
import { Joining } from '../../workers/replication/membership/joining.js';
import { newKey } from '../../workers/replication/wire/cluster-key.js';
import { fetchSnapshot } from '../../workers/snapshot/client.js';
import { forkState, shapeOf } from '../../workers/snapshot/fork.js';
import { Landing } from '../../workers/snapshot/landing.js';
import { loadSnapshot } from '../../workers/snapshot/load.js';
import { SnapshotServer } from '../../workers/snapshot/server.js';
import { freePort } from '../support/ports.js';
import { soon } from '../support/process.js';
import { BusySite, member } from '../workers/snapshot/busy-site.js';

/** Longest wait for the last units, and for a join, ms. Only a fault takes so long. */
const EQUAL_MS = 30_000;
const JOIN_MS = 120_000;
/** Load after a join, at most, ms. */
const AFTER_MS = 60;
const LOOK_MS = 2;
const REPORT_EVERY = 50;

interface JoinOptions {
  readonly joins: number;
  readonly packetsPerSecond: number;
  readonly say: (text: string) => void;
}

interface JoinResult {
  readonly joins: number;
  /** Joins after which the digests stayed different. */
  readonly mismatches: number;
  /** Snapshots that failed or were refused, and were asked for again. */
  readonly refused: number;
  /** Packets counted by the busy site. */
  readonly packets: number;
  /** For each snapshot: how long packets were paused, in µs, ascending. */
  readonly pausesUs: readonly number[];
}

export async function joinCycles({ joins, packetsPerSecond, say }: JoinOptions): Promise<JoinResult> {
  const members = [member(1, await freePort()), member(2, await freePort())];
  const size = { members, workers: 1, unitLogBytes: 4 << 20 };
  const donor = await BusySite.create({ ...size, self: 1, packetsPerSecond });
  const { instance, objects } = donor;
  const circle = { clusterId: 1, meaningHash: instance.arena.meaningHash, keys: [newKey(1)] };
  const pausesUs: number[] = [];
  const server = await SnapshotServer.listen({
    host: '127.0.0.1',
    port: 0,
    self: 1,
    circle,
    shape: shapeOf(instance),
    fork: () => {
      const fork = forkState(instance, objects, true);
      pausesUs.push(fork.pauseUs);
      return fork;
    },
    log: () => {},
  });

  /** Fetches into the newcomer's arena. Its threads do not write there: it has no state yet. */
  const fetch = ({ instance: into }: BusySite): ReturnType<typeof fetchSnapshot> =>
    fetchSnapshot({
      client: 2,
      server: 1,
      address: '127.0.0.1',
      port: server.port,
      circle,
      shape: shapeOf(into),
      place: new Landing(into, false).place,
      log: () => {},
    });

  let refused = 0;
  /** Returns when the newcomer has state and receives what is new. */
  const join = async (site: BusySite): Promise<void> => {
    const { buffers, plan, slots } = site.instance;
    const threads = [slots.receive, slots.send];
    const { board } = site;
    const joining = new Joining(plan.replication, board, new MemberTable(buffers.members), monotonicMs());
    await site.start(threads);
    const end = monotonicMs() + JOIN_MS;
    while (joining.state !== 'ready') {
      if (monotonicMs() > end) throw new Error(`the newcomer has not joined within ${JOIN_MS} ms: ${joining.reason}`);
      joining.poll(monotonicMs());
      if (joining.wantsSnapshotFrom === null) {
        await sleep(LOOK_MS);
        continue;
      }
      try {
        const head = await fetch(site);
        const refusal = joining.refuses(head.vectors.present);
        if (refusal !== null) throw new Error(refusal);
        await site.stop();
        loadSnapshot(site.instance, site.objects, head);
        joining.snapshotTaken(head.lacks);
        await site.start(threads);
      } catch (error) {
        refused++;
        say(`again: ${error instanceof Error ? error.message : String(error)}`);
        joining.snapshotFailed(String(error), monotonicMs());
      }
    }
  };

  let mismatches = 0;
  let done = 0;
  try {
    await donor.start();
    for (; done < joins; done++) {
      donor.isLoaded = true;
      const newcomer = await BusySite.create({ ...size, self: 2 });
      try {
        await join(newcomer);
        await sleep(Math.random() * AFTER_MS);
        donor.isLoaded = false;
        const isEqual = await soon(() => difference(donor, newcomer) === null, EQUAL_MS);
        if (!isEqual) {
          mismatches++;
          say(`join ${done + 1}: ${difference(donor, newcomer)}; ${vectors(donor.board, newcomer.board)}`);
        }
      } finally {
        await newcomer.stop();
      }
      if ((done + 1) % REPORT_EVERY === 0) say(`${done + 1} joins, ${mismatches} mismatches, ${refused} refused`);
    }
    pausesUs.sort((a, b) => a - b);
    return { joins: done, mismatches, refused, packets: donor.packets.taken, pausesUs };
  } finally {
    await server.close();
    await donor.stop();
  }
}

/** What differs between the sites; null: nothing. Both forms of count must have every packet. */
function difference(donor: BusySite, newcomer: BusySite): string | null {
  const now = coarseSeconds(Date.now());
  const [ours, theirs] = [donor, newcomer].map((site) => site.digests(now));
  for (const [id, digest] of ours.entries())
    if (digest !== theirs[id]) return `object ${id}: the digests are ${digest} and ${theirs[id]}`;
  const { taken } = donor.packets;
  for (const object of newcomer.objects)
    if (object instanceof CounterVector) {
      let total = 0;
      for (let i = 0; i < object.length; i++) total += object.value(i);
      if (total !== taken) return `${taken} packets were counted as ${total}`;
    }
  return null;
}

function vectors(donor: AckBoard, newcomer: AckBoard): string {
  return Array.from({ length: donor.objects }, (_, object) => {
    const vector = new VectorRecord();
    newcomer.readReception(object, 0, vector);
    return `object ${object}: has ${vector.contiguous} (${vector.ranges} ranges) of ${donor.numbered(object)}`;
  }).join(', ');
}
