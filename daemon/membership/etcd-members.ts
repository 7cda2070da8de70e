/**
 * The member list in etcd. An instance registers under a lease to become a member. A lapsed lease
 * counts as a crash.
 *
 *     register ─▶ keep the lease alive ─▶ leave (in order)
 *        │             │ etcd unreachable: the last list stays; retry with back-off; traffic and replication continue
 *        │             └ lease is gone: the same incarnation claims its slot again, unless it was declared dead
 *        └─▶ watch ─▶ decide ─▶ member table, view = etcd's revision
 *                        └────▶ claim the slot again, or write records that etcd has lost
 *
 * The list follows the watch. If the watch breaks, or its revision was compacted away, everything
 * is read again. etcd-decide.ts decides what follows from the records and from the members that are
 * heard.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { EMPTY_SLOT, Role, type SlotEntry } from '../../shm/members.js';
import type { PeerStatus } from '../../workers/replication/membership/peers.js';
import type { Log } from '../base/log.js';
import { notifyWaiting } from '../lifecycle/notify.js';
import type { MemberRow, Standing } from '../views/source.js';
import { backOff, CompactedError, EtcdClient, EtcdError, reason } from './etcd-client.js';
import { decide, type Known, ownPlace, type Version } from './etcd-decide.js';
import type { SlotRecord } from './etcd-record.js';
import { type Applicant, type Claim, NotYetError, Records, rootOf } from './etcd-records.js';
import { type Members, memberRows } from './members.js';
import { type Roster, RosterError } from './roster.js';

interface EtcdConfig {
  readonly endpoints: readonly string[];
  readonly prefix: string;
  readonly lease_ttl_s: number;
}

/** A slot in the cluster, and the lease that keeps it. */
export interface Registration {
  readonly config: EtcdConfig;
  readonly client: EtcdClient;
  /** Empty: nothing has been read into it. */
  readonly records: Records;
  readonly name: string;
  readonly id: number;
  readonly slot: number;
  readonly incarnation: number;
  readonly lease: string;
}

/** A member's record, as just read. */
interface Place {
  /** All records in etcd. */
  readonly now: Records;
  readonly slot: number;
  readonly record: SlotRecord;
  readonly alive: boolean;
  /** Revision of the record. */
  readonly revision: number;
}

/** Interval between two checks for a free slot. */
const WAIT_MS = 500;
/** Interval between two log lines about what is waited for. */
const SAY_MS = 30_000;
/** Number of keep-alive attempts within one lease. */
const KEEP_ALIVES = 3;
const CALL_MS_MAX = 3000;
/** Interval between two checks of members that stay although etcd does not list them as alive. */
const LOOK_MS = 250;
/** Number of attempts to write our record while other members change theirs. */
const WRITES_MAX = 10;

interface RegisterOptions {
  readonly log: Log;
  readonly signal: AbortSignal;
  /** Called with what is waited for, for people. */
  readonly onWaiting?: (reason: string) => void;
}

/**
 * Registers a slot in the cluster. Waits for etcd, and for the lease of an earlier incarnation to
 * lapse. Throws if it can never get a slot, or if `signal` is aborted.
 *
 * An instance that etcd does not know waits for two thirds of a lease before it takes an id and a
 * slot. If etcd was restored empty or from a backup, the members that are alive write their records
 * again in that time: they try at least three times per lease.
 */
export async function register(
  config: EtcdConfig,
  cluster: string,
  applicant: Applicant,
  { log, signal, onWaiting = () => {} }: RegisterOptions,
): Promise<Registration> {
  const leaseMs = config.lease_ttl_s * 1000;
  const callMs = Math.min(CALL_MS_MAX, Math.floor(leaseMs / KEEP_ALIVES));
  const client = new EtcdClient(config.endpoints, callMs);
  const records = new Records(rootOf(config.prefix, cluster), applicant.slots);
  let lease: string | null = null;
  let saidAt = Number.NEGATIVE_INFINITY;
  /**
   * Time from which a new slot may be taken; null: etcd has not been read since it was last lost.
   */
  let newPlaceAt: number | null = null;
  const say = (text: string, level: 'info' | 'warn' = 'warn'): void => {
    onWaiting(text);
    if (performance.now() - saidAt < SAY_MS) return;
    saidAt = performance.now();
    log[level](text);
    notifyWaiting(text);
  };
  const mayBeNew = (): boolean => {
    newPlaceAt ??= performance.now() + (2 / KEEP_ALIVES) * leaseMs;
    return performance.now() >= newPlaceAt;
  };
  for (let attempt = 0; ; ) {
    signal.throwIfAborted();
    try {
      lease ??= await client.grant(config.lease_ttl_s);
      const { id, slot, incarnation } = await claim(client, records, applicant, { lease, mayBeNew });
      const { name } = applicant;
      log.info(`etcd: member ${name} has id ${id}, slot ${slot}`);
      return { config, client, records: records.empty(), name, id, slot, incarnation, lease };
    } catch (error) {
      if (isLeaseLost(error)) {
        // The lease lapsed before the slot was claimed, as on an overloaded host.
        lease = null;
        continue;
      }
      if (error instanceof RosterError || error instanceof EtcdError) throw error;
      if (error instanceof NotYetError) {
        say(`etcd: ${error.message}`, error instanceof NewPlaceError ? 'info' : 'warn');
        if (lease !== null && !(await client.keepAlive(lease).catch(() => true))) lease = null;
        await sleep(WAIT_MS, undefined, { signal });
        continue;
      }
      say(`etcd cannot be reached, and is tried again: ${reason(error)}`);
      lease = null;
      newPlaceAt = null;
      // Nothing else runs yet at the start, so the wait keeps the process running.
      await backOff(attempt++, signal, { ref: true });
    }
  }
}

