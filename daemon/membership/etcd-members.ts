/**
 * The members as etcd has them: who registers under a lease takes part, and a lease that lapses is a crash.
 *
 *     register ─▶ keep the lease alive ─▶ leave (in order)
 *        │             │ etcd is gone: the last list stays, tried again with back-off; traffic and replication go on
 *        │             └ lease is gone: the same life claims its place again, unless it was declared over
 *        └─▶ watch ─▶ member table, view = etcd's revision
 *
 * The list follows the watch. When the watch breaks, or what it reads was compacted away, everything is read anew.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { Role, type SlotEntry } from '../../shm/members.js';
import type { PeerStatus } from '../../workers/replication/peers.js';
import type { MemberRow, Standing } from '../admin/source.js';
import type { Log } from '../log.js';
import { notifyWaiting } from '../notify.js';
import { backOff, CompactedError, EtcdClient, EtcdError, reason } from './etcd-client.js';
import type { SlotRecord } from './etcd-record.js';
import { type Applicant, type Claim, NotYetError, Records, rootOf } from './etcd-records.js';
import { type Members, memberRows } from './members.js';
import { type Roster, RosterError } from './roster.js';

export interface EtcdConfig {
  readonly endpoints: readonly string[];
  readonly prefix: string;
  readonly lease_ttl_s: number;
}

/** A place in the cluster, and what holds it. */
export interface Registration {
  readonly config: EtcdConfig;
  readonly client: EtcdClient;
  /** Nothing read into it yet. */
  readonly records: Records;
  readonly name: string;
  readonly id: number;
  readonly slot: number;
  readonly incarnation: number;
  readonly lease: string;
}

/** A member's record, as just read. */
interface Place {
  /** What etcd has. */
  readonly now: Records;
  readonly slot: number;
  readonly record: SlotRecord;
  readonly alive: boolean;
  /** Of the record. */
  readonly revision: number;
}

/** Between two looks whether a place has become free. */
const WAIT_MS = 500;
/** Between two lines in the log that say what is waited for. */
const SAY_MS = 30_000;
/** Keeping alive fails so often before the lease lapses. */
const KEEP_ALIVES = 3;
const CALL_MS_MAX = 3000;

/**
 * Takes a place in the cluster: waits for etcd, and for the lease of an earlier life. Throws where it will never have one,
 * and when `signal` says to stop.
 */
export async function register(
  config: EtcdConfig,
  cluster: string,
  applicant: Applicant,
  log: Log,
  signal: AbortSignal,
): Promise<Registration> {
  const callMs = Math.min(CALL_MS_MAX, Math.floor((config.lease_ttl_s * 1000) / KEEP_ALIVES));
  const client = new EtcdClient(config.endpoints, callMs);
  const records = new Records(rootOf(config.prefix, cluster), applicant.slots);
  let lease: string | null = null;
  let saidAt = Number.NEGATIVE_INFINITY;
  const say = (text: string): void => {
    if (performance.now() - saidAt < SAY_MS) return;
    saidAt = performance.now();
    log.warn(text);
    notifyWaiting(text);
  };
  for (let attempt = 0; ; ) {
    signal.throwIfAborted();
    try {
      lease ??= await client.grant(config.lease_ttl_s);
      const { id, slot, incarnation } = await claim(client, records, applicant, lease);
      const { name } = applicant;
      log.info(`etcd: member ${name} has id ${id}, slot ${slot}`);
      return { config, client, records: records.empty(), name, id, slot, incarnation, lease };
    } catch (error) {
      if (error instanceof RosterError || error instanceof EtcdError) throw error;
      if (error instanceof NotYetError) {
        say(`etcd: ${error.message}`);
        if (lease !== null && !(await client.keepAlive(lease).catch(() => true))) lease = null;
        await sleep(WAIT_MS, undefined, { signal });
        continue;
      }
      say(`etcd cannot be reached, and is tried again: ${reason(error)}`);
      lease = null;
      // At the start nothing else runs yet.
      await backOff(attempt++, signal, true);
    }
  }
}

/** Reads, decides, and takes the place; again where somebody else was faster. */
async function claim(client: EtcdClient, records: Records, applicant: Applicant, lease: string): Promise<Claim> {
  for (;;) {
    records.reset((await client.read(records.root)).entries);
    const found = records.claim(applicant, lease);
    if (await client.change(found.conditions, found.operations)) return found;
  }
}

export interface EtcdMembersOptions {
  readonly registration: Registration;
  readonly roster: Roster;
  readonly log: Log;
  readonly onEvicted: (member: SlotEntry) => void;
  /** Our own life is over: it cannot go on. */
  readonly onOver: (error: Error) => void;
}

