/**
 * The member list, as the rest of the daemon sees it. Its source is either the configuration
 * (static-members.ts) or etcd (etcd-members.ts).
 */

import { Role } from '../../shm/members.js';
import type { PeerStatus } from '../../workers/replication/membership/peers.js';
import type { LifecycleState } from '../lifecycle/lifecycle.js';
import type { MemberRow, NewMember } from '../views/source.js';
import type { Placed, Roster } from './roster.js';

export type ListChange = 'add' | 'remove' | 'evict';

export interface Members {
  /** The source of the list and its version, for `status`. */
  describe(): string;
  rows(peers: readonly PeerStatus[], own: LifecycleState): MemberRow[];
  /**
   * These change the list. Each resolves with the member's name. Each rejects with a `RosterError`
   * if the change cannot be made.
   */
  add(member: NewMember): Promise<string>;
  remove(name: string): Promise<string>;
  evict(name: string): Promise<string>;
  /** How far such a change reaches, and what is left to do. */
  note(member: MemberRow, change: ListChange): string;
  /**
   * Records that this instance leaves in order, after all members have everything. Never rejects.
   */
  left(): Promise<void>;
  close(): void;
}

const ROLE_NAMES = {
  [Role.EMPTY]: 'left',
  [Role.MEMBER]: 'member',
  [Role.EVICTED]: 'evicted',
  [Role.LEFT]: 'left',
} as const;

export function memberRows(roster: Roster, peers: readonly PeerStatus[], own: LifecycleState): MemberRow[] {
  return roster.list().map(({ slot, entry }: Placed) => ({
    name: entry.name,
    id: entry.id,
    slot,
    address: entry.address,
    role: slot === roster.self ? 'self' : ROLE_NAMES[entry.role],
    state: slot === roster.self ? own : stateOf(peers.find((peer) => peer.index === slot)),
  }));
}

/** A member's state, as shown to people. */
export function shownState({
  state,
  leaving,
}: PeerStatus): 'reachable' | 'leaving' | Exclude<PeerStatus['state'], 'heard'> {
  return state === 'heard' ? (leaving ? 'leaving' : 'reachable') : state;
}

function stateOf(peer: PeerStatus | undefined): string {
  if (peer === undefined) return '-';
  return shownState(peer);
}