interface ClaimWith {
  readonly lease: string;
  /** Whether an instance that etcd does not know may take a slot. */
  readonly mayBeNew: () => boolean;
}

class NewPlaceError extends NotYetError {}

/** Reads, decides and claims the slot. Repeats if another member was faster. */
async function claim(
  client: EtcdClient,
  records: Records,
  applicant: Applicant,
  { lease, mayBeNew }: ClaimWith,
): Promise<Claim> {
  for (;;) {
    records.reset((await client.read(records.root)).entries);
    records.check();
    if (!mayBeNew() && records.slotOf(applicant.name) < 0)
      throw new NewPlaceError(`has no record of ${applicant.name}: waiting for records that it may have lost`);
    const found = records.claim(applicant, lease);
    if (await client.change(found.conditions, found.operations)) return found;
  }
}

interface EtcdMembersOptions {
  readonly registration: Registration;
  readonly roster: Roster;
  readonly log: Log;
  /** The incarnation of the member in the slot that is heard on the state channel now; 0: none. */
  readonly heard: (slot: number) => number;
  readonly onEvicted: (member: SlotEntry) => void;
  /** Our own incarnation has ended; this instance cannot continue. */
  readonly onOver: (error: Error) => void;
}

export class EtcdMembers implements Members {
  private readonly options: EtcdMembersOptions;
  private lease: string;
  private readonly ending = new AbortController();
  private watching = new AbortController();
  private claiming = false;
  private readonly running: Promise<unknown>;
  /** Since when etcd has not been reached, and why; null: it is reached. */
  private lost: { readonly since: number; readonly why: string } | null = null;
  /** Etcd was reached again, and no decision was made since. */
  private isRegained = false;
  private seen: Version | null = null;
  private known: readonly Known[];
  private graceUntil = Number.NEGATIVE_INFINITY;
  private contested = '';
  private older: string | null = null;
  private again: NodeJS.Timeout | null = null;

  constructor(options: EtcdMembersOptions) {
    this.options = options;
    const { registration, roster } = options;
    this.lease = registration.lease;
    const entries = new Map(roster.list().map(({ slot, entry }) => [slot, entry]));
    this.known = Array.from({ length: registration.records.slots }, (_, slot) => ({
      entry: entries.get(slot) ?? EMPTY_SLOT,
      incarnation: slot === registration.slot ? registration.incarnation : 0,
    }));
    this.running = Promise.all([this.keepAlive(), this.follow()]);
  }

  describe(): string {
    const { registration, roster } = this.options;
    const state =
      this.lost === null
        ? ''
        : `; not followed for ${Math.round((performance.now() - this.lost.since) / 1000)} s (${this.lost.why}): the last list stays`;
    const kept = this.contested === '' ? '' : `; kept though etcd does not list them as alive: ${this.contested}`;
    return `etcd ${registration.config.endpoints.join(', ')}, view ${roster.view}${state}${kept}`;
  }

  rows(peers: readonly PeerStatus[], own: Standing['state']): MemberRow[] {
    return memberRows(this.options.roster, peers, own);
  }

  note(): string {
    return 'in etcd: at every member, and lasting';
  }

  add(): Promise<string> {
    return Promise.reject(
      new RosterError('with etcd, an instance takes its place itself when it starts: configure it there, and start it'),
    );
  }

  async remove(name: string): Promise<string> {
    await this.write(this.another(name), ({ alive }) => {
      if (alive) throw new RosterError(`${name} is alive: drain it and shut it down first, or evict it`);
      return { left: true };
    });
    return name;
  }

