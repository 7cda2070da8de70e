/**
 * A network whose members join and leave as a daemon has them do it
 * (workers/replication/membership/joining.ts): a snapshot is a copy of the donor's ledgers, vectors
 * and lives at one moment, and takes a while to come.
 *
 * Every member keeps what it writes itself in its own ledgers too, so that after quiet all ledgers
 * are equal.
 */

import { AckBoard } from '../../../shm/ack-board.js';
import { MemberTable, MemberTableWriter, type SlotEntry } from '../../../shm/members.js';
import { Joining } from '../../../workers/replication/membership/joining.js';
import { laterIncarnation } from '../../../workers/replication/settings.js';
import { readVectors, type SnapshotVectors, writeVectors } from '../../../workers/snapshot/vectors.js';
import { NOTE } from '../../support/ledger.js';
import { Network, type NetworkOptions, type TestMember } from './network.js';

const SNAPSHOT_MS = 20;

interface Snapshot {
  readonly notes: readonly ReadonlyMap<number, readonly number[]>[];
  readonly vectors: SnapshotVectors;
  readonly lacks: readonly number[];
}

interface Transfer {
  readonly donor: TestMember;
  readonly snapshot: Snapshot;
  readonly doneAt: number;
}

export class JoiningNetwork extends Network {
  /** By index, of the present life. */
  readonly joinings: Joining[] = [];
  /** Snapshots that were taken, as [newcomer, donor]. */
  readonly taken: [number, number][] = [];
  /** Called when a transfer begins: for what happens in the middle of it. */
  onTransfer: ((to: number, from: number) => void) | null = null;
  snapshotMs = SNAPSHOT_MS;
  private readonly transfers = new Map<number, Transfer>();

  constructor(options: NetworkOptions) {
    super(options);
    for (const member of this.members) this.begin(member);
  }

  /** A new life, without state. */
  rejoin(index: number, incarnation?: number): void {
    this.transfers.delete(index);
    this.begin(this.restart(index, incarnation));
  }

  crash(index: number): void {
    this.members[index].up = false;
    this.transfers.delete(index);
  }

  /** One note, by a member that is ready. Returns whether there was room. */
  note(member: number, object: number, id: number): boolean {
    if (!this.append(member, object, NOTE, id)) return false;
    this.members[member].objects[object].apply(NOTE, Int32Array.of(id), 0, 1, member, 0);
    return true;
  }

  isReady(index: number): boolean {
    return this.joinings[index].state === 'ready';
  }

  /** What main of every member that is up hears of a slot. */
  tell(slot: number, change: Partial<SlotEntry>): void {
    for (const { table, up, index } of this.members) {
      if (!up || index === slot) continue;
      const now = new MemberTable(table);
      const entries = Array.from({ length: now.slots }, (_, other) => now.entry(other));
      entries[slot] = { ...entries[slot], ...change };
      new MemberTableWriter(table).write(now.view + 1, entries);
    }
  }

  override run(ms: number): void {
    const end = this.now + ms;
    while (this.now < end) {
      super.run(Math.min(1, end - this.now));
      for (const member of this.members) if (member.up) this.shell(member);
    }
  }

  private begin(member: TestMember): void {
    const board = new AckBoard(member.board);
    this.joinings[member.index] = new Joining(member.settings, board, new MemberTable(member.table), this.now);
  }

  /** What main does. */
  private shell(member: TestMember): void {
    const { index } = member;
    const joining = this.joinings[index];
    joining.poll(this.now);
    if (joining.outrunBy !== 0) {
      new AckBoard(member.board).raiseIncarnation(laterIncarnation(joining.outrunBy));
      member.startSender();
      member.startReceiver();
    }
    const from = joining.wantsSnapshotFrom;
    if (from === null) return;
    const donor = this.members[from];
    const transfer = this.transfers.get(index);
    if (transfer === undefined) {
      if (!donor.up) {
        joining.snapshotFailed('nobody answers', this.now);
        return;
      }
      this.transfers.set(index, {
        donor,
        snapshot: take(donor, this.joinings[from].unmet),
        doneAt: this.now + this.snapshotMs,
      });
      this.onTransfer?.(index, from);
    } else if (this.now >= transfer.doneAt) {
      this.transfers.delete(index);
      this.finish(member, joining, transfer);
    }
  }

  private finish(member: TestMember, joining: Joining, { donor, snapshot }: Transfer): void {
    if (!donor.up) {
      joining.snapshotFailed('it broke off', this.now);
      return;
    }
    const problem = joining.refusesDonor(snapshot.lacks, this.now) ?? joining.refuses(snapshot.vectors.present);
    if (problem !== null) {
      joining.snapshotFailed(problem, this.now);
      return;
    }
    load(member, snapshot, this.now);
    joining.snapshotTaken(snapshot.lacks);
    this.taken.push([member.index, donor.index]);
  }
}

function take(donor: TestMember, lacks: readonly number[]): Snapshot {
  return {
    lacks,
    notes: donor.objects.map(({ notes }) => new Map([...notes].map(([origin, ids]) => [origin, [...ids]]))),
    vectors: readVectors(new AckBoard(donor.board), donor.objects, donor.index),
  };
}

function load(member: TestMember, { notes, vectors }: Snapshot, now: number): void {
  for (const object of member.objects) {
    object.notes.clear();
    for (const [origin, ids] of notes[object.id]) object.notes.set(origin, [...ids]);
  }
  writeVectors(new AckBoard(member.board), vectors, member.index, now);
  // In the place of a receive thread that is started again.
  member.receiver.reload();
}