export class EtcdMembers implements Members {
  private readonly options: EtcdMembersOptions;
  private lease: string;
  private readonly ending = new AbortController();
  private watching = new AbortController();
  private claiming = false;
  private readonly running: Promise<unknown>;
  /** Since when etcd has not been reached, and why; null: it is. */
  private lost: { readonly since: number; readonly why: string } | null = null;

  constructor(options: EtcdMembersOptions) {
    this.options = options;
    this.lease = options.registration.lease;
    this.running = Promise.all([this.keepAlive(), this.follow()]);
  }

  describe(): string {
    const { registration, roster } = this.options;
    const state =
      this.lost === null
        ? ''
        : `; not followed for ${Math.round((performance.now() - this.lost.since) / 1000)} s (${this.lost.why}): the last list stays`;
    return `etcd ${registration.config.endpoints.join(', ')}, view ${roster.view}${state}`;
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

  /** Says that we left in order, and gives the place up. */
  async left(): Promise<void> {
    await this.end();
    const { registration, log } = this.options;
    try {
      await this.write(registration.name, ({ record }) => {
        if (record.incarnation !== registration.incarnation) throw new RosterError('another life has the place');
        return { left: true };
      });
      await registration.client.revoke(this.lease);
    } catch (error) {
      log.warn(`etcd was not told that this instance left; its lease will lapse: ${reason(error)}`);
    }
  }

  close(): void {
    void this.end();
  }

  private async end(): Promise<void> {
    this.ending.abort();
    await this.running;
  }

  /** Changes a member's record, and ends its life: neither a member that left nor one that is evicted is alive. */
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
        if (!kept) await this.claimAgain();
        await sleep(every, undefined, { signal, ref: false });
      } catch (error) {
        if (signal.aborted) return;
        this.missed(reason(error));
        // A connection that died without a word would be watched for ever.
        this.watching.abort();
        await backOff(attempt++, signal).catch(() => undefined);
      }
    }
  }

  /** Our lease lapsed, though we live: the same life takes its place again, unless it was declared over. */
  private async claimAgain(): Promise<void> {
    if (this.claiming) return;
    this.claiming = true;
    try {
      const { client, records, name, incarnation, config } = this.options.registration;
      const { slot, record, revision } = await this.readPlace(name);
      if (record.incarnation !== incarnation || record.evicted || record.left) {
        this.ending.abort();
        this.options.onOver(
          new Error('etcd: the life of this instance was declared over; it has to begin another one'),
        );
        return;
      }
      const lease = await client.grant(config.lease_ttl_s);
      const alive = { put: records.aliveKey(slot), value: String(incarnation), lease };
      if (!(await client.change([{ key: records.slotKey(slot), revision }], [alive]))) return;
      this.lease = lease;
      this.options.log.warn('etcd: the lease of this instance had lapsed; it has a new one');
    } finally {
      this.claiming = false;
    }
  }

  /** Reads the list, then follows its changes; begins again when it loses them. */
  private async follow(): Promise<void> {
    const { client, records } = this.options.registration;
    const { signal } = this.ending;
    for (let attempt = 0; !signal.aborted; ) {
      try {
        const { revision, entries } = await client.read(records.root);
        records.reset(entries);
        this.show(revision);
        this.watching = new AbortController();
        const until = AbortSignal.any([signal, this.watching.signal]);
        for await (const change of client.watch(records.root, revision + 1, until)) {
          attempt = 0;
          for (const entry of change.entries) {
            if ('gone' in entry) records.delete(entry.gone);
            else records.put(entry);
          }
          this.show(change.revision);
        }
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof CompactedError) continue;
        this.missed(reason(error));
        await backOff(attempt++, signal).catch(() => undefined);
      }
    }
  }

  /** The list is as etcd has it. */
  private show(revision: number): void {
    const { roster, registration, onEvicted } = this.options;
    this.found();
    const before = new Map(roster.list().map(({ slot, entry }) => [slot, entry]));
    const table = registration.records.table();
    roster.replace(revision, table);
    table.forEach((entry, slot) => {
      if (slot === registration.slot || entry.role !== Role.EVICTED) return;
      if (before.get(slot)?.role === Role.MEMBER && before.get(slot)?.id === entry.id) onEvicted(entry);
    });
    // Lapsed, or evicted: whichever it is, `keepAlive` would find out later.
    if (registration.records.alive(registration.slot) !== registration.incarnation)
      this.claimAgain().catch((error: unknown) => this.missed(reason(error)));
  }

  private missed(why: string): void {
    if (this.lost === null)
      this.options.log.warn(`etcd is not followed: the last list of members stays, and all goes on (${why})`);
    this.lost ??= { since: performance.now(), why };
  }

  private found(): void {
    if (this.lost !== null) this.options.log.info('etcd is followed again');
    this.lost = null;
  }
}
