/**
 * Keeps the state of a ready instance equal to its peers': main's part in simulated time, the
 * digest watch (daemon/watch/digest-watch.ts) and the re-sync (daemon/membership/resync.ts). If
 * records of others were skipped, or a member's digest differs, the instance takes snapshots of the
 * members and merges them with its own state.
 */

import { createHash } from 'node:crypto';
import { DigestWatch } from '../../daemon/watch/digest-watch.js';
import type { StateObject } from '../../shm/objects/core/object.js';
import { Unmet } from '../../workers/replication/membership/unmet.js';
import { mergeObject } from '../../workers/snapshot/load.js';
import type { OriginVector } from '../../workers/snapshot/vectors.js';
import type { Snapshot } from './entry.js';
import type { Instance } from './instance.js';
import { regionOf } from './real-objects.js';
import type { Capture, Subject } from './subjects.js';
import { Violation } from './violation.js';

/** Main's polling interval, ms. */
const LOOK_MS = 500;
/** Back-off after a donor failed, ms: initial and maximum. It doubles with each failure. */
const BACK_OFF_MS = [1_000, 60_000] as const;

/** Numbers of an origin whose effect came with a merged snapshot: our vectors stay as they are. */
export interface Merged extends OriginVector {
  readonly object: number;
  readonly origin: number;
}

export class Upkeep {
  /** What came with merged snapshots, or came with our first one from a member that had merged. */
  readonly merged = new Map<string, Merged>();
  private readonly instance: Instance;
  private readonly digests: DigestWatch;
  /** Slots of members whose state is still to be merged. */
  private readonly wanted = new Set<number>();
  private isFetching = false;
  private unmet: Unmet | null = null;
  private skipped = 0;
  private notBefore = 0;
  private backOffMs: number = BACK_OFF_MS[0];

  constructor(instance: Instance) {
    this.instance = instance;
    const { board, member, settings, host } = instance;
    this.digests = new DigestWatch({
      board,
      self: member,
      ids: () => settings.members.map(({ id, slot }) => (instance.members.isMember(slot) ? id : 0)),
      isBusy: () => instance.backlog > 0,
      onDiffer: (object, slot) => {
        host.differs(instance, object, slot);
        this.want([slot]);
      },
    });
    instance.every(LOOK_MS, () => {
      if (instance.entry.isReady) this.look();
      return true;
    });
  }

  /** Whether no snapshot is wanted, and none will be at the next look. */
  get isIdle(): boolean {
    const { entry } = this.instance;
    const isMet = this.unmet !== null && [...this.unmet.slots].some((slot) => entry.hasState(slot));
    return this.wanted.size === 0 && !isMet && !this.hasSkipped;
  }

  /** Slots of members whose state is not merged yet. */
  get lacks(): number[] {
    const unmet = this.unmet?.slots ?? this.instance.entry.joining.unmet;
    const lacks = this.hasSkipped ? Array(this.instance.board.members).keys() : [...this.wanted, ...unmet];
    return [...new Set(lacks)].filter((slot) => slot !== this.instance.member);
  }

  private get hasSkipped(): boolean {
    const { counts, host } = this.instance;
    // If numbers start far from 1, the first message of each member skips the ones before it.
    return counts.value('state_rx_records_skipped') > this.skipped && host.plan.firstSequence === 1;
  }

  /** Takes a snapshot of the member at once, unless one is being fetched. */
  takeFrom(donor: number): void {
    if (this.instance.entry.isReady && !this.isFetching) this.take(donor);
  }

  want(slots: Iterable<number>): void {
    for (const slot of slots) if (slot !== this.instance.member) this.wanted.add(slot);
  }

  private look(): void {
    const { instance } = this;
    instance.members.refresh();
    if (this.hasSkipped) this.want(Array(instance.board.members).keys());
    this.skipped = instance.counts.value('state_rx_records_skipped');
    this.unmet ??= new Unmet(instance.entry.joining.unmet);
    this.want(this.unmet.met(instance.board, instance.members, instance.settings.silentMs, instance.localMs));
    this.digests.look(instance.subjects.map(contentOf), instance.moment.coarse);
    if (this.isFetching || instance.localMs < this.notBefore) return;
    for (const slot of this.wanted) {
      if (!instance.members.isMember(slot)) this.wanted.delete(slot);
      else if (instance.entry.hasState(slot)) {
        this.take(slot);
        return;
      }
    }
  }

  private take(donor: number): void {
    const { instance } = this;
    this.isFetching = true;
    instance.host.fetchSnapshot(instance, donor, (snapshot) => {
      this.isFetching = false;
      if (!instance.up || !instance.entry.isReady) return;
      if (typeof snapshot !== 'string') {
        this.merge(snapshot);
        this.wanted.delete(donor);
        this.backOffMs = BACK_OFF_MS[0];
        return;
      }
      this.notBefore = instance.localMs + this.backOffMs;
      this.backOffMs = Math.min(2 * this.backOffMs, BACK_OFF_MS[1]);
      // The next member gets its turn first.
      if (this.wanted.delete(donor)) this.wanted.add(donor);
    });
  }

  /** Merges a snapshot with our state, object by object, while no receive thread runs. */
  private merge(snapshot: Snapshot): void {
    const { instance } = this;
    instance.withoutReceiver(() => {
      instance.subjects.forEach((subject, id) => {
        this.mergeSubject(subject, snapshot.objects[id], snapshot.vectors.present[id]);
      });
    });
    this.noteMerged(snapshot);
    instance.host.happened('snapshot: merged');
  }

  private noteMerged({ vectors, merged }: Snapshot): void {
    for (const [key, one] of merged) this.merged.set(key, one);
    for (const part of [vectors.present, vectors.former])
      for (const [object, origins] of part.entries())
        for (const [origin, vector] of origins.entries())
          if (vector.incarnation !== 0)
            this.merged.set([object, ...Object.values(vector)].join(' '), { ...vector, object, origin });
  }

  private mergeSubject(subject: Subject, { ledger, region }: Capture, vectors: readonly OriginVector[]): void {
    const { board, member, moment } = this.instance;
    if (ledger !== null) subject.ledger?.joinNotes(ledger);
    if (region === null) return;
    try {
      mergeObject(board, subject.receive.inner, regionOf(region), vectors, member, moment.coarse);
    } catch (error) {
      // Increments cannot be merged.
      if (error instanceof Violation) throw error;
      this.instance.host.happened(`not merged: ${subject.kind}`);
    }
  }
}

/**
 * The object as the digest watch needs it. A ledger's digest is text of any length, so it is
 * hashed.
 */
function contentOf(subject: Subject): StateObject {
  const { inner } = subject.receive;
  if (subject.ledger === null) return inner;
  const { ledger } = subject;
  return {
    ...inner,
    id: inner.id,
    digest: () => createHash('sha256').update(ledger.digest()).digest('hex'),
  } as StateObject;
}
