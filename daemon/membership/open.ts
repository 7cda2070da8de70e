/** Opens the member list of an instance from its configured source. */

import type { Config } from '../../conf/config.js';
import { AckBoard, PeerRecord } from '../../shm/ack-board.js';
import { SlotIncarnations } from '../../shm/board-records.js';
import type { SlotEntry } from '../../shm/members.js';
import { monotonicMs } from '../../workers/base/monotonic.js';
import type { Instance } from '../../workers/engine/instance.js';
import { newIncarnation, selfIndex } from '../../workers/replication/settings.js';
import type { Log } from '../base/log.js';
import type { Hooks } from '../lifecycle/hooks.js';
import { EtcdMembers, type Registration, register } from './etcd-members.js';
import type { Members } from './members.js';
import { Roster } from './roster.js';
import { StaticMembers } from './static-members.js';

/** This instance's slot in its cluster. */
export interface Place {
  /** The configuration with our own slot filled in. */
  readonly config: Config;
  /** The incarnation of this start. */
  readonly incarnation: number;
  /** Our registration in etcd; null: etcd is not used. */
  readonly registration: Registration | null;
}

/**
 * Takes our slot. With etcd, this may wait until an earlier incarnation's lease has lapsed. Calls
 * `onWaiting` with what it waits for, and with null when it no longer waits.
 */
export async function takePlace(
  config: Config,
  log: Log,
  signal: AbortSignal,
  onWaiting: (reason: string | null) => void,
): Promise<Place> {
  const { cluster, transport } = config;
  const incarnation = newIncarnation();
  if (cluster.membership.kind === 'static') return { config, incarnation, registration: null };
  const { name, address } = cluster.self;
  const applicant = { name, address, port: transport.port, incarnation, slots: cluster.slots };
  const registration = await register(cluster.membership, cluster.id, applicant, { log, signal, onWaiting });
  onWaiting(null);
  const self = { ...cluster.self, id: registration.id, slot: registration.slot };
  return {
    config: { ...config, cluster: { ...cluster, self, members: [self] } },
    incarnation: registration.incarnation,
    registration,
  };
}

interface OpenMembersOptions {
  readonly place: Place;
  readonly instance: Instance;
  readonly hooks: Hooks;
  readonly log: Log;
  /** Our own incarnation has ended; this instance cannot continue. */
  readonly onOver: (error: Error) => void;
}

export function openMembers({ place, instance, hooks, log, onOver }: OpenMembersOptions): Members {
  const { buffers, plan } = instance;
  const roster = new Roster(buffers.members, selfIndex(plan.replication));
  const onEvicted = ({ name, id, address }: SlotEntry): void => {
    log.warn(`member ${name} is evicted: its present incarnation is declared dead`);
    void hooks.run('member_lost', { member: { name, id, address }, reason: 'evicted' });
  };
  const { registration, config } = place;
  const board = new AckBoard(buffers.ackBoard);
  const heard = (slot: number): number => {
    const peer = new PeerRecord();
    board.readPeer(slot, peer);
    return peer.incarnation !== 0 && monotonicMs() - peer.heardAt <= plan.replication.silentMs ? peer.incarnation : 0;
  };
  if (registration !== null) return new EtcdMembers({ registration, roster, log, heard, onEvicted, onOver });
  const incarnation = (slot: number): number => {
    const peer = new PeerRecord();
    board.readPeer(slot, peer);
    if (peer.incarnation !== 0) return peer.incarnation;
    // Other members may have reported already that its incarnation has ended.
    const incarnations = new SlotIncarnations();
    board.readIncarnations(slot, incarnations);
    return incarnations.former;
  };
  const isOver = (slot: number): boolean => {
    const incarnations = new SlotIncarnations();
    board.readIncarnations(slot, incarnations);
    return incarnations.current === 0 && incarnations.former !== 0;
  };
  return new StaticMembers({ roster, port: config.transport.port, incarnation, isOver, onEvicted });
}
