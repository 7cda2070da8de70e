/**
 * The members, as the rest of the daemon knows them. Where the list comes from differs: the
 * configuration (static-members.ts) or etcd (etcd-members.ts).
 */

import { Role } from '../../shm/members.js';
import type { PeerStatus } from '../../workers/replication/peers.js';
import type { MemberRow, NewMember } from '../admin/source.js';
import type { LifecycleState } from '../lifecycle.js';
import type { Placed, Roster } from './roster.js';

export type ListChange = 'add' | 'remove' | 'evict';

export interface Members {
  /** For `status`: where the list comes from, and its version. */
  describe(): string;
  rows(peers: readonly PeerStatus[], own: LifecycleState): MemberRow[];
  /**
   * These change the list; each resolves with the member's name, and rejects with a `RosterError`
   * that says why not.
   */
  add(member: NewMember): Promise<string>;
  remove(name: string): Promise<string>;
  evict(name: string): Promise<string>;
  /** How far such a change reaches, and what is still to be done about it. */
  note(member: MemberRow, change: ListChange): string;
  /** This instance leaves in order: everybody has everything. Never rejects. */
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

/** What people are told of a member's state. */
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