  async evict(name: string): Promise<string> {
    await this.write(this.another(name), ({ record }) => {
      if (record.left) throw new RosterError(`${name} has left: there is nothing of it to complete`);
      return { evicted: true };
    });
    return name;
  }

  private another(name: string): string {
    if (name !== this.options.registration.name) return name;
    throw new RosterError(`${name} is this instance; drain and shutdown take it out of service`);
  }

  /** Records that we left in order, and gives the lease back. */
  async left(): Promise<void> {
    await this.end();
    const { registration, log } = this.options;
    try {
      await this.write(registration.name, ({ record }) => {
        if (record.incarnation !== registration.incarnation)
          throw new RosterError('another incarnation holds the slot');
        return { left: true };
      });
      await registration.client.revoke(this.lease);
    } catch (error) {
      log.warn(`etcd could not be informed that this instance left; its lease will lapse: ${reason(error)}`);
    }
  }

  close(): void {
    void this.end();
  }

  private async end(): Promise<void> {
    this.ending.abort();
    if (this.again !== null) clearTimeout(this.again);
    await this.running;
  }

  /**
   * Changes a member's record and deletes its alive key: a member that left or was evicted is not
   * alive.
   */
  private async write(name: string, how: (place: Place) => Partial<SlotRecord>): Promise<void> {
    const { client, records } = this.options.registration;
    for (;;) {
      const place = await this.readPlace(name);
      const key = records.slotKey(place.slot);
      const value = place.now.encode({ ...place.record, ...how(place) }, place.slot);
      const operations = [{ put: key, value }, { delete: records.aliveKey(place.slot) }];
      if (await client.change([{ key, revision: place.revision }], operations)) return;
    }
  }

  private async readPlace(name: string): Promise<Place> {
    const { client, records } = this.options.registration;
    const now = records.empty();
    try {
      now.reset((await client.read(now.root)).entries);
    } catch (error) {
      throw new RosterError(`etcd cannot be reached: ${reason(error)}`, { cause: error });
    }
    const slot = now.slotOf(name);
    const record = now.record(slot);
    if (record === null) throw new RosterError(`no member is called ${name}; see member list`);
    return { now, slot, record, alive: now.alive(slot) !== 0, revision: now.revision(now.slotKey(slot)) };
  }

  private async keepAlive(): Promise<void> {
    const { client, config } = this.options.registration;
    const { signal } = this.ending;
    const every = (config.lease_ttl_s * 1000) / KEEP_ALIVES;
    for (let attempt = 0; !signal.aborted; ) {
      try {
        const kept = await client.keepAlive(this.lease);
        this.found();
        attempt = 0;
        if (!kept) await this.claimAgain(true);
        await sleep(every, undefined, { signal, ref: false });
      } catch (error) {
        if (signal.aborted) return;
        this.missed(reason(error));
        // Ends the watch, because a connection that died silently would be watched for ever.
        this.watching.abort();
        await this.backOff(attempt++);
      }
    }
  }

  /**
   * Claims our slot again if our lease lapsed although we are alive (`lapsed`, or by etcd's
   * records). Also writes the records that a restored etcd has lost. Ends the instance if its
   * incarnation was declared dead.
   */
  private async claimAgain(lapsed = false): Promise<void> {
    if (this.claiming) return;
    this.claiming = true;
    try {
      const { client, records, slot, incarnation, config } = this.options.registration;
      const now = records.empty();
      let lease: string | null = null;
      for (let i = 0; i < WRITES_MAX; i++) {
        now.reset((await client.read(now.root)).entries);
        const own = ownPlace(now, this.options.registration);
        if (own.do === 'end') {
          this.ending.abort();
          this.options.onOver(new Error(`etcd: ${own.why}`));
          return;
        }
        if (own.do === 'nothing' && !lapsed) return;
        lease ??= await client.grant(config.lease_ttl_s);
        const isLost = own.do === 'write';
        const change = isLost
          ? now.restore(slot, this.ownRecord(), this.otherRecords(), lease)
          : now.claimAgain(slot, incarnation, lease);
        if (!(await client.change(change.conditions, change.operations))) continue;
        this.lease = lease;
        this.options.log.warn(
          isLost
            ? 'etcd: the record of this instance was missing or older; it was written again'
            : 'etcd: the lease of this instance had lapsed; it has a new one',
        );
        return;
      }
    } finally {
      this.claiming = false;
    }
  }

