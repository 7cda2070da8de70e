/**
 * The static member list: the members of the configuration, and operators' changes to it at run
 * time.
 */

import { Role, type SlotEntry } from '../../shm/members.js';
import type { PeerStatus } from '../../workers/replication/membership/peers.js';
import type { MemberRow, NewMember, Standing } from '../views/source.js';
import { type ListChange, type Members, memberRows } from './members.js';
import { type Roster, RosterError } from './roster.js';

interface StaticMembersOptions {
  readonly roster: Roster;
  /** UDP port of state messages, the same at every member. */
  readonly port: number;
  /** The present or last incarnation of the member in a slot; 0: never heard. */
  readonly incarnation: (slot: number) => number;
  /** Whether other members have already reported that its last incarnation has ended. */
  readonly isOver: (slot: number) => boolean;
  readonly onEvicted: (member: SlotEntry) => void;
}

export class StaticMembers implements Members {
  private readonly options: StaticMembersOptions;

  constructor(options: StaticMembersOptions) {
    this.options = options;
  }

  describe(): string {
    return `static, view ${this.options.roster.view}`;
  }

  rows(peers: readonly PeerStatus[], own: Standing['state']): MemberRow[] {
    return memberRows(this.options.roster, peers, own);
  }

  /** Members replicate an eviction in their messages. They do not replicate the member list. */
  note({ name, id, address, slot }: MemberRow, change: ListChange): string {
    if (change === 'evict') return 'this member informs the others';
    const others = this.options.roster
      .list()
      .filter(
        ({ slot: other, entry }) =>
          other !== this.options.roster.self && entry.name !== name && entry.role === Role.MEMBER,
      )
      .map(({ entry }) => `${entry.name} (${entry.address})`);
    const command = change === 'add' ? `member add ${name} ${id} ${address} slot=${slot}` : `member remove ${name}`;
    const there = others.length === 0 ? '' : `still to be given at ${others.join(', ')}: ${command}; `;
    return `at this instance, until it is started again; ${there}and change cluster.members in every file`;
  }

  async add({ slot, ...member }: NewMember): Promise<string> {
    const { roster, port } = this.options;
    return roster.add({ ...member, port }, slot).entry.name;
  }

  async remove(name: string): Promise<string> {
    return this.options.roster.remove(name).entry.name;
  }

  async evict(name: string): Promise<string> {
    const { roster, incarnation, isOver, onEvicted } = this.options;
    const { slot, entry } = roster.find(name);
    const present = incarnation(slot);
    if (slot !== roster.self && present <= entry.dead)
      throw new RosterError(
        entry.dead === 0 ? `${name} was never heard: there is nothing of it to complete` : `${name} is evicted already`,
      );
    const known = isOver(slot);
    roster.evict(name, present);
    if (!known) onEvicted(entry);
    return name;
  }

  async left(): Promise<void> {}

  close(): void {}
}