  /** Makes at least three attempts per lease, because a newcomer relies on it. */
  private backOff(attempt: number): Promise<void> {
    const longestMs = (this.options.registration.config.lease_ttl_s * 1000) / KEEP_ALIVES;
    return backOff(attempt, this.ending.signal, { longestMs }).catch(() => undefined);
  }

  private ownRecord(): SlotRecord {
    const { slot } = this.options.registration;
    return recordOf({ ...this.known[slot], incarnation: this.options.registration.incarnation });
  }

  private otherRecords(): ReadonlyMap<number, SlotRecord> {
    const others = new Map<number, SlotRecord>();
    this.known.forEach((known, slot) => {
      if (slot !== this.options.registration.slot && known.entry.role !== Role.EMPTY) others.set(slot, recordOf(known));
    });
    return others;
  }

  /** Reads the list and follows its changes. Starts over when it loses them. */
  private async follow(): Promise<void> {
    const { client, records } = this.options.registration;
    const { signal } = this.ending;
    for (let attempt = 0; !signal.aborted; ) {
      try {
        const { revision, clusterId, entries } = await client.read(records.root);
        records.reset(entries);
        this.show({ revision, clusterId });
        this.watching = new AbortController();
        const until = AbortSignal.any([signal, this.watching.signal]);
        for await (const change of client.watch(records.root, revision + 1, until)) {
          attempt = 0;
          for (const entry of change.entries) {
            if ('gone' in entry) records.delete(entry.gone);
            else records.put(entry);
          }
          this.show(change);
        }
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof CompactedError) continue;
        this.missed(reason(error));
        await this.backOff(attempt++);
      }
    }
  }

  /** Applies the present records of etcd, and the members that are heard, to the member table. */
  private show({ revision, clusterId }: Version): void {
    const { roster, registration, onEvicted, heard, log } = this.options;
    this.found();
    const before = this.known;
    const decision = decide({
      records: registration.records,
      version: { revision, clusterId },
      seen: this.seen,
      isRegained: this.isRegained,
      self: registration,
      known: before,
      heard: before.map((_, slot) => (slot === registration.slot ? 0 : heard(slot))),
      now: performance.now(),
      graceUntil: this.graceUntil,
      leaseMs: registration.config.lease_ttl_s * 1000,
    });
    this.isRegained = false;
    this.seen = { revision, clusterId };
    this.known = decision.known;
    this.graceUntil = decision.graceUntil;
    if (decision.older !== null && decision.older !== this.older)
      log.error(
        `etcd: its records are older than what was seen: ${decision.older}. They are refused for members that are heard; living members write theirs again`,
      );
    this.older = decision.older;
    this.noteContested(decision.contested);
    roster.replace(
      revision,
      this.known.map(({ entry }) => entry),
    );
    this.known.forEach(({ entry }, slot) => {
      if (slot === registration.slot || entry.role !== Role.EVICTED) return;
      if (before[slot].entry.role === Role.MEMBER && before[slot].entry.id === entry.id) onEvicted(entry);
    });
    if (decision.own.do !== 'nothing') this.claimAgain().catch((error: unknown) => this.missed(reason(error)));
  }

  private noteContested(slots: readonly number[]): void {
    const names = slots.map((slot) => this.known[slot].entry.name).join(', ');
    if (names !== '' && names !== this.contested)
      this.options.log.warn(
        `etcd does not list as alive, but they stay members while they are heard, or for one lease: ${names}`,
      );
    this.contested = names;
    if (this.again !== null) clearTimeout(this.again);
    this.again = null;
    if (names === '' || this.ending.signal.aborted) return;
    this.again = setTimeout(() => {
      try {
        // While etcd is unreachable, the last list stays.
        if (this.lost === null && this.seen !== null) this.show(this.seen);
        else this.noteContested(slots);
      } catch (error) {
        this.missed(reason(error));
      }
    }, LOOK_MS);
    this.again.unref();
  }

  private missed(why: string): void {
    if (this.lost === null)
      this.options.log.warn(`etcd is not followed: the last list of members stays, and all goes on (${why})`);
    this.lost ??= { since: performance.now(), why };
  }

  private found(): void {
    if (this.lost !== null) {
      this.options.log.info('etcd is followed again');
      this.isRegained = true;
    }
    this.lost = null;
  }
}

function isLeaseLost(error: unknown): boolean {
  return error instanceof EtcdError && error.message.includes('requested lease not found');
}

function recordOf({ entry, incarnation }: Known): SlotRecord {
  const { name, id, address, port, role, dead } = entry;
  const before = role === Role.MEMBER ? dead : 0;
  return { ...{ name, id, address, port, incarnation, dead: before }, left: role === Role.LEFT, evicted: false };
}
